"""Rank 2 raises, and its `finally` takes longer than the others need to die of it.

`goodbye.py FIFO`: in its `finally` rank 2 waits until Python prints the traceback of another rank, which has then
reported that it lost a peer. So the first report is a victim's, every time.
"""

import os
import sys

import torch
import torch.distributed as dist


def main(fifo):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    me = dist.get_rank()
    news = os.open(fifo, os.O_RDWR)
    if me != 2:
        printing = sys.excepthook

        def tell(*error):
            os.write(news, b"x")
            printing(*error)

        sys.excepthook = tell
    try:
        for step in range(100):
            if me == 2 and step == 10:
                raise ValueError("the first error of all")
            dist.all_reduce(torch.ones(1000))
    finally:
        dist.destroy_process_group()
        if me == 2:
            os.read(news, 1)


if __name__ == "__main__":
    main(sys.argv[1])
