"""The real `Driver` without processes: ranks that follow a script, a selector that moves a clock instead of waiting.

    run = ScriptedRun(new_spec(2), {1: Script(ends=(0.5, Ending("signal", signal="SIGKILL", number=9)))})
    run.until_finished()
    run.steps          each fact with its orders, in the order in which the driver took them

`ScriptedRanks` meets `launchers/contract.py` and the driver's `Tree`. It is as fast as the core, and what takes a rank
a minute takes no time. A driver that would wait for ever raises `Stuck`. Not here: real signals, real pipes, evidence.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from selectors import EVENT_READ, BaseSelector, SelectorKey
from signal import Signals
from typing import Any

from rankguard.core.job import Job
from rankguard.driver import NEWS_EXIT, URGENT, Driver
from rankguard.facts import Exited, Fact, JobStarted, Looked, NotSpawned, OutputClosed, Reaped, Silences, Spawned
from rankguard.jobspec import JobSpec
from rankguard.launchers.contract import Emit
from rankguard.launchers.signs import silences
from rankguard.model import Ending, Left, Sign, Survivor
from rankguard.orders import Order
from rankguard.record import Record
from rankguard.testing.clock import Clock
from rankguard.testing.grammar import PID, WALL

SIGKILL = 9
_STOP_NOTHING = frozenset({10, 12, 18, 19, 28})
_KILLED_WITHIN = 0.001

News = Callable[[float], None]


class Stuck(RuntimeError):
    """The driver waits, and nothing can ever wake it."""


class Script(Record):
    """What one rank does; without a script of its own it runs until it is told to end. Durations are seconds."""

    starts: float = 0.01
    """From the order to its first instruction."""
    errno: int | None = None
    """It cannot be executed."""
    says: tuple[tuple[float, Callable[[float, int], Fact]], ...] = ()
    """Facts, such as `Ready`, each so long after its start."""
    ends: tuple[float, Ending] | None = None
    """How it ends by itself, and how long after its start."""
    exiting: float = 0.0
    """So long before it ends by itself it is seen to be exiting."""
    ignores: frozenset[int] = frozenset()
    """Signals that do not end it."""
    answers: float = 0.01
    """From a signal to its end."""
    unkillable: bool = False
    """Stuck in a system call: SIGKILL does not end it either."""
    leaves: bool = False
    """A child of it lives on, holds its output, and ends when it is told to (unless that is ignored as well)."""


class _Agenda(BaseSelector):
    """What is going to happen. To wait is to move the clock to the next of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._order = clock, count()
        self._coming: list[tuple[float, int, int, News]] = []

    def at(self, when: float, priority: int, news: News) -> None:
        heapq.heappush(self._coming, (when, next(self._order), priority, news))

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        now = self._clock()
        if not self._coming:
            if timeout is None:
                raise Stuck(f"at {now:.3f} no process, no message and no deadline is left to wait for")
            self._clock.advance(timeout)
            return []
        first = max(self._coming[0][0], now)
        if timeout is not None and now + timeout < first:
            self._clock.advance(timeout)
            return []
        self._clock.move_to(first)
        news = []
        while self._coming and self._coming[0][0] <= first:
            _when, number, priority, call = heapq.heappop(self._coming)
            news.append((SelectorKey(number, number, EVENT_READ, (priority, call)), EVENT_READ))
        return news

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        raise NotImplementedError("an agenda watches no files")

    def unregister(self, fileobj: Any) -> SelectorKey:
        raise NotImplementedError("an agenda watches no files")

    def get_map(self) -> Mapping[Any, SelectorKey]:
        return {}


class _Process:
    def __init__(self, number: int, script: Script) -> None:
        self.number, self.script = number, script
        self.state = "waiting"  # then alive, ended, reaped
        self.exiting_at: float | None = None
        self.heard_at: float | None = None
        self.child = False


class ScriptedRanks:
    """A launcher, and the tree below it, in which everything goes by the scripts."""

    def __init__(self, spec: JobSpec, scripts: Mapping[int, Script], agenda: _Agenda, clock: Clock, emit: Emit) -> None:
        self._agenda, self._clock, self._emit = agenda, clock, emit
        self._ranks = [_Process(number, scripts.get(number, Script())) for number in range(spec.nprocs)]
        self.signals: list[tuple[float, int, int]] = []
        """Every signal that reached a process: when, which rank, which signal."""
        self.killed: set[int] = set()

    # ── As a launcher ────────────────────────────────────────────────────────────────────────────────────────────

    def spawn(self, first: int, last: int) -> None:
        for rank in self._ranks[first : last + 1]:
            self._later(rank.script.starts, partial(self._start, rank))

    def look(self, now: float) -> Looked:
        dying = [r for r in self._ranks if r.state == "alive" and r.exiting_at is not None and r.exiting_at <= now]
        return Looked(now, tuple((rank.number, "exiting") for rank in dying))

    def silences(self, now: float, since: float) -> Silences:
        return silences(self.signs(now), now, since)

    def signs(self, now: float) -> tuple[Sign, ...]:
        return tuple(Sign(rank.number, rank.heard_at, "message") for rank in self._ranks if rank.state == "alive")

    def signal_all(self, number: int, spare: frozenset[int], *, ends: bool) -> int:
        if ends:
            for rank in self._ranks:
                if rank.state == "waiting":
                    rank.state = "reaped"
                    said = "the job was told to end before it started"
                    self._emit(NotSpawned(self._clock(), rank.number, "cancelled", 0, said))
        reached = [rank for rank in self._ranks if rank.state == "alive" and rank.number not in spare]
        for rank in reached:
            self._signal(rank, number)
        return len(reached)

    def signal_rank(self, rank: int, number: int) -> None:
        self._signal(self._ranks[rank], number)

    def reap(self, rank: int) -> None:
        told = self._ranks[rank]
        if told.state != "ended":
            raise AssertionError(f"rank {rank} is to be reaped, and is {told.state}")
        told.state = "reaped"
        self._emit(Reaped(self._clock(), rank))

    def next_wake(self) -> float | None:
        return None

    def wake(self, now: float) -> None:
        pass

    def close(self, now: float) -> None:
        pass

    # ── As the tree ──────────────────────────────────────────────────────────────────────────────────────────────

    def sweep(self, kill: bool) -> None:
        for rank in self._ranks:
            if rank.state == "alive" and kill:
                self.killed.add(PID + rank.number)
                self._signal(rank, SIGKILL)
            if rank.child and (kill or not rank.script.ignores):
                self._later(_KILLED_WITHIN, partial(self._end_child, rank))

    def empty(self) -> bool:
        return all(rank.state == "reaped" and not rank.child for rank in self._ranks)

    def survivors(self) -> tuple[Survivor, ...]:
        return tuple(Survivor(PID + rank.number, "python3", "D") for rank in self._ranks if rank.state == "alive")

    def left(self) -> tuple[Left, ...]:
        return ()

    # ── What ranks do ────────────────────────────────────────────────────────────────────────────────────────────

    def _later(self, seconds: float, news: News) -> None:
        self._agenda.at(self._clock() + seconds, NEWS_EXIT, news)

    def _start(self, rank: _Process, now: float) -> None:
        if rank.state != "waiting":
            return
        if rank.script.errno is not None:
            rank.state = "reaped"
            self._emit(NotSpawned(now, rank.number, "exec", rank.script.errno, "unable to execute `python3`"))
            return
        rank.state, rank.child = "alive", rank.script.leaves
        self._emit(Spawned(now, rank.number, PID + rank.number))
        for after, fact in rank.script.says:
            self._later(after, partial(self._say, rank, fact))
        if rank.script.ends is not None:
            after, ending = rank.script.ends
            rank.exiting_at = now + after - rank.script.exiting
            self._later(after, partial(self._end, rank, ending))

    def _say(self, rank: _Process, make: Callable[[float, int], Fact], now: float) -> None:
        if rank.state == "alive":
            rank.heard_at = now
            self._emit(make(now, rank.number))

    def _signal(self, rank: _Process, number: int) -> None:
        if rank.state != "alive":
            return
        self.signals.append((self._clock(), rank.number, number))
        exiting = rank.exiting_at is not None and rank.exiting_at <= self._clock()
        if exiting or rank.script.unkillable or number in rank.script.ignores | _STOP_NOTHING:
            return
        ending = Ending("signal", signal=Signals(number).name, number=number)
        after = _KILLED_WITHIN if number == SIGKILL else rank.script.answers
        self._later(after, partial(self._end, rank, ending))

    def _end(self, rank: _Process, ending: Ending, now: float) -> None:
        if rank.state == "alive":
            rank.state = "ended"
            self._emit(Exited(now, rank.number, ending))
            if not rank.child:
                self._emit(OutputClosed(now, rank.number))

    def _end_child(self, rank: _Process, now: float) -> None:
        if rank.child:
            rank.child = False
            if rank.state != "alive":
                self._emit(OutputClosed(now, rank.number))


class ScriptedRun:
    """A job, its driver and its scripted ranks.

    `spec`: what the job is asked to be.
    `scripts`: what ranks do, by their numbers; the others run until they are told to end.
    `outside`: what is to come from outside: pairs of an instant and a maker of a fact.
    `awake`: seconds that the loop was at work or waiting for a processor (`driver.py`); by default it never was.
    """

    def __init__(
        self,
        spec: JobSpec,
        scripts: Mapping[int, Script],
        outside: Sequence[tuple[float, Callable[[float], Fact]]] = (),
        awake: Callable[[], float] = float,
    ) -> None:
        self.clock = Clock()
        """Moved by the selector, in place of waiting."""
        self.job = Job(spec)
        """The state of the core."""
        self.steps: list[tuple[Fact, tuple[Order, ...]]] = []
        """Each fact with the orders that it gave, in the order in which the driver took them."""
        self.told: list[Fact | Order] = []
        """What a listener was told, in that order."""
        agenda = _Agenda(self.clock)
        self.ranks = ScriptedRanks(spec, scripts, agenda, self.clock, self._emit)
        self.driver = Driver(self.job, agenda, self.clock, self._record, self.told.append, awake)
        self.driver.launcher = self.driver.tree = self.ranks
        for when, make in outside:
            agenda.at(when, URGENT, partial(self._from_outside, make))

    def until_finished(self) -> list[tuple[Fact, tuple[Order, ...]]]:
        """Run to the end; the `steps`. Raises `Stuck` when there is none."""
        self.driver.emit(JobStarted(self.clock(), WALL))
        self.driver.run(lambda _now: None)
        return self.steps

    def _emit(self, fact: Fact) -> None:
        self.driver.emit(fact)

    def _from_outside(self, make: Callable[[float], Fact], now: float) -> None:
        self.driver.emit(make(now))

    def _record(self, fact: Fact, orders: tuple[Order, ...]) -> None:
        self.steps.append((fact, orders))
