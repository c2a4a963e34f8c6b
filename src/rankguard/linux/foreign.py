"""Processes that are not ours: how one ended that is not our child, or was reaped by somebody else.

There are two sources besides a look at a child of ours, each for one half of its afterlife: the zombie's `/proc/PID/stat` until it is reaped, PIDFD_GET_INFO from
then on. Neither reaps. No guess is made: None is "not known".

Sources: include/uapi/linux/pidfd.h (EXIT: Linux 6.15); fs/proc/array.c `do_task_stat`; measured in facts/linux.md 1.1.
Read next: `child.py` (children of ours), `adopted/process.py` (the whole ladder).
"""

import fcntl
import os
import struct

from rankguard.linux.child import from_status, look
from rankguard.model import Ending

UNKNOWN = Ending("exit")
"""Ended, and nobody can say how."""

_SIZE = 128
_GET_INFO = 3 << 30 | _SIZE << 16 | 0xFF << 8 | 11  # _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)
_EXIT = 8
_EXIT_CODE_AT = 60


def ending_of(pid: int, pidfd: int) -> Ending | None:
    """How a process ended whose pidfd is readable, whoever its parent is or was; None when it is not known (yet)."""
    try:
        ending = look(pidfd)
    except ChildProcessError:
        ending = None
    return ending or reaped_ending(pidfd) or zombie_ending(pid, pidfd)


def reaped_ending(pidfd: int) -> Ending | None:
    """The ending of a process that somebody has reaped. The pidfd has to be older than the reap."""
    info = bytearray(_SIZE)
    struct.pack_into("=Q", info, 0, _EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:  # an older kernel, or it is not reaped yet
        return None
    if not struct.unpack_from("=Q", info)[0] & _EXIT:
        return None
    return from_status(struct.unpack_from("=i", info, _EXIT_CODE_AT)[0])


def zombie_ending(pid: int, pidfd: int) -> Ending | None:
    """The ending of a process that has not been reaped yet, where we may read it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
        # The kernel prints 0 for a reader without the right to trace it, which would look like success. This link asks
        # for the same right (fs/proc/namespaces.c), and a zombie still has its credentials.
        os.readlink(f"/proc/{pid}/ns/user")
    except OSError:
        return None
    if fields[0] != b"Z" or pid_of(pidfd) != pid:
        return None
    return from_status(int(fields[49]))


def pid_of(pidfd: int) -> int | None:
    """The pid of the process behind a pidfd until it is reaped (`Pid:` of its fdinfo, pidfd_open(2)); then None."""
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
            for line in file:
                if line.startswith(b"Pid:"):
                    pid = int(line.split()[1])
                    return pid if pid > 0 else None
    except OSError:
        pass
    return None
