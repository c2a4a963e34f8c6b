"""What the ranks hold in memory, looked at again and again: how it stood just before a failure, and a warning before one.

A few ranks at a time, so that a large job's look delays no news; `--sample` says how often, and when a limit comes near
it is oftener. What the last look saw is told to whoever asks (`told`), added to the look on a failure (`remember`), and
in `samples.json` while the run lives, for whoever comes after everything was killed at once. All looks, thinned as they
age, are in `memory.jsonl` (`memorylog.py`).

It decides nothing: whether to warn is in `../diagnosis/projection.py`, what was to blame in `memory_story.py`.
Read next: `../linux/footprint.py` (one rank), `../linux/memory_news.py` (the kernel's own word), `../runs/remains.py`.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from rankguard.core import story
from rankguard.core.job import Job
from rankguard.diagnosis.projection import Alarm, Course, Near, Nearness, Outlook, Sample, easing, outlook, warning
from rankguard.facts import Fact, Looked, MemoryEased, MemoryShort, OomSeen, Warned
from rankguard.launchers.limits import may_keep
from rankguard.linux.cgroup import JobGroups
from rankguard.linux.footprint import Footprint
from rankguard.linux.hierarchies import Group
from rankguard.linux.memory import MemoryDomain, kills_all_at_once
from rankguard.linux.memory_news import MemoryNews
from rankguard.model import Memory, MemoryState
from rankguard.record import to_data
from rankguard.report.files import RunFiles
from rankguard.supervisor.memorylog import MemoryLog
from rankguard.wire import Message

NAME = "samples.json"
CALM_S = 5.0
"""The file is written so often at least, and at every look while a limit is near or much has changed."""
_TURN_S = 0.004
"""At work at most, before news gets its turn; and so long each time for what costs more (children, page cache)."""
_AT_ONCE = 64
"""Ranks that are looked at when the kernel tells of an OOM, as the victim gives its memory back within milliseconds."""
_SETTLED_S = 0.8
"""Looks are frequent enough until then to do without what the kernel says of pressure."""
_SOONER = 16
"""So many times oftener at most: at the start, and when a limit is near. Then as often that ten looks are left until then."""
_LEAST_S = 0.05
_TIGHT = 0.8
"""Of a limit."""
_OOMS = 20
"""OOM events that are told: ranks whose children are killed may make any number."""


_L = TypeVar("_L")


class _Tight(NamedTuple):
    """What each rank held, and how fast that grew."""

    at: float
    ranks: dict[int, tuple[int, float | None]]


class Samples:
    """Of one job; nothing is looked at any more once it is told to end. `every` 0: only the kernel's own word is heard."""

    def __init__(
        self,
        job: Job,
        domain: MemoryDomain,
        files: RunFiles,
        clock: Callable[[], float],
        emit: Callable[[Fact], None],
        groups: JobGroups,
        around: dict[str, Group],
        *,
        course: MemoryLog,
        heard_at: Callable[[int], float | None],
        few_fds: bool = False,
    ) -> None:
        self._job, self._domain, self._files, self._clock, self._emit = job, domain, files, clock, emit
        self._groups, self._course, self._heard_at = groups, course, heard_at
        self._every = max(_LEAST_S, job.spec.sample) if job.spec.sample else 0.0
        self._keep = bool(self._every) and not few_fds and may_keep(job.spec.nprocs, 2)
        self._of_tree = job.spec.watch is not None
        self._news = MemoryNews(around, domain.limits, few_fds=few_fds)
        self._together = kills_all_at_once(around)
        self._noted: set[str] = set()
        self._note_news()
        self._pause = self._shortest = max(_LEAST_S, self._every / _SOONER)
        self._due: float | None = clock() + self._pause
        self._todo: deque[int] = deque()
        self._closer: deque[int] = deque(range(job.spec.nprocs))
        self._found: dict[int, Footprint] = {}
        self._seen_at: dict[int, float] = {}
        self._courses: dict[int, Course] = {}
        self._shared: dict[str | None, tuple[Course, Alarm]] = {}
        self._states: tuple[tuple[MemoryState, Outlook], ...] = ()
        self._ranks = Course()
        self._past: deque[tuple[float, MemoryState]] = deque(maxlen=64)
        self._tight: deque[_Tight] = deque(maxlen=16)
        self._at: float | None = None
        self._written_at, self._written = float("-inf"), 0.0
        self._ooms = 0
        self._oom_at = float("-inf")
        self._emitted = self._over = False
        self._began = clock()
        self._nearness = Nearness()
        self.nearing: Callable[[Near | None], None] = lambda _near: None
        """Told at each look whether a limit is so near that everything may be killed at any moment."""

    def fileno(self) -> int:
        """Readable when the kernel has news of memory: `on_news`. -1: it tells nothing here."""
        return self._news.fileno()

    def on_news(self, now: float) -> None:
        """An OOM, or a limit that came nearer."""
        ooms, look = self._news.read()
        for group in ooms:
            if now - self._oom_at > 0.05 and self._ooms < _OOMS:  # one OOM may be told more than once
                self._ooms += 1
                self._oom_at = now
                self._tell(OomSeen(now, group))
        if look and self._every and not self._over and not self._todo and self._at is not None:
            self._due = min(self._due or now, max(now, self._at + self._shortest))
        if ooms and self._every:
            self._look_at_once(now)

    def _note_news(self) -> None:
        told = [note for note in (*self._news.told, *self._news.missing) if note not in self._noted]
        for note in told:
            self._files.append(story.note(f"memory: {note}"))
        self._noted.update(told)

    def _watch_pressure(self) -> None:
        self._news.watch_pressure()
        self._note_news()

    def next_wake(self) -> float | None:
        """At once also when something was just told: it is still in the queue."""
        if self._emitted or self._todo:
            return 0.0
        return self._due if self._every and not self._over else None

    def wake(self, now: float) -> None:
        """Look at some ranks, if it is time."""
        self._emitted = False
        if self._together is not None:
            self._say_together(self._together)
            self._together = None
        if not self._every or self._over:
            return
        if self._job.stopped_at is not None or self._job.ended == len(self._job.ranks):
            self._end()
            return
        if not self._todo:
            if self._due is None or now < self._due:
                return
            self._todo.extend(range(len(self._job.ranks)))
        until = time.perf_counter() + _TURN_S
        while self._todo and time.perf_counter() < until:
            self._look(self._todo.popleft(), now)
        if not self._todo:
            self._look_closer(now)
            self._conclude(now)

    def told(self) -> Message:
        """The last look: `ranks` (rank, bytes), `age_s`, `memory` of the job's domain; empty when there was none."""
        return {} if self._at is None else self._data() | {"age_s": round(self._clock() - self._at, 3)}

    def remember(self, looked: Looked) -> Looked:
        """The look on a failure with what was known before it: of ranks that give their memory back by now, how fast
        each one grew, what its children hold.
        """
        now, seen = looked.at, dict(looked.memory)
        tight = self._tight_before(now)
        for number, found in self._found.items():
            if found.held is None:  # it ended before the first look at it
                continue
            age = now - self._seen_at[number]
            if number not in seen and age > 3 * self._every + 2:
                continue
            then = tight.ranks.get(number) if tight is not None else None
            growth = then[1] if then is not None else self._growth(number)
            known = seen.get(number)
            if known is None:  # dying, or just gone
                seen[number] = Memory(found.rss, found.peak, found.held, growth, round(age, 3))
            else:
                held = max(0, (known.held_bytes or 0) + found.held - found.own)
                held = max(held, then[0]) if then is not None else held  # its child may be gone by now
                seen[number] = known.replace(held_bytes=held, growth_bytes_s=growth)
        total = sum(memory.held_bytes or 0 for memory in seen.values())
        if total > (
            looked.state.used_bytes or total
        ):  # those that have gone have given theirs back, and others have it
            total = sum(seen[number].held_bytes or 0 for number, _memory in looked.memory)
        return looked.replace(memory=tuple(sorted(seen.items())), state=self._state_before(now, looked.state, total))

    def _tight_before(self, now: float) -> "_Tight | None":
        """How it stood when memory was tight, if that is not long ago: at the last look at which it still grew."""
        recent = [each for each in self._tight if now - each.at < 3 * self._every + 5]
        return _still_growing(recent, lambda each: sum(growth or 0.0 for _held, growth in each.ranks.values()))

    def _state_before(self, now: float, looked: MemoryState, total: int) -> MemoryState:
        """The state at the look on a failure, or the fullest shortly before it."""
        state = self._with_ranks(looked, total)
        recent = [(at, each) for at, each in self._past if now - at < 3 * self._every + 5]
        if not recent:
            return state
        at, fullest = max(recent, key=lambda each: each[1].used_bytes or 0)
        if (fullest.used_bytes or 0) > (state.used_bytes or 0) or fullest.limit_from != state.limit_from:
            state = fullest.replace(age_s=round(now - at, 3), peak_bytes=state.peak_bytes or fullest.peak_bytes)
        last = _still_growing([each for _at, each in recent], lambda each: each.growth_bytes_s or 0.0) or state
        return state.replace(growth_bytes_s=last.growth_bytes_s, ranks_growth_bytes_s=last.ranks_growth_bytes_s)

    # ── One look ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _look(self, number: int, now: float) -> None:
        rank = self._job.ranks[number]
        found = self._found.get(number)
        if rank.pid is None or rank.exited is not None:
            if found is not None:
                found.close()
            return
        if found is None or found.pid != rank.pid:
            group = self._groups.memory_group(number) if number < self._job.spec.nprocs else None
            found = self._found[number] = Footprint(rank.pid, group, keep=self._keep, alone=self._of_tree)
            if number >= self._job.spec.nprocs:
                self._closer.append(number)
            self._courses[number] = Course()
            found.look_closer()
        if found.read() and found.held is not None:
            if self._of_tree and number == 0:  # the group of the root holds the whole tree
                others = sum(each.held or 0 for n, each in self._found.items() if n and self._lives(n, each))
                found.held = max(found.own, found.held - others)
            self._seen_at[number] = now
            self._courses[number].add(now, found.held)

    def _look_at_own_limits(self, number: int, now: float) -> None:
        """RLIMIT_AS and RLIMIT_DATA bind a rank alone, and it may have set them itself: no kill, but a MemoryError."""
        for name, used, limit in self._found[number].limits():
            source = f"{name} of {self._name_of(number) or f'rank {number}'}"
            course, _alarm = self._shared.setdefault(source, (Course(), Alarm()))
            course.add(now, used)
            state = MemoryState(limit_bytes=limit, firm_bytes=used, limit_from=source)
            self._tell_of(now, state, outlook(course, limit), only=number)

    def _look_closer(self, now: float) -> None:
        """At those whose turn it is, as far as the time suffices."""
        until = time.perf_counter() + _TURN_S
        for _ in range(len(self._closer)):
            number = self._closer.popleft()
            self._closer.append(number)
            if number in self._found and self._job.ranks[number].exited is None:
                self._found[number].look_closer()
                self._look_at_own_limits(number, now)
            if time.perf_counter() > until:
                return

    def _look_at_once(self, now: float) -> None:
        """At all ranks (of a large job at some), before the one that was killed has given its memory back."""
        if self._over or self._job.stopped_at is not None:
            return
        for number in range(min(len(self._job.ranks), _AT_ONCE)):
            self._look(number, now)
        self._take_states(now)
        self._note_course(now)
        self._due = now + self._shortest

    def _conclude(self, now: float) -> None:
        """All ranks were looked at: how full is it, when will it be, and is that worth a word?"""
        self._at = now
        self._news.look_done()
        if now - self._began > _SETTLED_S:
            self._watch_pressure()
        for state, outlook_ in self._take_states(now):
            self._tell_of(now, state, outlook_)
        self._say_near()
        self._note_course(now)
        share, left = self._nearest()
        near = left is not None and left < 10 * self._every
        self._pause = max(self._shortest, (left or 0) / 10) if near else min(self._every, self._pause * 2)
        self._due = now + self._pause
        held = self._ranks.last
        if now - self._written_at >= CALM_S or near or share > 0.9 or abs(held - self._written) > self._written / 8:
            self._written = held
            self._write(now)

    def _note_course(self, now: float) -> None:
        """What was seen just now, for whoever wants to see the whole course."""
        since, heard = self._course.last_at, 0
        for rank in self._job.ranks[: self._job.spec.nprocs]:  # the processes of an engine share its output
            at = self._heard_at(rank.rank)
            if at is not None and at > since:
                heard |= 1 << rank.rank
        held = {number: found.held or 0 for number, found in self._found.items() if self._lives(number, found)}
        state = self._past[-1][1] if self._past else MemoryState()
        self._course.add(now, held, state.used_bytes, state.limit_bytes, state.limit_from, heard)

    def _take_states(self, now: float) -> tuple[tuple[MemoryState, Outlook], ...]:
        """How full the limits are, and what that says."""
        told = []
        for state in self._domain.shared_states():
            course, _alarm = self._shared.setdefault(state.limit_from, (Course(), Alarm()))
            course.add(now, (state.firm_bytes or 0) + (state.swap_bytes or 0))
            limit = (state.limit_bytes or 0) + (state.swap_limit_bytes or 0)
            if not limit:
                continue
            outlook_ = outlook(course, limit)
            told.append((state, outlook_))
        self._states = tuple(told)
        if told:
            state, outlook_ = self._tightest()
            held = sum(found.held or 0 for number, found in self._found.items() if self._lives(number, found))
            self._ranks.add(now, held)
            self._past.append((now, self._complete(state, held, outlook_)))
            if outlook_.level or outlook_.share > _TIGHT:
                ranks = {
                    n: (found.held or 0, self._growth(n)) for n, found in self._found.items() if self._lives(n, found)
                }
                self._tight.append(_Tight(now, ranks))
        return self._states

    def _tell_of(self, now: float, state: MemoryState, outlook_: Outlook, only: int | None = None) -> None:
        """A warning, where one is due, or that the last one is over. `only`: the rank whose own limit it is."""
        alarm = self._shared[state.limit_from][1]
        if alarm.eases(outlook_):
            self._tell(MemoryEased(now, easing(state), state))
        if alarm.rings(outlook_):
            self._warn(now, state, outlook_, only)

    def _say_near(self) -> None:
        near = None
        if self._states and self._nearness.of(outlook_ for _state, outlook_ in self._states):
            state, outlook_ = max(self._states, key=lambda each: (each[1].level, each[1].share))
            near = Near(state, outlook_, tuple(self._samples()))
        self.nearing(near)

    def _samples(self) -> list[Sample]:
        return [
            Sample(number, found.held, self._growth(number), self._name_of(number))
            for number, found in self._found.items()
            if self._lives(number, found) and found.held is not None
        ]

    def _warn(self, now: float, state: MemoryState, outlook_: Outlook, only: int | None) -> None:
        samples = self._samples() if only is None else []
        if only is None:
            state = self._complete(state, sum(each.held for each in samples), outlook_)
        told = warning(state, outlook_, samples)
        left = None if outlook_.left_s is None else round(outlook_.left_s, 1)
        self._tell(MemoryShort(now, told, outlook_.level, state, left))

    def _say_together(self, group: str) -> None:
        self._tell(
            Warned(
                self._clock(),
                f"`memory.oom.group` of {group} is 1: an OOM kill there ends every process of it at once, rankguard too, "
                "and no verdict can be written then (the next run tells what is known; the cure is 0 there, in Kubernetes "
                "the kubelet's `singleProcessOOMKill: true`)",
            )
        )

    # ── What is known ────────────────────────────────────────────────────────────────────────────────────────────

    def _growth(self, number: int) -> float | None:
        growth = self._courses[number].growth() if number in self._courses else None
        return None if growth is None else round(growth)

    def _nearest(self) -> tuple[float, float | None]:
        shares = [each.share for _state, each in self._states]
        left = [each.left_s for _state, each in self._states if each.left_s is not None]
        return max(shares, default=0.0), min(left, default=None)

    def _tightest(self) -> tuple[MemoryState, Outlook]:
        return min(self._states, key=lambda each: (each[0].limit_bytes or 0) - (each[0].firm_bytes or 0))

    def _with_ranks(self, state: MemoryState, held: int) -> MemoryState:
        """Shared memory is in the ranks' numbers where each has a group; the kernel counts it once, with its first user."""
        shared = None if self._groups.tells_ranks_apart else state.shared_bytes
        return state.replace(ranks_bytes=held, shared_bytes=shared)

    def _complete(self, state: MemoryState, held: int, outlook_: Outlook) -> MemoryState:
        ranks = self._ranks.growth()
        return self._with_ranks(state, held).replace(
            growth_bytes_s=round(outlook_.growth), ranks_growth_bytes_s=None if ranks is None else round(ranks)
        )

    def _data(self) -> dict[str, Any]:
        held = {number: found.held for number, found in self._found.items() if self._lives(number, found)}
        told: dict[str, Any] = {"ranks": [list(item) for item in held.items()]}
        if self._past:
            told["memory"] = to_data(self._past[-1][1])
        growing = [(self._growth(number) or 0, number) for number in held]
        told["growing"] = [[number, growth] for growth, number in sorted(growing, reverse=True)[:3] if growth > 0]
        return told

    def _name_of(self, number: int) -> str | None:
        """Of a watched engine."""
        member = self._job.ranks[number].member
        return member.name if member is not None else "the engine" if self._of_tree else None

    def _lives(self, number: int, found: Footprint) -> bool:
        return found.held is not None and self._job.ranks[number].exited is None

    def _write(self, now: float) -> None:
        """By rename, and not forced to the disk: it is for those who come after a kill, which the page cache survives."""
        self._written_at = now
        counts = [[path, value] for path, value in self._groups.shared_counts()]
        self._files.replace(NAME, json.dumps({"at": now} | self._data() | {"oom_kills": counts}) + "\n")

    def _tell(self, fact: Fact) -> None:
        self._emitted = True
        self._emit(fact)

    def close(self) -> None:
        """Nothing more is looked at or told; what is known stays."""
        self._end()
        self._news.close()

    def _end(self) -> None:
        self._over, self._due = True, None
        self._todo.clear()
        for found in self._found.values():
            found.close()
        self._news.forget_pressure()


def _still_growing(looks: Sequence[_L], growth: Callable[[_L], float]) -> _L | None:
    """The last of `looks` before the limit was met: there nobody grows any more, since whoever allocates is made to wait.
    So not merely the last; nor the one with the most growth, which may be of one that filled up long before.
    """
    most = max(map(growth, looks), default=0.0)
    return next((each for each in reversed(looks) if growth(each) >= most / 3), None)
