"""A worker of a distributed XGBoost training: `xgboost_rank.py ROUNDS [WHO]` (0: without end); worker WHO gives up with 4.

Its number and its tracker's place are in DMLC_TASK_ID, DMLC_TRACKER_URI and DMLC_TRACKER_PORT, as dmlc's launchers set
them. Under any other launcher rank 0 is the tracker's host, and RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT tell the same.
"""

import os
import sys

import numpy as np
import xgboost
from xgboost.tracker import RabitTracker

rounds = int(sys.argv[1])
place = os.environ.get("DMLC_TRACKER_URI") or os.environ["MASTER_ADDR"]
port = int(os.environ.get("DMLC_TRACKER_PORT") or os.environ["MASTER_PORT"])
number = os.environ.get("DMLC_TASK_ID") or os.environ["RANK"]
tracker = None
if "DMLC_TRACKER_URI" not in os.environ and number == "0":
    tracker = RabitTracker(n_workers=int(os.environ["WORLD_SIZE"]), host_ip=place, port=port, sortby="task")
    tracker.start()


class Tell(xgboost.callback.TrainingCallback):
    def after_iteration(self, _model, epoch, _log):
        if epoch == 3:
            me, of = xgboost.collective.get_rank(), xgboost.collective.get_world_size()
            sys.stdout.write(f"worker {me} of {of} is {os.getpid()}\n")
            sys.stdout.flush()
        if epoch == 10 and sys.argv[2:] == [number]:
            os._exit(4)
        return False


told = {"dmlc_tracker_uri": place, "dmlc_tracker_port": port, "dmlc_task_id": number}
with xgboost.collective.CommunicatorContext(**told, dmlc_retry=20):
    draw = np.random.default_rng(int(number))
    values = draw.random((2000, 4))
    rows = xgboost.DMatrix(values, label=values.sum(axis=1))
    asked = {"tree_method": "hist", "nthread": 1, "max_depth": 3}
    model = xgboost.train(asked, rows, rounds or 1_000_000, callbacks=[Tell()])
    trees = model.num_boosted_rounds()
if tracker:
    tracker.wait_for()
sys.stdout.write(f"worker {number} has grown {trees} trees\n")
sys.stdout.flush()
