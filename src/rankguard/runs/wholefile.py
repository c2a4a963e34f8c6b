"""A file that somebody asked for by name is complete, or as it was before."""

import contextlib
import os
import re
import stat

_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"(?:/dev|/proc/self)/fd/(\d{1,9})")


def write_whole(file: str, data: bytes) -> None:
    """By rename; what is no regular file (a pipe, a terminal), or is open already, is written to as it is. Raises `OSError`."""
    if (fd := _open_already(file)) is not None:
        write_all(fd, data)
        return
    before: int | None = None
    with contextlib.suppress(FileNotFoundError):
        before = os.stat(file).st_mode
    if before is not None and not stat.S_ISREG(before):
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)  # of a folder this tells what it is
        try:
            write_all(fd, data)
        finally:
            os.close(fd)
        return
    path = os.path.realpath(file)
    # Not made of its name, which may be as long as a name can be, nor of our pid, which a container gives again.
    new = os.path.join(os.path.dirname(path), f".{os.urandom(8).hex()}.new")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if before is None else 0o600)
    except OSError as error:
        error.filename = file  # the name that was asked for
        raise
    try:
        try:
            if before is not None:  # who may read it is not ours to change
                os.fchmod(fd, stat.S_IMODE(before))
            write_all(fd, data)
        finally:
            os.close(fd)
        os.rename(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


def write_all(fd: int, data: bytes) -> None:
    """All of it, to a descriptor that blocks. Raises `OSError`."""
    while data:
        data = data[os.write(fd, data) :]


def _open_already(file: str) -> int | None:
    """The descriptor that a name stands for. What is behind it may have a beginning: `>> FILE`."""
    if (named := _DESCRIPTOR.fullmatch(file)) is not None:
        return int(named[1])
    return _STREAMS.get(file)
