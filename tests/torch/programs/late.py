"""Ranks of which one comes to the second all_reduce only when somebody writes to a FIFO: `late.py RANK FIFO`.

While they import torch they say that they are alive.
"""

import sys
import threading

import rankguard

there = threading.Event()


def beat():
    while not there.wait(0.2):
        rankguard.this_rank().alive()


threading.Thread(target=beat, daemon=True).start()

import torch  # noqa: E402  # it takes seconds
import torch.distributed as dist  # noqa: E402


def load_shard(fifo):
    with open(fifo) as shard:
        shard.read()


def main():
    late, fifo = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    total = torch.ones(1000)
    dist.all_reduce(total)
    there.set()
    print("the first is done", flush=True)
    if dist.get_rank() == late:
        load_shard(fifo)
    dist.all_reduce(total)
    print("the second is done", flush=True)
    dist.destroy_process_group()  # else torch's own threads may abort a rank that ends (seen in 2 of 4 runs)


if __name__ == "__main__":
    main()
