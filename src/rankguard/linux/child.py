"""One process by its pidfd: look at its ending without reaping, reap it, signal it.

The pidfd is opened by the parent before anybody can reap the child, so the number cannot have been recycled
(pidfd_open(2)). It becomes readable at the *end* of an exit: after memory is unmapped, sockets closed, a core written.
"""

import os

from rankguard.linux.signals import name
from rankguard.model import Ending


def look(pidfd: int) -> Ending | None:
    """How a child of ours ended, without reaping it; None while it runs. Raises `ChildProcessError` if not our child."""
    status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    if status is None:
        return None
    if status.si_code == os.CLD_EXITED:
        return Ending("exit", code=status.si_status)
    return by_signal(status.si_status, status.si_code == os.CLD_DUMPED)


def reap(pid: int) -> tuple[Ending, int | None]:
    """Reap a child that has ended: its ending and its peak resident memory in bytes (`ru_maxrss`, wait4(2))."""
    _pid, status, usage = os.wait4(pid, 0)
    return from_status(status), usage.ru_maxrss * 1024


def from_status(status: int) -> Ending:
    """The ending that a wait status (wait(2)) tells."""
    if os.WIFSIGNALED(status):
        return by_signal(os.WTERMSIG(status), os.WCOREDUMP(status))
    return Ending("exit", code=os.WEXITSTATUS(status))


def by_signal(number: int, core_dumped: bool = False) -> Ending:
    """The ending of a process that signal `number` killed."""
    return Ending("signal", signal=name(number), number=number, core_dumped=core_dumped)


def signal_group(pid: int, number: int) -> bool:
    """Signal the process group that an unreaped child leads; the child alone if it does not lead one. False if gone."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return signal_one(pid, number)
    except PermissionError:  # some member has another uid (a set-user-id program); the rest got it
        return True
    return True


def signal_one(pid: int, number: int) -> bool:
    """Signal one unreaped child. False if it is gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def state(pid: int) -> tuple[str, int] | None:
    """(state letter, parent) of `/proc/PID/stat` (proc(5)); None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError:  # too many open files: it is there, and that is all we know
        return "?", 0
    # The command may hold spaces and brackets: fields are counted from the last one.
    fields = text[text.rindex(b")") + 2 :].split()
    return fields[0].decode(), int(fields[1])
