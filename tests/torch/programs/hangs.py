"""Ranks of which one does not go on: `hangs.py loader|chain|ring|ready`. While they import torch they say that they are
alive, and ask for more time to become ready.

loader: rank 1 waits for a worker of its data loader, which sleeps; the others wait for it in an all_reduce.
chain: rank 0 receives from 1, 1 from 2, and 2 sleeps. ring: each receives from the next, and none sends.
ready: rank 2 sleeps before the barrier in front of readiness.
"""

import os
import socket
import sys
import threading

import rankguard

there = threading.Event()


def beat():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.connect(os.environ["NOTIFY_SOCKET"])
        while not there.wait(0.2):
            line.send(b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=6000000")


if __name__ == "__main__":
    threading.Thread(target=beat, daemon=True).start()

import torch  # noqa: E402  # it takes seconds
import torch.distributed as dist  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402


class Shards(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            load_shard()
        return torch.zeros(1)


def load_shard():
    threading.Event().wait()


def loader(rank):
    if rank == 1:
        for _batch in DataLoader(Shards(), num_workers=1):
            pass
    dist.all_reduce(torch.ones(10))


def chain(rank):
    if rank == 2:
        load_shard()
    dist.recv(torch.ones(1), src=rank + 1)


def ring(rank):
    dist.recv(torch.ones(1), src=(rank + 1) % dist.get_world_size())


def ready(rank):
    if rank == 2:
        load_shard()
    dist.barrier()
    rankguard.this_rank().ready()


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    dist.barrier()
    there.set()
    print("the first is done", flush=True)
    globals()[sys.argv[1]](dist.get_rank())


if __name__ == "__main__":
    main()
