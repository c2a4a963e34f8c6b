"""A rank that imports torch at its top, as programs do it. `here_torch.py FIFO main|barrier`.

`main`: says that it is in `main`, and rests until a signal ends it. `barrier`: says that it is through its first gloo
barrier, and ends.
"""

import signal
import sys

import torch.distributed as dist
from here import say


def main(fifo, where):
    if where == "barrier":
        dist.init_process_group("gloo")
        dist.barrier()
    say(fifo)
    if where == "barrier":
        dist.destroy_process_group()
        return
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
