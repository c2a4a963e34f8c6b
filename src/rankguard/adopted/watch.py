"""The loop over adopted processes: wait, and turn news into facts. It runs in whatever thread calls `turn`.

A process forked while a watch lives closes its copy of every file descriptor of ours (`os.register_at_fork`): nothing of
the parent's watch can reach it, and an epoll that two processes hold would tell the one of the other's.

Read next: `process.py`, `witnesses.py`, `course.py`.
"""

import contextlib
import os
import selectors
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from signal import SIGKILL
from typing import Any, cast

from rankguard.adopted.course import Course, clock
from rankguard.adopted.process import Adopted, have_pidfds, learn_endings
from rankguard.adopted.witnesses import Witnesses
from rankguard.core.policy import NAP
from rankguard.errors import RankFailed, ReadyTimeout
from rankguard.facts import Exited, Extended, Fact, JobStarted, Looked, Ready, Spawned, StoppingAnnounced
from rankguard.linux.foreign import UNKNOWN
from rankguard.model import Ending, Verdict

TICK = 0.05
"""Seconds between two looks where the kernel cannot wake us: no pidfds, or a sentinel that a grandchild keeps open."""

FOREVER = 1e9


class Watch:
    """Several processes, one job over them. `close` it; not for two threads at a time (`wait` excepted)."""

    def __init__(
        self, processes: Sequence[Adopted], *, expect_ready: bool = False, ready_timeout: float | None = None
    ) -> None:
        self.processes = list(processes)
        self.endings: deque[tuple[Adopted, Ending]] = deque()
        """News: taken from the left by whoever tells of them."""
        self.before_endings: Callable[[Sequence[Adopted]], None] | None = None
        """Asked before endings become facts: what the dead have sent came before."""
        self.owned: list[Any] = []
        """Closed with the watch."""
        self.started = self.closed = False
        self._must_ask = not have_pidfds()
        try:
            self._selector = selectors.DefaultSelector()
            self.owned.append(self._selector)
            self._witnesses = Witnesses()
            self.owned.append(self._witnesses)
        except BaseException:  # no file descriptor is left
            self.close()
            raise
        self._timers: list[tuple[float, Callable[[float], None]]] = []
        self._first_look: Looked | None = None
        self._course = Course(self.processes, self._look, expect_ready=expect_ready, ready_timeout=ready_timeout)
        _live[id(self)] = weakref.ref(self)
        for each in self.processes:
            self._watch(each)

    # ── Waiting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """The job begins. `take_early` comes next."""
        self.started, now = True, clock()
        self._course.emit(JobStarted(now, time.time(), self._witnesses.state()))
        for each in self.processes:
            self._course.emit(Spawned(now, each.rank, each.pid))

    def take_early(self, processes: Iterable[Adopted] | None = None) -> None:
        """Those that had ended before we came: the counters cannot tell what killed them."""
        asked = self.processes if processes is None else processes
        told = [each for each in asked if each.ending is not None]
        with selectors.DefaultSelector() as now_readable:
            for each in asked:
                if each.ending is None and each.fd >= 0:
                    now_readable.register(each.fd, selectors.EVENT_READ, each)
            dead = [key.data for key, _mask in now_readable.select(0)] if now_readable.get_map() else []
        for each in dead:
            each.late = True
        self._end([*told, *dead], clock())
        self._course.conclude()

    def turn(self, timeout: float | None) -> None:
        """Wait for news, at most `timeout` seconds (None: as long as it takes), and take it."""
        patience, slept_at = self.patience(timeout), clock()
        events = self._selector.select(patience)
        now = clock()
        self._course.notice_lost_time(patience, now - slept_at, now)
        ended: list[Adopted] = []
        for key, _mask in events:
            if isinstance(key.data, Adopted):
                ended.append(key.data)
            else:
                key.data(now)
        if self._must_ask:
            ended += [each for each in self._asked() if each not in ended and each.gone()]
        self._end(ended, now)
        self._course.pass_time(clock())
        due = [call for when, call in self._timers if when <= now]
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for call in due:
            call(now)
        self._course.conclude()

    def wait(self, patience: float | None) -> None:
        """Wait until `turn` has something to do. Any thread may, beside one that does anything else."""
        self._selector.select(patience)

    def settle(self) -> None:
        """Take the news that is there, and if something failed wait for the verdict (the core's clocks bound it)."""
        self.turn(0)
        while self.failing and not self.decided:
            self.turn(None)

    @property
    def failing(self) -> bool:
        """Something has failed. The verdict may still wait for the statuses of others that were dying too."""
        return self._course.job.failed_at is not None

    @property
    def decided(self) -> bool:
        """The first failure is known, and who it was: `verdict` tells."""
        return self._course.decided

    def raise_if_decided(self) -> None:
        """Raise what was decided. Its verdict is worded when somebody looks at it: the caller has the error sooner."""
        if self.decided:
            kind = ReadyTimeout if self._course.timed_out else RankFailed
            raise kind(lambda: cast(Verdict, self._course.verdict))

    @property
    def verdict(self) -> Verdict | None:
        """On the first failure, once it is known."""
        return self._course.verdict

    def patience(self, timeout: float | None = None) -> float | None:
        """How long to wait: until the next deadline, and `timeout` at most."""
        due = [when for when, _ in self._course.deadlines.values()] + [when for when, _ in self._timers]
        waits = [max(0.0, min(due) - clock())] if due else []
        waits += [NAP] if self._course.deadlines else []
        waits += [timeout] if timeout is not None else []
        waits += [TICK] if self._must_ask and self._asked() else []
        return min(waits, default=None)

    def _asked(self) -> list[Adopted]:
        return [each for each in self.processes if each.ending is None and not each.forgotten]

    # ── For others that wait with us ─────────────────────────────────────────────────────────────────────────────

    def listen(self, fd: int, on_news: Callable[[float], None]) -> None:
        """Call `on_news(now)` when `fd` is readable. It comes before the endings of the same wake-up."""
        self._selector.register(fd, selectors.EVENT_READ, on_news)

    def deafen(self, fd: int) -> None:
        """No longer."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def later(self, seconds: float, call: Callable[[float], None]) -> None:
        """Call `call(now)` once, after `seconds`."""
        self._timers.append((clock() + seconds, call))

    def tell(self, fact: Fact) -> None:
        """A fact that somebody else found out."""
        self._course.emit(fact)

    def all_ready(self) -> None:
        """Nobody owes a message any more: those that never owed one are as ready as they will be."""
        now = clock()
        for rank in self._course.job.ranks:
            if rank.ready_at is None and rank.exited is None:
                self._course.emit(Ready(now, rank.rank))

    def owes_nothing(self, ranks: Iterable[int]) -> None:
        """These are never late."""
        for rank in ranks:
            self._course.emit(Extended(clock(), rank, FOREVER))

    # ── Members ──────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, process: Adopted) -> None:
        """One more, watched from now on; its rank is the next number."""
        self.processes.append(process)
        self._watch(process)
        self._course.grow()
        self._course.emit(Spawned(clock(), process.rank, process.pid))
        self.take_early([process])

    def forget(self, process: Adopted) -> None:
        """No longer watched: its ending is nothing to us."""
        process.forgotten = True
        self._release(process)

    def announce(self) -> None:
        """Endings are no failures from now on. What had ended by now still counts."""
        self.turn(0)
        self._course.emit(StoppingAnnounced(clock()))

    def close(self) -> None:
        """Let go of everything."""
        if self.closed:
            return
        self.closed = True
        _live.pop(id(self), None)
        for each in self.processes:
            each.close()
        for thing in self.owned:
            thing.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def rehearse(self) -> None:
        """Make sure that a failure finds its way prepared."""
        self._course.rehearse(self._witnesses)

    # ── Endings ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _watch(self, process: Adopted) -> None:
        self._witnesses.add(process)
        if process.ending is None and process.fd >= 0:
            self._selector.register(process.fd, selectors.EVENT_READ, process)

    def _release(self, process: Adopted) -> None:
        if process.fd >= 0:
            self.deafen(process.fd)
        process.close()

    def _end(self, ended: Sequence[Adopted], now: float) -> None:
        ranks = self._course.job.ranks
        ended = [each for each in ended if not each.forgotten and ranks[each.rank].exited is None]
        if not ended:
            return
        # Who else is dying is seen only now: the first to be told of is not the first that failed (architecture, rule 9).
        if self._course.undisturbed:
            self._first_look = self._look()
        if self.before_endings is not None:
            self.before_endings(ended)
        learn_endings(ended)
        exits = [Exited(now, each.rank, each.ending or UNKNOWN, *self._witnesses.oom(each)) for each in ended]
        # The log may hold days of other news: it is read only where an OOM kill is possible.
        if any(exit_.ending.number == SIGKILL and (exit_.oom or not exit_.oom_readable) for exit_ in exits):
            for kill in self._witnesses.kills(now, self.processes):
                self._course.emit(kill)
        for each, exit_ in zip(ended, exits, strict=True):
            self._release(each)
            self.endings.append((each, exit_.ending))
            self._course.emit(exit_)

    def _look(self) -> Looked:
        """The look on a first ending, if there was one, is the look on the failure that this ending is."""
        look, self._first_look = self._first_look, None
        alive = [each for each in self.processes if each.ending is None and not each.forgotten]
        return look or self._witnesses.look(alive)

    # ── Forks ────────────────────────────────────────────────────────────────────────────────────────────────────

    def abandon(self) -> None:
        """In a forked child: close our copies, touch nothing that is shared."""
        with contextlib.suppress(OSError, ValueError):
            self.close()


_live: dict[int, "weakref.ref[Watch]"] = {}


def _after_fork_in_child() -> None:
    for reference in list(_live.values()):
        if (watch := reference()) is not None:
            watch.abandon()
    _live.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
