"""News of a folder (inotify(7)): a descriptor that is readable when something was made or changed in it, and no more.

Which name it was is not told: whoever asks looks. Used by `shmowners.py` and `filelook.py`.
"""

import ctypes
import errno
import os

CREATE, MOVED_TO, ATTRIB, MODIFY, CLOSE_WRITE = 0x100, 0x80, 0x4, 0x2, 0x8
_ONLYDIR = 0x01000000


def watch(folder: str, events: int) -> int:
    """The descriptor, without blocking; -1 when the kernel does not tell of this folder."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd >= 0 and libc.inotify_add_watch(fd, os.fsencode(folder), events | _ONLYDIR) < 0:
        os.close(fd)
        return -1
    return fd


def drain(fd: int) -> bool:
    """Take all news; false when no more can come."""
    try:
        while os.read(fd, 65536):
            pass
    except OSError as error:
        return error.errno == errno.EAGAIN
    return True
