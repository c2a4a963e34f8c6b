"""What all ranks are doing when one of them is late (`Examine` → `Examined`), in the supervisor.

Stacks of all at once, and who uses the CPU meanwhile: a rank that waits and one that spins are equally silent. It takes
half a second at least, so that the use of CPUs can be told, and `MOST_S` at most, in a large job more; of whoever has
not been read by then the kernel's own words must do. Those that do something else than most are looked at once more,
with their calls in C and the Python processes that they have started. Nobody is woken or stopped, and nothing is decided here (`diagnosis/stalls.py`).

While a clock runs that may lead to it, the CPU time of each rank is noted now and then (nobody tells it unasked): a rank
that has computed ever since its last sign is not one that sleeps.

Read next: `snapshots.py`, `core/examining.py`.
"""

import os
from collections import deque
from collections.abc import Callable, Mapping

from rankguard.core.job import Job
from rankguard.diagnosis.stacks import groups, held
from rankguard.facts import Examined, Fact
from rankguard.launchers.redaction import redacted
from rankguard.linux import tree
from rankguard.linux.files import read_text
from rankguard.linux.procstack import kernel_stack, pythons_below
from rankguard.model import Sign
from rankguard.stacks import UNREAD, Group, Stack
from rankguard.supervisor.snapshots import Snapshots

LEAST_S, MOST_S, EACH_S = 0.5, 3.0, 0.05
"""`EACH_S`: what a rank adds to `MOST_S`. 512 ranks take 15 s on 2 CPUs."""
_GROUPS, _THREADS, _FRAMES, _BELOW = 12, 8, 40, 16
_ODD, _CHILDREN = 3, 4
"""Ranks that are looked at twice, and how many Python processes of each."""
_MARKS, _SLICE = 8, 4
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
        self._names: dict[int, str] = {}
        self._began = 0.0
        self._cpu: dict[int, float] = {}
        self._found: dict[int, Stack] = {}
        self._odd: dict[int, Stack] = {}
        self._below: tuple[tuple[int, Stack], ...] = ()
        self._all_found = self._told = False
        self._marks = CpuMarks(job)

    def begin(self, number: int, now: float) -> None:
        """Start; `Examined` comes from `wake`."""
        self._number, self._began, self._all_found, self._odd, self._below = number, now, False, {}, ()
        alive = self._alive()
        self._cpu = {rank: _cpu_s(pid) for rank, pid in alive.items()}

        def done(found: dict[int, Stack]) -> None:
            if found is self._found and not self._all_found:
                self._look_again(number)

        others, self._names = ({}, {}) if self._snapshots.tree is None else self._snapshots.of_tree(alive)
        self._found = self._snapshots.take_processes(alive | others, done)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called; at once when it has just told something, which is still in the queue."""
        if self._told:
            return 0.0
        if self._number is None:
            return self._marks.next_wake()
        return self._began + (LEAST_S if self._all_found else MOST_S + EACH_S * max(len(self._cpu), len(self._names)))

    def wake(self, now: float) -> None:
        """Tell what was found, when all is there or the time is over."""
        self._told = False
        if self._number is None:
            self._marks.wake(now)
            return
        due = self.next_wake()
        if due is not None and now >= due:
            self._tell(self._number, now)

    def _tell(self, number: int, now: float) -> None:
        alive, within = self._alive(), now - self._began
        total = {rank: _cpu_s(pid) for rank, pid in alive.items() if rank in self._cpu}
        found = {rank: stack for rank, stack in self._found.items() if rank in alive or rank < 0}
        for rank, pid in alive.items():
            if rank not in found and (known := kernel_stack(pid)) is not None:
                found[rank] = known.replace(lacks=UNREAD)
        _keep_native(found, self._odd)
        names = None if self._snapshots.tree is None else self._names
        _text, saved = self._snapshots.keep(found, range(len(self._job.ranks)), names) if found else ("", None)
        signs = self._signs(now)
        told = Examined(
            now,
            number,
            signs,
            tuple((rank, round(max(0.0, cpu - self._cpu[rank]) / within, 3)) for rank, cpu in total.items()),
            round(within, 3),
            told_groups(found, names),
            saved,
            self._marks.since(signs, total, now),
            self._below,
        )
        self._number, self._told = None, True
        self._emit(redacted(told, self._redact))

    def _look_again(self, number: int) -> None:
        """At the odd ones, with what C runs in them: they stand still for it, so not at the others."""
        if self._snapshots.tree is not None:  # all of its processes have been looked at, and it may have many
            self._all_found = True
            return
        made = groups(self._found)
        some = [rank for group in made[:-1] if held(group.stack) is None for rank in group.ranks]
        odd = [rank for rank in some or self._found if self._found[rank].by == "py-spy"][:_ODD]

        below = {pid: rank for rank in odd for pid in pythons_below(self._found[rank].pid, _CHILDREN)}

        def read(found: dict[int, Stack]) -> None:
            if self._number == number:
                self._odd = found
                self._snapshots.take_processes({pid: pid for pid in below}, done)

        def done(found: dict[int, Stack]) -> None:
            if self._number == number:
                self._below = tuple((below[pid], _shortened(stack)) for pid, stack in found.items() if stack.by)
                self._all_found = True

        self._snapshots.take(odd, read, native=True)

    def _alive(self) -> dict[int, int]:
        return {rank.rank: rank.pid for rank in self._job.ranks if rank.pid is not None and rank.exited is None}


class CpuMarks:
    """CPU seconds of each rank, every quarter of the stall timeout or so; of none where there is no such timeout."""

    def __init__(self, job: Job) -> None:
        self._job = job
        limit = job.spec.stall_timeout
        # Of many ranks more seldom: a look at one takes up to a millisecond, and must stay below 2 % of a processor.
        self._every = None if limit is None else max(1.0, limit / (_MARKS // 2), 0.05 * job.spec.nprocs)
        self._due: float | None = None
        self._todo: deque[int] = deque()
        self._marks: dict[int, deque[tuple[float, float]]] = {}

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        if self._every is None or self._job.started_at is None or self._job.stopped_at is not None:
            return None
        return 0.0 if self._todo else self._due or self._job.started_at + self._every

    def wake(self, now: float) -> None:
        """Note some ranks, if it is time."""
        due = self.next_wake()
        if due is None or now < due:
            return
        if not self._todo:
            self._todo = deque(range(len(self._job.ranks)))
            assert self._every is not None
            self._due = now + self._every
        for _ in range(min(_SLICE, len(self._todo))):
            rank = self._job.ranks[self._todo.popleft()]
            if rank.pid is not None and rank.exited is None:
                self._marks.setdefault(rank.rank, deque(maxlen=_MARKS)).append((now, _cpu_s(rank.pid)))

    def since(
        self, signs: tuple[Sign, ...], total: dict[int, float], now: float
    ) -> tuple[tuple[int, float, float], ...]:
        """(rank, CPU seconds, of how many seconds) from the first mark behind each rank's last sign, or from its start."""
        told = []
        for sign in signs:
            began = self._job.ranks[sign.rank].spawned_at
            marks = [] if began is None else [(began, 0.0)]
            marks += self._marks.get(sign.rank, ())
            first = next((mark for mark in marks if sign.at is None or mark[0] >= sign.at), None)
            if first is not None and sign.rank in total and now > first[0]:
                told.append((sign.rank, round(max(0.0, total[sign.rank] - first[1]), 3), round(now - first[0], 3)))
        return tuple(told)


def _keep_native(found: dict[int, Stack], odd: dict[int, Stack]) -> None:
    """The calls in C of those that were looked at twice, where they are in the same function still."""
    for rank, again in odd.items():
        known = found.get(rank)
        if known is None or not again.main.native or known.main.frames[:1] == ():
            continue
        if again.main.frames[:1] and again.main.frames[0].function == known.main.frames[0].function:
            main = known.main.replace(native=again.main.native)
            found[rank] = known.replace(threads=(main, *known.threads[1:]))


def told_groups(found: dict[int, Stack], names: Mapping[int, str] | None = None) -> tuple[Group, ...]:
    """What the journal has room for: the odd ones and the largest group, of each stack the innermost calls."""
    made = groups(found, names)
    if len(made) > _GROUPS:
        made = (*made[: _GROUPS - 1], made[-1])
    return tuple(group.replace(stack=_shortened(group.stack)) for group in made)


def _shortened(stack: Stack) -> Stack:
    """Without the threads that no Python runs in, unless they are all that is left of it."""
    main_lives = stack.main.state not in "ZX"
    first = stack.threads[:1] + tuple(each for each in stack.threads[1:] if each.frames or not main_lives)
    return stack.replace(threads=tuple(t.replace(frames=t.frames[:_FRAMES]) for t in first[:_THREADS]))


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process and of those below it (a shell that runs the program), as far as they live."""
    return sum(map(_own_cpu_s, [pid, *tree.descendants(pid)[:_BELOW]]))


def _own_cpu_s(pid: int) -> float:
    text = read_text(f"/proc/{pid}/stat") or ""
    words = text[text.rfind(")") + 2 :].split()
    return (int(words[11]) + int(words[12])) / _TICK if len(words) > 12 else 0.0  # utime, stime: proc_pid_stat(5)
