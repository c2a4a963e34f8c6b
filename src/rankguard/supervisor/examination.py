"""What all ranks are doing when one of them is found stalled (`Examine` → `Examined`), in the supervisor.

Stacks of all at once, and who uses the CPU meanwhile: a rank that waits and one that spins are equally silent. It takes
half a second at least, so that the use of CPUs can be told, and `MOST_S` at most: of whoever has not been read by then
the kernel's own words must do. Nobody is woken or stopped, and nothing is decided here (`diagnosis/stalls.py`).

Read next: `snapshots.py`, `core/stalls.py`.
"""

import os
from collections.abc import Callable

from rankguard.core.job import Job
from rankguard.diagnosis.stacks import groups
from rankguard.facts import Examined, Fact
from rankguard.launchers.redaction import redacted
from rankguard.linux import tree
from rankguard.linux.files import read_text
from rankguard.linux.procstack import kernel_stack
from rankguard.model import Sign
from rankguard.stacks import Group, Stack
from rankguard.supervisor.snapshots import Snapshots

LEAST_S, MOST_S = 0.5, 3.0
_GROUPS, _THREADS, _FRAMES, _BELOW = 12, 8, 40, 16
_TICK = os.sysconf("SC_CLK_TCK")


class Examination:
    """Of one job, one at a time: another one ends it. `signs(now)` are the ranks' last signs of progress."""

    def __init__(
        self,
        job: Job,
        snapshots: Snapshots,
        signs: Callable[[float], tuple[Sign, ...]],
        emit: Callable[[Fact], None],
        redact: Callable[[str], str],
    ) -> None:
        self._job, self._snapshots, self._signs, self._emit, self._redact = job, snapshots, signs, emit, redact
        self._number: int | None = None
        self._began = 0.0
        self._cpu: dict[int, float] = {}
        self._found: dict[int, Stack] = {}
        self._all_found = self._told = False

    def begin(self, number: int, now: float) -> None:
        """Start; `Examined` comes from `wake`."""
        self._number, self._began, self._all_found = number, now, False
        self._cpu = {rank: _cpu_s(pid) for rank, pid in self._alive().items()}

        def done(found: dict[int, Stack]) -> None:
            self._all_found = self._all_found or found is self._found

        self._found = self._snapshots.take(self._cpu, done)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called; at once when it has just told something, which is still in the queue."""
        if self._told:
            return 0.0
        return None if self._number is None else self._began + (LEAST_S if self._all_found else MOST_S)

    def wake(self, now: float) -> None:
        """Tell what was found, when all is there or the time is over."""
        self._told = False
        due = self.next_wake()
        if due is None or now < due:
            return
        assert self._number is not None
        alive, within = self._alive(), now - self._began
        cpu = {rank: _cpu_s(pid) - self._cpu[rank] for rank, pid in alive.items() if rank in self._cpu}
        found = {rank: stack for rank, stack in self._found.items() if rank in alive}
        for rank, pid in alive.items():
            if rank not in found and (known := kernel_stack(pid)) is not None:
                found[rank] = known.replace(lacks=f"it was not read within {MOST_S:g} s")
        _text, saved = self._snapshots.keep(found, range(len(self._job.ranks))) if found else ("", None)
        told = Examined(
            now,
            self._number,
            self._signs(now),
            tuple((rank, round(max(0.0, used) / within, 3)) for rank, used in cpu.items()),
            round(within, 3),
            _told_groups(found),
            saved,
        )
        self._number, self._told = None, True
        self._emit(redacted(told, self._redact))

    def _alive(self) -> dict[int, int]:
        return {rank.rank: rank.pid for rank in self._job.ranks if rank.pid is not None and rank.exited is None}


def _told_groups(found: dict[int, Stack]) -> tuple[Group, ...]:
    """What the journal has room for: the odd ones and the largest group, of each stack the innermost calls."""
    made = groups(found)
    if len(made) > _GROUPS:
        made = (*made[: _GROUPS - 1], made[-1])
    return tuple(group.replace(stack=_shortened(group.stack)) for group in made)


def _shortened(stack: Stack) -> Stack:
    first = stack.threads[:1] + tuple(thread for thread in stack.threads[1:] if thread.frames)
    return stack.replace(threads=tuple(t.replace(frames=t.frames[:_FRAMES]) for t in first[:_THREADS]))


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process and of those below it (a shell that runs the program), as far as they live."""
    return sum(map(_own_cpu_s, [pid, *tree.descendants(pid)[:_BELOW]]))


def _own_cpu_s(pid: int) -> float:
    text = read_text(f"/proc/{pid}/stat") or ""
    words = text[text.rfind(")") + 2 :].split()
    return (int(words[11]) + int(words[12])) / _TICK if len(words) > 12 else 0.0  # utime, stime: proc_pid_stat(5)
