"""Starts a tracker of XGBoost's and its workers, as dmlc's own launchers do, and waits for them in their order."""

import os
import subprocess
import sys
from pathlib import Path

from xgboost.tracker import RabitTracker

count, rounds = int(sys.argv[1]), sys.argv[2]
tracker = RabitTracker(n_workers=count, host_ip="127.0.0.1", sortby="task")
tracker.start()
where = {name.upper(): str(value) for name, value in tracker.worker_args().items()}
rank = Path(__file__).with_name("xgboost_rank.py")
workers = [
    subprocess.Popen([sys.executable, rank, rounds], env={**os.environ, **where, "DMLC_TASK_ID": str(number)})
    for number in range(count)
]
sys.exit(max(worker.wait() != 0 for worker in workers))
