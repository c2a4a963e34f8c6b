"""Ranks that add up a tensor again and again, until one of them ends and the others lose it.

`--loss`: what the others do then. `raise`: what Python does. `say`: print it and be gone at once, faster than a rank
that has memory to give back. `quit`: the same without a word.
"""

import argparse
import ctypes
import itertools
import os
import sys

import torch
import torch.distributed as dist

import rankguard


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--hold", type=int, default=0, metavar="MIB")
    options.add_argument("--hold-rank", type=int)
    options.add_argument("--crash-rank", type=int)
    options.add_argument("--leave-rank", type=int)
    options.add_argument("--loss", choices=("raise", "say", "quit"), default="raise")
    asked = options.parse_args()

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    me = dist.get_rank()
    held = torch.ones(asked.hold << 18) if me == asked.hold_rank else None
    rankguard.this_rank().ready()
    try:
        for step in itertools.count():
            if step == 20 and me == asked.crash_rank:
                ctypes.string_at(0)
            if step == 20 and me == asked.leave_rank:
                os._exit(0)
            dist.all_reduce(torch.ones(1000))
            if step == 10 and me == 0:
                print("adding up", flush=True)
    except RuntimeError as loss:
        if asked.loss == "raise":
            raise
        if asked.loss == "say":
            print(loss, file=sys.stderr, flush=True)
        os._exit(1)
    del held


if __name__ == "__main__":
    main()
