"""A lock on a file that says who is alive: held by one process, seen by all, gone with its holder however it ends.

Open-file-description locks (fcntl(2), F_OFD_SETLK): unlike a pid they cannot be mistaken after a reuse or from another
container, they work over NFS, and to look takes nothing away from the holder. A child that executes another program
does not keep it (the descriptor closes on exec).
"""

import errno
import fcntl
import os
import struct

_FLOCK = struct.Struct("hhqqi4x")  # struct flock with 64-bit offsets: type, whence, start, len, pid


def hold(fd: int) -> bool:
    """Take the lock on an open file for as long as `fd` is open; false when somebody else has it.

    True also where the file system knows no locks: then nobody can tell.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def is_held(path: str) -> bool | None:
    """Whether some process holds it; None when that cannot be told (no file, no right, no locks)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        told = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return bool(_FLOCK.unpack(told)[0] != fcntl.F_UNLCK)
    except OSError:
        return None
    finally:
        os.close(fd)
