"""The end of a rank's log file, read from outside: bounded, and whatever may lie there in its place.

No link, FIFO or device is followed or waited for; of a stream that outgrew its bound the newest part is found by the line
that `logfile.py` keeps behind it. Nothing is hidden here: whoever shows it does that (`redact.py`).
"""

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

_SEAM = b"\n[rankguard: the job was cut off; the newest output ends above"
_CHUNK = 1 << 20
_LINE = 4 << 20
_MOST = 1 << 30
"""A file in which no end is looked for any more."""


class Tail(NamedTuple):
    """`cut`: there is more before it."""

    text: str
    cut: bool


def tail(folder: str, path: str, most: int, limit: int = 0) -> Tail | None:
    """The last `most` bytes at most of a file below `folder`; None when there is nothing to read, or a link on the way.

    `limit`: what the file is kept to (--log-max).
    """
    fd = opened(folder, path)
    if fd is None:
        return None
    try:
        end, least = os.fstat(fd).st_size, 0
        if limit and end > limit:  # what is before the part that is written round and round is far older
            end, least = _newest(fd, limit // 4, end), limit // 4
        start = max(least, end - most)
        data = os.pread(fd, end - start, start)
    except OSError:
        return None
    finally:
        os.close(fd)
    return Tail(_whole_lines(data, start > 0).decode(errors="replace"), start > 0)


def lines(path: str, most: int) -> Iterator[bytes]:
    """Of a file of ours, `most` bytes at most, one after another; none of anything else that lies there."""
    folder, _, name = path.rpartition("/")
    fd = opened(folder, name)
    if fd is None:
        return
    with os.fdopen(fd, "rb") as file:
        while most > 0:
            try:
                line = file.readline(_LINE)
            except OSError:
                return
            if not line:
                return
            most -= len(line)
            yield line


def opened(folder: str, path: str) -> int | None:
    """A regular file, reached over no link below `folder`."""
    *between, name = path.split("/")
    try:
        at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for each in between:
                below = os.open(each, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                os.close(at)
                at = below
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY, dir_fd=at)
        finally:
            os.close(at)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _newest(fd: int, head: int, size: int) -> int:
    """Where the newest output of a stream ends that is written round and round."""
    at = head
    while at < min(size, _MOST):
        data = os.pread(fd, _CHUNK + len(_SEAM), at)
        found = data.find(_SEAM)
        if found >= 0:
            return at + found
        if len(data) <= len(_SEAM):
            break
        at += _CHUNK
    return size


def _whole_lines(data: bytes, cut: bool) -> bytes:
    """A line whose beginning is missing is left out: what is left of a secret would not be known as one."""
    if not cut:
        return data
    return data[data.find(b"\n") + 1 :] if b"\n" in data else b""
