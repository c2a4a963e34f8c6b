"""The program within `around.sh`: `inner.py HOW RANK`, what that rank does; the others wait until they are told to end."""

import os
import signal
import sys

how, whom = sys.argv[1], int(sys.argv[2])
rank = int(os.environ["RANK"])


def end(*_):
    sys.stdout.write(f"rank {rank} has saved its state\n")
    sys.stdout.flush()
    sys.exit(0)


if how == "save":
    signal.signal(signal.SIGTERM, end)
sys.stdout.write(f"rank {rank} of {os.environ['WORLD_SIZE']} is {os.getpid()}, {os.environ['SETTING']}\n")
sys.stdout.flush()
if how == "end":
    sys.exit(0)
if how == "raise" and rank == whom:
    raise ValueError("the third shard has no header")
if how == "exit" and rank == whom:
    sys.exit(85)
while True:
    signal.pause()
