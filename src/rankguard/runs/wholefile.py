"""A file that somebody asked for by name is complete, or as it was before."""

import contextlib
import os
import stat


def write_whole(file: str, data: bytes) -> None:
    """By rename; what is no regular file (a pipe, a terminal) is written to as it is. Raises `OSError`."""
    path = os.path.realpath(file)
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode) or not stat.S_ISREG(mode):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # of a folder this tells what it is
            try:
                write_all(fd, data)
            finally:
                os.close(fd)
            return
    new = f"{path}.{os.getpid()}.new"
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        error.filename = file  # the name that was asked for
        raise
    try:
        try:
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
