"""Pipes that a rank writes to: larger than usual where few ranks share what a user may have.

A rank that prints much then waits less often for us, and we read more at once. Not more than `BUDGET` for all of a job:
beyond `/proc/sys/fs/pipe-user-pages-soft` (64 MiB) the kernel would give every further pipe of this user one page only
(pipe(7)).
"""

import contextlib
import fcntl
import os

BUDGET = 16 << 20
USUAL, MOST = 64 << 10, 256 << 10


def output_pipe(ranks: int) -> tuple[int, int]:
    """A pipe for one of two streams of one of so many ranks: the end to read, the end to write. Raises `OSError`."""
    read, write = os.pipe2(os.O_CLOEXEC)
    size = min(MOST, BUDGET // (2 * ranks))
    if size > USUAL:
        enlarge(read, 1 << (size.bit_length() - 1))
    return read, write


def enlarge(fd: int, size: int) -> None:
    """Make a pipe hold at least so many bytes, if this user may; it never gets smaller."""
    with contextlib.suppress(OSError):  # over a limit of this user, or no pipe: it stays as it is
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < size:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
