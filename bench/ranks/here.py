"""A Python rank that says that it is in `main`, in the words of `rest.c`, and rests until a signal ends it: `here.py FIFO`."""

import os
import signal
import sys
import time


def say(fifo):
    """The line of `rest.c`, in one write."""
    at = time.monotonic_ns()
    line = f"{os.environ['RANK']} {os.getpid()} {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')} {at}\n"
    fd = os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, line.encode())
    os.close(fd)


def main(fifo):
    say(fifo)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
