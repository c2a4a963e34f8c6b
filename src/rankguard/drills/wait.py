"""A rank program that does nothing but say, in the FIFO `started` of FOLDER, that it runs: `wait.py FOLDER`."""

import os
import signal
import sys

import rankguard


def main() -> None:
    """Say it, and wait for ever."""
    fd = os.open(f"{sys.argv[1]}/started", os.O_WRONLY)
    os.write(fd, f"{rankguard.this_rank().rank} {os.getpid()}\n".encode())
    os.close(fd)
    signal.pause()


if __name__ == "__main__":
    main()
