"""A rank that uses MPI by itself: nobody has started it as one of several, so it is a world of one. Waits, unless told `end`."""

import os
import signal
import sys

from mpi4py import MPI

world = MPI.COMM_WORLD
total = world.allreduce(int(os.environ["RANK"]))
sys.stdout.write(f"rank {os.environ['RANK']} is {os.getpid()}, {world.rank} of {world.size} to MPI: sum {total}\n")
sys.stdout.flush()
if sys.argv[1] != "end":
    signal.pause()
