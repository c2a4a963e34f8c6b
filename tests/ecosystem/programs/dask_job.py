"""A dask cluster of processes with nannies, on this machine: who works, before and after somebody was killed.

`dask_job.py ORDERS`: each line asks once more, and holds the pid of whoever was killed since.
"""

import os
import sys

from dask.distributed import Client, LocalCluster


def main():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
        open(sys.argv[1]) as orders,
    ):
        for gone in orders:
            pids = []
            while len(pids) < 2 or gone.strip() in map(str, pids):  # the scheduler may count one that was just killed
                client.wait_for_workers(2)
                pids = sorted(client.run(os.getpid, on_error="ignore").values())
            print(f"workers {pids} sum {client.submit(sum, [1, 2, 3]).result()}", flush=True)
    print("bye", flush=True)


if __name__ == "__main__":
    main()
