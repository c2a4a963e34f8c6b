"""Start the warden, which forks the supervisor: the first thing of a job that happens, so that both load their modules
while the front loads its own.

It imports little, since each module delays every job by its load time; a test holds the list. What the job is comes
later, through the socket: a front that never says it (wrong usage) only closes that, and both processes end.
Read next: `client.py` (who talks to them), `warden.py`.
"""

import errno
import fcntl
import os
import signal
import socket
import sys
from posix import posix_spawn  # not `os.posix_spawn`, which a debugger replaces to follow what we start

from rankguard.linux.files import devnull

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_FIRST_FREE = 10


class Outset:
    """Both processes as they are begun: the warden's pid and pidfd, and our end of the supervisor's socket."""

    def __init__(self) -> None:
        """Raises `OSError`; then nothing is open."""
        err = 2 if is_open(2) else -1  # before anything of ours can land on its number
        self.socket, theirs = _pair()
        null = -1
        try:
            null = devnull()
            self.pid = _start_warden(theirs.fileno(), null, null if err < 0 else err)
            self.pidfd = os.pidfd_open(self.pid)
        except BaseException:
            self.socket.close()
            raise
        finally:
            theirs.close()
            if null >= 0:
                os.close(null)


_begun: list[Outset] = []


def begin() -> None:
    """Begin before it is known what for. If the machine is unable to, whoever needs it asks again, and says so."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, the kernel would reap our children, and keep nothing
    try:
        _begun.append(Outset())
    except OSError:
        return


def begun() -> Outset:
    """What `begin` has begun, once; else begun now. Raises `OSError`."""
    return _begun.pop() if _begun else Outset()


def is_open(fd: int) -> bool:
    """Whether this number is a descriptor of ours."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _start_warden(control: int, null: int, err: int) -> int:
    """Execute the warden with exactly the descriptors it is meant to have.

    posix_spawn(3) and not fork: the host may have threads, gigabytes and a CUDA context. The sources are moved above
    the targets first, so that no `dup2` of the new process overwrites one that is still needed.
    """
    if not sys.executable:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "sys.executable")
    front = os.pidfd_open(os.getpid())
    moved: list[int] = []
    try:
        wanted = (null, null, err, control, front)
        moved += [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for fd in wanted]
        actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(moved)]
        command = [sys.executable, "-I", "-S", f"{_PACKAGE}/warden.py", os.path.dirname(_PACKAGE), str(os.getpid())]
        return posix_spawn(sys.executable, command, os.environ, file_actions=actions, setsid=True)
    finally:
        for fd in (front, *moved):
            os.close(fd)


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two ends, both at numbers above the standard streams, which may be closed."""
    low = socket.socketpair()
    try:
        one, other = (socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)) for end in low)
    finally:
        for end in low:
            end.close()
    return one, other
