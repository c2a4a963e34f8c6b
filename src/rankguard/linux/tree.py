"""The processes below us: find them all, end them all, prove that none is left.

A subreaper is given every orphan of its tree, sessions and double forks notwithstanding (prctl(2)), so "no child left"
(waitid(2): ECHILD) proves an empty tree as long as we live. cgroups (`cgroup.py`) do the same in one stroke where they
can be written.

`spare` is for children of ours that are no part of the job and live on: they are never signalled, and nothing waits for
their end. They must have no children themselves while a tree is ended.
"""

import contextlib
import os
import signal
import time
from collections.abc import Collection, Container

from rankguard.linux.child import state
from rankguard.model import Survivor

_REAPED_AT_ONCE = 4096


def children(pid: int) -> list[int]:
    """The children of every thread of a process, zombies included (`/proc/PID/task/TID/children`, proc(5))."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
            found.extend(int(child) for child in file.read().split())
    return found


def descendants(pid: int, spare: Container[int] = ()) -> list[int]:
    """Everything below a process, parents before children. A fork between two reads may be missed: call again."""
    found: list[int] = []
    queue = [child for child in children(pid) if child not in spare]
    while queue:
        found.extend(queue)
        queue = [grandchild for child in queue for grandchild in children(child)]
    return found


def is_descendant(pid: int, ancestors: frozenset[int]) -> bool | None:
    """Whether one of `ancestors` is above a process; None when the process is gone."""
    first = True
    while pid > 1:
        if pid in ancestors:
            return True
        told = state(pid)
        if told is None:
            return None if first else False
        first = False
        pid = told[1]
    return pid in ancestors


def nearest(pid: int, among: Container[int]) -> int | None:
    """The first of `among` that a process is, or descends from; None when it is below none of them, or gone."""
    while pid > 1 and pid not in among:
        told = state(pid)
        if told is None:
            return None
        pid = told[1]
    return pid if pid in among else None


def reap_strays(keep: Collection[int]) -> list[int]:
    """Reap every child that has ended, those in `keep` left out (they are somebody's to look at first).

    One after another as the kernel names them: a storm of forks makes thousands, and to list all children for each news
    of one would not keep up. Bounded, so that it ends: what comes meanwhile is news again.
    """
    reaped: list[int] = []
    with contextlib.suppress(ChildProcessError):
        for _ in range(_REAPED_AT_ONCE):
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return reaped
            if ended.si_pid in keep:  # it is named first until somebody reaps it
                break
            os.waitpid(ended.si_pid, os.WNOHANG)
            reaped.append(ended.si_pid)
        else:
            return reaped
    for pid in children(os.getpid()) if keep else ():
        if pid not in keep:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    reaped.append(pid)
    return reaped


def is_empty(spare: Collection[int] = (), apart: Collection[int] = ()) -> bool:
    """No child of ours is left, neither alive nor waiting to be reaped: the kernel's own word.

    `spare` may be there, without children; `apart` with all that is below them. With someone to spare it is the list of our children. Whoever becomes one is put at its end (`reparent_leader`,
    `forget_original_parent` in kernel/exit.c) and nobody but us takes one out of it, so one look that shows nobody else
    is as good.
    """
    if spare or apart:
        return all(pid in apart or (pid in spare and not children(pid)) for pid in children(os.getpid()))
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def alive(spare: Container[int] = ()) -> list[int]:
    """Every descendant that is not a zombie, children before parents."""
    told = ((pid, state(pid)) for pid in reversed(descendants(os.getpid(), spare)))
    return [pid for pid, stat in told if stat is not None and stat[0] not in "ZX"]


def signal_all(*numbers: int, spare: Container[int] = ()) -> list[int]:
    """Send each signal to every descendant once, children before parents. Returns those that were alive."""
    reached = []
    for pid in alive(spare):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            for number in numbers:
                os.kill(pid, number)
            reached.append(pid)
    return reached


def kill_all(keep: Collection[int], for_s: float = 0.02, spare: Collection[int] = ()) -> list[int]:
    """SIGKILL every descendant and reap strays, round after round for `for_s` at most; what forks meanwhile is met again.

    `keep`: killed, and left for somebody else to reap. Returns the pids that were killed. Call again on the next SIGCHLD
    until `is_empty`.
    """
    killed: set[int] = set()
    until = time.monotonic() + for_s
    while True:
        fresh = [pid for pid in signal_all(signal.SIGKILL, spare=spare) if pid not in killed]
        killed.update(fresh)
        reap_strays({*keep, *spare})
        if not fresh or time.monotonic() > until:
            return sorted(killed)


def survivors(spare: Container[int] = ()) -> tuple[Survivor, ...]:
    """What is still below us, by name."""
    found = []
    for pid in alive(spare):
        told = state(pid)
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", errors="replace") as file:
            found.append(Survivor(pid, file.read().strip(), told[0] if told is not None else "?"))
    return tuple(found)
