"""A dask cluster of processes with nannies, on this machine: who works, before and after somebody was killed."""

import os
import sys

from dask.distributed import Client, LocalCluster


def main():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
        open(sys.argv[1]) as orders,
    ):
        for _line in orders:
            client.wait_for_workers(2)
            print(
                f"workers {sorted(client.run(os.getpid).values())} sum {client.submit(sum, [1, 2, 3]).result()}",
                flush=True,
            )
    print("bye", flush=True)


if __name__ == "__main__":
    main()
