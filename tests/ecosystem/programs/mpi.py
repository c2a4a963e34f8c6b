"""A rank of MPI: all reduce without end."""

import os
import sys
import time

from mpi4py import MPI

world = MPI.COMM_WORLD
sys.stdout.write(f"rank {world.rank} of {world.size} is {os.getpid()}\n")  # one write: whole lines
sys.stdout.flush()
while True:
    world.allreduce(world.rank)
    time.sleep(0.01)
