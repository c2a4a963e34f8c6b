"""One process that somebody else started, and the ladder to its exit status.

It is held by its pidfd, so that its number cannot come to mean another process. It is never reaped here: the status is
looked at (WNOWAIT), taken from its owner's object, or asked of the kernel; what nobody knows stays unknown (an `exit`
without a code). Without pidfds (macOS) its owner's sentinel is waited for, and its owner's word is all there is.

Read next: `linux/foreign.py` (the kernel's word on strangers), `watch.py`.
"""

import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rankguard.errors import UsageError
from rankguard.linux import child
from rankguard.linux.foreign import UNKNOWN, reaped_ending, zombie_ending
from rankguard.model import Ending

PATIENCE = 0.05
"""Seconds that statuses are waited for: one reaped by its owner's own parent (forkserver) takes about 0.2 ms."""

_STEP = 0.0002


def have_pidfds() -> bool:
    """The kernel and this Python can hold processes by file descriptors."""
    return hasattr(os, "pidfd_open")


class Adopted:
    """A process of somebody else's. `rank` is its index in what the caller gave."""

    def __init__(self, process: Any, rank: int, name: str | None = None) -> None:
        self.owner = None if isinstance(process, int) else process
        self.pid = _pid(process)
        self.rank = rank
        own_name = getattr(process, "name", None)
        self.name = name if name is not None else own_name if isinstance(own_name, str) else None
        self.ending: Ending | None = None
        self.forgotten = False
        self.late = False
        """It had ended before we came: what the counters of OOM kills said before is not known."""
        self.pidfd = -1
        self.fd = -1
        """What becomes readable when it ends; -1 when there is no such thing and its owner has to be asked again."""
        if (known := self._told()) is not None:
            self.ending, self.late = known, True
        elif have_pidfds():
            self._open()
        else:
            sentinel = getattr(process, "sentinel", None)
            self.fd = sentinel if isinstance(sentinel, int) else -1

    @property
    def label(self) -> str:
        """What `on_ending` calls it: its name, else its pid."""
        return self.name if self.name is not None else f"pid {self.pid}"

    def is_same(self, process: Any) -> bool:
        """Whether the caller means this one."""
        if self.owner is None or isinstance(process, int):
            return _pid(process) == self.pid
        return process is self.owner

    def gone(self) -> bool:
        """It has ended, asked without waiting and without its pidfd."""
        if self._told() is not None or self._asked() is not None:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return self.owner is None and _looked_by_pid(self.pid) is not None

    def known_ending(self) -> Ending | None:
        """How it ended, from whoever knows; None when nobody does (yet)."""
        if self.pidfd < 0:
            return self._told() or self._asked() or _looked_by_pid(self.pid)
        try:
            return child.look(self.pidfd)
        except ChildProcessError:  # not our child, or its owner was faster
            return self._told() or reaped_ending(self.pidfd) or zombie_ending(self.pid, self.pidfd)

    def last_resort(self) -> Ending | None:
        """Its owner, asked to look: for kernels that tell nothing of strangers."""
        return self._told() or self._asked()

    def close(self) -> None:
        """Let go of it."""
        pidfd, self.pidfd, self.fd = self.pidfd, -1, -1
        if pidfd >= 0:
            os.close(pidfd)

    def __del__(self) -> None:
        if getattr(self, "pidfd", -1) >= 0:
            self.close()

    def _open(self) -> None:
        try:
            self.fd = self.pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:  # reaped before we came
            self.ending, self.late = self.last_resort() or UNKNOWN, True

    def _told(self) -> Ending | None:
        """What its owner's object holds, read without making it look (which would reap)."""
        popen = getattr(self.owner, "_popen", self.owner)  # multiprocessing.Process keeps it one object further
        code = getattr(popen, "returncode", None)
        return _of_code(code) if isinstance(code, int) else None

    def _asked(self) -> Ending | None:
        """What a `multiprocessing.Process` says when it looks. Not `Popen.poll`: it says 0 where it does not know."""
        try:
            code = getattr(self.owner, "exitcode", None)
        except (ValueError, OSError):  # closed
            return None
        method = getattr(getattr(self.owner, "_popen", None), "method", None)
        if code == 255 and method == "forkserver":  # also what it says when the fork server is gone
            return None
        return _of_code(code) if isinstance(code, int) else None


def learn_endings(ended: Iterable[Adopted], patience: float = PATIENCE) -> None:
    """Set `ending` of processes that have ended. One that nobody has told of after `patience` seconds is unknown."""
    until = time.monotonic() + patience
    waiting = [each for each in ended if each.ending is None]
    while True:
        for each in waiting:
            each.ending = each.known_ending()
        waiting = [each for each in waiting if each.ending is None]
        if not waiting:
            return
        if time.monotonic() >= until:
            break
        time.sleep(_STEP)
    for each in waiting:
        each.ending = each.last_resort() or UNKNOWN


def adopt(processes: Sequence[Any], names: Sequence[str | None] | None) -> list[Adopted]:
    """All of them, or none: raises `UsageError` for what is no process, `OSError` when pidfds run out."""
    processes = list(processes)
    if names is not None and len(names) != len(processes):
        raise UsageError(f"{len(names)} names for {len(processes)} processes")
    for name in names or ():
        if name is not None and not isinstance(name, str):
            raise UsageError(f"names holds {name!r}: expected text", "str(…)")
    adopted: list[Adopted] = []
    try:
        for rank, process in enumerate(processes):
            adopted.append(Adopted(process, rank, None if names is None else names[rank]))
    except BaseException:
        for each in adopted:
            each.close()
        raise
    return adopted


def _pid(process: Any) -> int:
    pid = process if isinstance(process, int) else getattr(process, "pid", None)
    if pid is None and hasattr(process, "pid"):
        raise UsageError(f"{process!r} has not been started")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        raise UsageError(f"{process!r} is not a process", "an object with `pid`, or a pid")
    if pid == os.getpid():
        raise UsageError("a process cannot watch itself")
    return pid


def _of_code(code: int) -> Ending:
    """`exitcode` and `returncode`: negative is a signal."""
    return Ending("exit", code=code) if code >= 0 else child.by_signal(-code)


def _looked_by_pid(pid: int) -> Ending | None:
    """As `child.look`, where there are no pidfds: a child that has not been reaped keeps its number."""
    try:
        status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except (ChildProcessError, AttributeError):
        return None
    if status is None:
        return None
    if status.si_code == os.CLD_EXITED:
        return Ending("exit", code=status.si_status)
    return child.by_signal(status.si_status, status.si_code == os.CLD_DUMPED)
