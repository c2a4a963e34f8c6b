"""The end of whole trees that somebody else started: asked, then made to, with proof.

Every process that is seen is held by a pidfd, so that no signal can reach a stranger and its end is the kernel's word.
The trees are read before the first signal: children of a dead parent belong to nobody. Before SIGKILL everything is
stopped first (SIGSTOP), since what cannot run cannot fork away from the reading. What left its tree before we came,
because its parent was dead already, cannot be found.

Read next: `process.py`; `linux/tree.py`.
"""

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rankguard.adopted.process import Adopted, have_pidfds, learn_endings
from rankguard.errors import UsageError
from rankguard.linux import child, tree
from rankguard.linux.foreign import UNKNOWN
from rankguard.model import Ending

BOUND = 10.0
"""Seconds from SIGKILL to giving up: a process in an uninterruptible call does not end."""

RESCAN = 0.05
"""Seconds between two readings of the trees while they may still fork."""

REAP = 1.0
"""Seconds that a process's owner may take to collect it once it is dead."""

ALIVE = Ending("alive")
_ROUNDS = 20


def stop(processes: Sequence[Any], grace: float = 5.0) -> list[Ending]:
    """End processes and everything below them; how each of `processes` ended, in their order.

    `processes`: as of `wait_ready`; also such as ended long ago, or were never started.
    `grace`: seconds from SIGTERM to all until SIGKILL to what is left, for all together.

    Returns when each of them and every descendant that was seen is gone; one that the kernel does not end within 10 s after
    SIGKILL is `alive`. An ending that nobody can tell is an `exit` without a code; so is that of a process that was never
    started. Raises `UsageError` for what is no process, and for a `grace` that is negative.

    Children of the caller are collected through their own objects (`Process.join`, `Popen.wait`), a bare pid is left to
    whoever started it. A `guard` over them should be told `stopping()` first.

        endings = rankguard.stop(procs, grace=2.0)
    """
    if not grace >= 0:
        raise UsageError(f"grace must not be negative: {grace}")
    started = {i: each for i, each in enumerate(processes) if getattr(each, "pid", each) is not None}
    roots = {i: Adopted(each, i) for i, each in started.items()}
    trees = _Trees()
    try:
        trees.hold(roots.values())
        trees.end(grace)
        endings = {i: _ending(root, trees) for i, root in roots.items()}
    finally:
        trees.close()
    for i, ending in endings.items():
        if ending.kind != "alive":
            _collect(started[i])
    return [endings.get(i, UNKNOWN) for i in range(len(processes))]


class _Trees:
    """Everything at and below some processes, held by pidfds."""

    def __init__(self) -> None:
        self._roots: list[Adopted] = []
        self._poll = select.poll()
        self._alive: dict[int, int] = {}  # pid → pidfd; -1 where there are none, or none is left
        self._born: dict[int, str] = {}  # of those without a pidfd

    def hold(self, roots: Iterable[Adopted]) -> None:
        """These, and from now on what is below them."""
        for root in roots:
            self._roots.append(root)
            if root.ending is None and root.pid not in self._alive:
                self._hold(root.pid, os.dup(root.pidfd) if root.pidfd >= 0 else -1)

    def end(self, grace: float) -> None:
        self._read_until_nothing_new()
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # one that is stopped cannot answer
        self._wait(time.monotonic() + grace, signal.SIGTERM)
        if not self._alive:
            return
        for _ in range(_ROUNDS):
            self._signal(signal.SIGSTOP)
            if not self._read():
                break
        self._signal(signal.SIGKILL)
        self._wait(time.monotonic() + BOUND, signal.SIGKILL)

    def is_alive(self, pid: int) -> bool:
        return pid in self._alive

    def close(self) -> None:
        for pidfd in self._alive.values():
            if pidfd >= 0:
                os.close(pidfd)
        self._alive.clear()
        for root in self._roots:
            root.close()

    def _wait(self, until: float, number: signal.Signals) -> None:
        """Until all are gone. What they start meanwhile is met with the same signal."""
        self._drop_dead(0)
        while self._alive and (left := until - time.monotonic()) > 0:
            self._drop_dead(min(left, RESCAN))
            for pid in self._read():
                self._signal_one(pid, number)

    def _read_until_nothing_new(self) -> None:
        for _ in range(_ROUNDS):
            if not self._read():
                return

    def _read(self) -> list[int]:
        """Hold the descendants that are not held yet; which."""
        new: list[int] = []
        if not have_pidfds():
            return new
        queue = list(self._alive)
        while queue:
            parent = queue.pop()
            for pid in tree.children(parent):
                if pid in self._alive or pid == os.getpid():
                    continue
                with contextlib.suppress(ProcessLookupError):
                    pidfd = _open(pid)
                    told = child.state(pid)
                    # Its number may have changed hands between the reading and the opening.
                    if told is None or told[0] in "ZX" or told[1] != parent:
                        if pidfd >= 0:
                            os.close(pidfd)
                        continue
                    self._hold(pid, pidfd)
                    new.append(pid)
                    queue.append(pid)
        return new

    def _hold(self, pid: int, pidfd: int) -> None:
        self._alive[pid] = pidfd
        if pidfd >= 0:
            self._poll.register(pidfd, select.POLLIN)
        else:
            self._born[pid] = _born(pid)

    def _drop_dead(self, timeout: float) -> None:
        dead = {fd for fd, _event in self._poll.poll(timeout * 1000)}
        gone = [pid for pid, pidfd in self._alive.items() if pidfd in dead]
        if have_pidfds():
            gone += [pid for pid in self._born if pid in self._alive and self._is_gone(pid)]
        else:
            gone += [root.pid for root in self._roots if root.pid in self._alive and root.gone()]
        for pid in gone:
            pidfd = self._alive.pop(pid)
            if pidfd >= 0:
                self._poll.unregister(pidfd)
                os.close(pidfd)

    def _is_gone(self, pid: int) -> bool:
        """One without a pidfd: a zombie is gone, and so is one whose number has changed hands."""
        told = child.state(pid)
        return told is None or told[0] in "ZX" or _born(pid) != self._born[pid]

    def _signal(self, number: signal.Signals) -> None:
        for pid in list(self._alive):
            self._signal_one(pid, number)

    def _signal_one(self, pid: int, number: signal.Signals) -> None:
        # One that is gone needs none; one that may not be signalled is found alive in the end, and said so.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._alive[pid] >= 0:
                signal.pidfd_send_signal(self._alive[pid], number)
            elif not have_pidfds() or not self._is_gone(pid):
                os.kill(pid, number)


def _open(pid: int) -> int:
    """A pidfd, or -1 when this process may have no more files: what is to be ended is ended all the same."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return -1
        raise


def _born(pid: int) -> str:
    """When the process started, in clock ticks (`starttime` of `/proc/PID/stat`, proc(5)); empty when it is not known."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            return file.read().rpartition(") ")[2].split()[19]
    except OSError:
        return ""


def _ending(root: Adopted, trees: _Trees) -> Ending:
    if trees.is_alive(root.pid):
        return ALIVE
    learn_endings([root])
    return root.ending or UNKNOWN


def _collect(process: Any) -> None:
    """No zombie of a child of ours is left, and its object knows how it ended."""
    if isinstance(process, int):
        return
    import subprocess

    with contextlib.suppress(ValueError, AssertionError, subprocess.TimeoutExpired, ChildProcessError):
        if hasattr(process, "exitcode") and hasattr(process, "join"):
            process.join(REAP)
        elif isinstance(process, subprocess.Popen):
            # Without a status to be had, `wait` would note 0 (bugs.python.org/issue15756): it has to be there.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            process.wait(REAP)
