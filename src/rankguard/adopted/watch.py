"""The loop over adopted processes: wait, facts, step, orders, as in `driver.py`, and as small as these jobs are.

It runs in whatever thread calls `turn`. The core's orders are to look, to wake and to judge: adopted processes are never
signalled and never reaped. The facts are kept, so that a process that is added later makes a new job from the same facts.

A process forked while a watch lives closes its copy of every file descriptor of ours (`os.register_at_fork`): nothing of
the parent's watch can reach it, and an epoll that two processes hold would tell the one of the other's.

Read next: `process.py`, `witnesses.py`; `core/machine.py` for what follows from what.
"""

import contextlib
import os
import selectors
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from signal import SIGKILL
from typing import Any

from rankguard._version import __version__
from rankguard.adopted.process import Adopted, have_pidfds, learn_endings
from rankguard.adopted.witnesses import Witnesses
from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.verdict import verdict as verdict_of
from rankguard.facts import (
    DeadlinePassed,
    Exited,
    Extended,
    Fact,
    JobStarted,
    Looked,
    Ready,
    Spawned,
    StoppingAnnounced,
)
from rankguard.linux.child import by_signal
from rankguard.model import Ending, JobSpec, Verdict
from rankguard.orders import Judge, Look, Order, Tell, WakeAt

TICK = 0.05
"""Seconds between two looks where the kernel cannot wake us: no pidfds, or a sentinel that a grandchild keeps open."""

FEW = 8

FOREVER = 1e9

clock = time.monotonic


class Watch:
    """Several processes, one job over them. `close` it; not for two threads at a time (`wait` excepted)."""

    def __init__(
        self, processes: Sequence[Adopted], *, expect_ready: bool = False, ready_timeout: float | None = None
    ) -> None:
        self.processes = list(processes)
        self.verdict: Verdict | None = None
        self.endings: deque[tuple[Adopted, Ending]] = deque()
        """News: taken from the left by whoever tells of them."""
        self.before_endings: Callable[[Sequence[Adopted]], None] | None = None
        """Asked before endings become facts: what the dead have sent came before."""
        self.owned: list[Any] = []
        """Closed with the watch."""
        self.started = self.closed = self._judged = False
        self._must_ask = not have_pidfds()
        try:
            self._selector = selectors.DefaultSelector()
            self.owned.append(self._selector)
            self._witnesses = Witnesses()
            self.owned.append(self._witnesses)
        except BaseException:  # no file descriptor is left
            self.close()
            raise
        self._facts: list[Fact] = []
        self._deadlines: dict[str, tuple[float, int]] = {}
        self._timers: list[tuple[float, Callable[[float], None]]] = []
        self._first_look: Looked | None = None
        self._spec = JobSpec(
            run_id=os.urandom(4).hex(),
            command=(),
            argv=(),
            nprocs=0,
            env={},
            cwd="",
            node=os.uname().nodename,
            start="adopted",
            expect_ready=expect_ready,
            ready_timeout=ready_timeout,
            adopted=True,
            any_end_fails=True,
        )
        self._job = self._new_job()
        _live[id(self)] = weakref.ref(self)
        for each in self.processes:
            self._watch(each)

    # ── Waiting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """The job begins. `take_early` comes next."""
        self.started, now = True, clock()
        self._emit(JobStarted(now, time.time(), self._witnesses.state()))
        for each in self.processes:
            self._emit(Spawned(now, each.rank, each.pid))

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
        self._conclude()

    def turn(self, timeout: float | None) -> None:
        """Wait for news, at most `timeout` seconds (None: as long as it takes), and take it."""
        events = self._selector.select(self.patience(timeout))
        now = clock()
        ended: list[Adopted] = []
        for key, _mask in events:
            if isinstance(key.data, Adopted):
                ended.append(key.data)
            else:
                key.data(now)
        if self._must_ask:
            ended += [each for each in self._asked() if each not in ended and each.gone()]
        self._end(ended, now)
        self._pass_time(clock())
        self._conclude()

    def wait(self, patience: float | None) -> None:
        """Wait until `turn` has something to do. Any thread may, beside one that does anything else."""
        self._selector.select(patience)

    def settle(self) -> None:
        """Take the news that is there, and if something failed wait for the verdict (the core's clocks bound it)."""
        self.turn(0)
        while self.failing and self.verdict is None:
            self.turn(None)

    @property
    def failing(self) -> bool:
        """Something has failed. The verdict may still wait for the statuses of others that were dying too."""
        return self._job.failed_at is not None

    def patience(self, timeout: float | None = None) -> float | None:
        """How long to wait: until the next deadline, and `timeout` at most."""
        due = [when for when, _ in self._deadlines.values()] + [when for when, _ in self._timers]
        waits = [max(0.0, min(due) - clock())] if due else []
        waits += [timeout] if timeout is not None else []
        waits += [TICK] if self._must_ask and self._asked() else []
        return min(waits, default=None)

    def _asked(self) -> list[Adopted]:
        return [each for each in self.processes if each.ending is None and not each.forgotten]

    def _pass_time(self, now: float) -> None:
        for name, (when, generation) in sorted(self._deadlines.items(), key=lambda item: item[1]):
            if when <= now and self._deadlines.get(name) == (when, generation):
                del self._deadlines[name]
                self._emit(DeadlinePassed(now, name, generation))
        due = [call for when, call in self._timers if when <= now]
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for call in due:
            call(now)

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
        self._emit(fact)

    def all_ready(self) -> None:
        """Nobody owes a message any more: those that never owed one are as ready as they will be."""
        now = clock()
        for rank in self._job.ranks:
            if rank.ready_at is None and rank.exited is None:
                self._emit(Ready(now, rank.rank))

    def owes_nothing(self, ranks: Iterable[int]) -> None:
        """These are never late."""
        for rank in ranks:
            self._emit(Extended(clock(), rank, FOREVER))

    # ── Members ──────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, process: Adopted) -> None:
        """One more, watched from now on; its rank is the next number."""
        self.processes.append(process)
        self._watch(process)
        # The number of ranks of a job is fixed: a new job from the same facts. Its orders were carried out the first time.
        self._job = self._new_job()
        for fact in self._facts:
            step(self._job, fact)
        self._emit(Spawned(clock(), process.rank, process.pid))
        self.take_early([process])

    def forget(self, process: Adopted) -> None:
        """No longer watched: its ending is nothing to us."""
        process.forgotten = True
        self._release(process)

    def announce(self) -> None:
        """Endings are no failures from now on. What had ended by now still counts."""
        self.turn(0)
        self._emit(StoppingAnnounced(clock()))

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
        """Walk the way of a failure once, with a few processes and to no effect, while there is still time.

        After a fork every page that is touched for the first time has to be copied, reference counts included: half of
        the time from a death to its verdict, measured with eight forked ranks.
        """
        few = self.processes[:FEW]
        if not few or self.failing:
            return
        now, first = clock(), few[0]
        job = Job(self._spec.replace(nprocs=len(few), names=tuple(each.name for each in few)))
        for kill in self._witnesses.kills(now, self.processes):
            self._emit(kill)  # a true one
        oom, readable = self._witnesses.oom(first)
        first.known_ending()
        for fact in (
            JobStarted(now, time.time(), self._witnesses.state()),
            *(Spawned(now, rank, each.pid) for rank, each in enumerate(few)),
            Exited(now, 0, by_signal(SIGKILL), oom, readable),
            self._witnesses.look([each for each in few if each.ending is None]),
        ):
            step(job, fact)
        step(job, choose(job.case()))
        verdict_of(job.case(), __version__)

    # ── Facts and orders ─────────────────────────────────────────────────────────────────────────────────────────

    def _new_job(self) -> Job:
        return Job(self._spec.replace(nprocs=len(self.processes), names=tuple(each.name for each in self.processes)))

    def _watch(self, process: Adopted) -> None:
        self._witnesses.add(process)
        if process.ending is None and process.fd >= 0:
            self._selector.register(process.fd, selectors.EVENT_READ, process)

    def _release(self, process: Adopted) -> None:
        if process.fd >= 0:
            self.deafen(process.fd)
        process.close()

    def _end(self, ended: Sequence[Adopted], now: float) -> None:
        ended = [each for each in ended if not each.forgotten and self._job.ranks[each.rank].exited is None]
        if not ended:
            return
        # Who else is dying is seen only now: the first to be told of is not the first that failed (architecture, rule 9).
        if self._job.failed_at is None and not self._job.announced:
            self._first_look = self._look()
        if self.before_endings is not None:
            self.before_endings(ended)
        for kill in self._witnesses.kills(now, self.processes):
            self._emit(kill)
        learn_endings(ended)
        for each in ended:
            self._release(each)
            ending = each.ending
            assert ending is not None  # learn_endings leaves none
            oom, readable = self._witnesses.oom(each)
            self.endings.append((each, ending))
            self._emit(Exited(now, each.rank, ending, oom, readable))

    def _look(self) -> Looked:
        alive = [each for each in self.processes if each.ending is None and not each.forgotten]
        return self._witnesses.look(alive)

    def _emit(self, fact: Fact) -> None:
        facts = deque([fact])
        while facts:
            fact = facts.popleft()
            orders = step(self._job, fact)
            self._facts.append(fact)
            for order in orders:
                if (result := self._carry_out(order)) is not None:
                    facts.appendleft(result)

    def _carry_out(self, order: Order) -> Fact | None:
        if isinstance(order, Look):
            look, self._first_look = self._first_look or self._look(), None
            return look
        if isinstance(order, WakeAt):
            self._deadlines[order.name] = (order.when, order.generation)
        elif isinstance(order, Judge):
            return choose(self._case())
        elif isinstance(order, Tell) and order.what == "judged":
            self._judged = True
            self._deadlines.clear()
        return None

    def _conclude(self) -> None:
        """The verdict, once all news of this moment is in: who said that it failed has perhaps ended, too."""
        if self._judged and self.verdict is None:
            self.verdict = verdict_of(self._case(), __version__)

    def _case(self) -> Any:
        case = self._job.case()
        ranks = tuple(rank for rank in case.ranks if not self.processes[rank.rank].forgotten)
        return case.replace(now=clock(), ranks=ranks)

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
