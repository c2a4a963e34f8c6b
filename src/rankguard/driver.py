"""The loop: wait, facts, step, orders. The only place where waiting happens.

News wakes the selector; callbacks turn it into facts; each fact goes through `core.machine.step`; the journal has fact
and orders before any of them is carried out; the orders go to the hands in `launchers/`, `linux/` and `report/`.
Decides nothing: what to do is in `core/`, why it happened in `diagnosis/`. `supervisor/main.py` builds it.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from selectors import BaseSelector, SelectorKey
from typing import Protocol

from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.core.policy import LATE, NAP
from rankguard.diagnosis.culprit import choose
from rankguard.facts import DeadlinePassed, Examined, Fact, Looked, Mustered, Signalled, TimeLost, TreeEmpty, Warned
from rankguard.launchers.contract import Launcher
from rankguard.model import Left, Survivor
from rankguard.orders import (
    Disarm,
    Examine,
    Finish,
    GiveUp,
    Judge,
    Listen,
    Look,
    Muster,
    Order,
    Reap,
    SignalAll,
    SignalRank,
    Spawn,
    Sweep,
    Tell,
    WakeAt,
)

URGENT, NEWS_EXIT = 0, 1


class Tree(Protocol):
    """Ends what the ranks have left behind, and knows when nothing is left; `left` is what outlives them all."""

    killed: set[int]

    def sweep(self, kill: bool) -> None: ...
    def empty(self) -> bool: ...
    def survivors(self) -> tuple[Survivor, ...]: ...
    def left(self) -> tuple[Left, ...]: ...


class Driver:
    """Runs one job from `JobStarted` to `Finish`. `listen` is told each fact and order once it is done.

    `awake`: seconds that we were at work or waiting for a processor, as opposed to asleep or stopped (`linux/awake.py`).
    """

    def __init__(
        self,
        job: Job,
        selector: BaseSelector,
        clock: Callable[[], float],
        journal: Callable[[Fact, tuple[Order, ...]], None],
        listen: Callable[[Fact | Order], None],
        awake: Callable[[], float] = float,
    ) -> None:
        self.job, self.clock = job, clock
        self.finished = False
        self.launcher: Launcher  # set before `run`, as is the tree: a launcher needs our `emit`
        self.tree: Tree
        self.examine: Callable[[int, float], None] = self._examine
        """Takes the stacks of all ranks and emits `Examined`; this one takes none."""
        self.remember: Callable[[Looked], Looked] = lambda looked: looked
        """Adds to the look on a failure what was known of the ranks' memory before it."""
        self.muster: Callable[[tuple[int, ...], float], None] = self._muster
        """Looks at the ranks that are not among those given and emits `Mustered`; this one looks at none."""
        self.spare: Callable[[SelectorKey, Exception], bool] = lambda _key, _error: False
        """Whether news whose callback raised can be done without; its descriptor is then watched no more."""
        self._selector, self._journal, self._listen, self._awake = selector, journal, listen, awake
        self._facts: deque[Fact] = deque()
        self._deadlines: dict[str, tuple[float, int]] = {}
        self._sweeping = False

    def emit(self, fact: Fact) -> None:
        """A fact for the queue."""
        self._facts.append(fact)

    def _examine(self, number: int, now: float) -> None:
        self.emit(Examined(now, number, self.launcher.signs(now)))

    def _muster(self, _spoken: tuple[int, ...], now: float) -> None:
        self.emit(Mustered(now, self.launcher.signs(now)))

    def run(self, idle: Callable[[float], float | None]) -> None:
        """Until the job is finished. `idle(now)` does what was put off and says when it wants to be called next."""
        self._handle()
        now, awake = self.clock(), self._awake()
        while not self.finished:
            timeout = self._timeout(idle(self.clock()))
            slept_at = self.clock()
            news = self._selector.select(timeout)
            awake_at, now = now, self.clock()
            was, awake = awake, self._awake()
            if timeout is not None and self._deadlines:
                self._notice_lost_time(slept_at - awake_at, now - slept_at, timeout, awake - was)
            for key, _events in sorted(news, key=lambda entry: entry[0].data[0]):
                try:
                    key.data[1](now)
                except Exception as error:
                    if not self.spare(key, error):
                        raise
                    with contextlib.suppress(KeyError, ValueError, OSError):
                        self._selector.unregister(key.fileobj)
                self._handle()
            for fact in self._due(now):
                self.emit(fact)
            self.launcher.wake(now)
            self._handle()
            if self._sweeping:
                self._check_tree(now)

    def _timeout(self, idle_at: float | None) -> float | None:
        if self._facts:
            return 0.0
        due = [when for when, _generation in self._deadlines.values()]
        now = self.clock()
        if due:
            due.append(now + NAP)
        due += [at for at in (idle_at, self.launcher.next_wake()) if at is not None]
        return None if not due else max(0.0, min(due) - now)

    def _notice_lost_time(self, worked: float, slept: float, timeout: float, awake: float) -> None:
        """We were stopped, or the machine was: nobody tells, so it shows only in a clock that went on without us.

        Taken as lost is all of a sleep or of a turn of work that took far too long: when in it we were stopped is not
        known, and no deadline may have run meanwhile. What we spent `awake`, at work or waiting for a processor, is not
        lost: on an overloaded machine a grace would never end.
        """
        lost = worked - awake if worked - awake > LATE else 0.0
        if slept - timeout - awake > LATE:
            lost += slept
        if lost:
            self.emit(TimeLost(self.clock(), round(lost, 6)))
            self._handle()

    def _due(self, now: float) -> Iterator[Fact]:
        for name, (when, generation) in sorted(self._deadlines.items(), key=lambda item: item[1]):
            if when <= now:
                del self._deadlines[name]
                yield DeadlinePassed(now, name, generation)

    def _handle(self) -> None:
        """Every fact in the queue, one after another, each with its orders carried out before the next."""
        while self._facts:
            fact = self._facts.popleft()
            orders = step(self.job, fact)
            self._journal(fact, orders)
            self._listen(fact)
            results: list[Fact] = []
            for order in orders:
                results += self._carry_out(order, fact)
                self._listen(order)
            self._facts.extendleft(reversed(results))  # what our own hands found comes before other news

    def _carry_out(self, order: Order, fact: Fact) -> Iterator[Fact]:  # noqa: C901, PLR0912  # one arm an order
        match order:
            case Look():
                yield self.remember(self.launcher.look(fact.at))
            case Listen(since=since):
                yield self.launcher.silences(fact.at, since)
            case Examine(number=number):
                self.examine(number, fact.at)
            case Muster(spoken=spoken):
                self.muster(spoken, fact.at)
            case SignalAll(signal=signal, spare=spare, ends=ends):
                reached = self.launcher.signal_all(signal, frozenset(spare), ends=ends)
                yield Signalled(self.clock(), signal, reached)
            case SignalRank(rank=rank, signal=signal):
                self.launcher.signal_rank(rank, signal)
            case WakeAt(name=name, generation=generation, when=when):
                self._deadlines[name] = (when, generation)
            case Disarm(names=names):
                for name in names:
                    self._deadlines.pop(name, None)
            case Spawn(first=first, last=last):
                self.launcher.spawn(first, last)
            case Reap(rank=rank):
                self.launcher.reap(rank)
            case Judge():
                yield choose(self.job.case().replace(now=self.clock()))
            case Sweep(kill=kill):
                self._sweeping = True
                self.tree.sweep(kill)
            case GiveUp():
                self._sweeping = False
                yield TreeEmpty(self.clock(), tuple(sorted(self.tree.killed)), self.tree.survivors())
            case Finish():
                self.finished = True
            case Tell():
                pass  # for those who listen

    def _check_tree(self, now: float) -> None:
        """Empty is a fact of its own: it comes after the last ending and the last reap.

        To ask may bring endings to light whose signal has been taken already, so they are handled before we sleep.
        """
        while self._sweeping:
            if self.tree.empty():
                self._sweeping = False
                self.emit(TreeEmpty(now, tuple(sorted(self.tree.killed)), (), self.tree.left()))
            elif not self._facts:
                return
            self._handle()

    def warn(self, statement: str) -> None:
        """Something of ours could not be done; the job goes on."""
        self.emit(Warned(self.clock(), statement))
