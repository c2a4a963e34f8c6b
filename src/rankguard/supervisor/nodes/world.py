"""One attempt at a job on several machines, in its coordinator: the one core that holds all ranks.

The same driver, desk, output, page and journal as an attempt on one machine (`../attempt.py`), over a launcher whose ranks
are elsewhere. What only their own machine can know (memory, stacks, the kernel's word, what is left) their agents look
at and tell. No process of a rank is ours: nothing here may touch a pid that a fact tells.
Read next: `../../launchers/nodes.py`, `../../launchers/fleet.py`, `uplink.py` (an agent's end).
"""

import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from rankguard._version import __version__
from rankguard.collective import Remark
from rankguard.core import story
from rankguard.core.job import Job
from rankguard.diagnosis.verdict import verdict
from rankguard.driver import Driver
from rankguard.facts import (
    Fact,
    JobStarted,
    Mustered,
    NodeJoined,
    StopRequested,
)
from rankguard.launchers.nodes import NodeRanks
from rankguard.linux.signals import Received
from rankguard.model import Attempt, MemoryState, Verdict
from rankguard.orders import Order, SignalAll
from rankguard.record import to_data
from rankguard.report.output import Output
from rankguard.report.redact import for_telling
from rankguard.supervisor.ahead import Ahead
from rankguard.supervisor.desk import Desk
from rankguard.supervisor.failopen import Part
from rankguard.supervisor.ground import Ground
from rankguard.supervisor.nodes.gathering import Gathering
from rankguard.supervisor.onscreen import OnScreen
from rankguard.supervisor.rehearsal import Rehearsal
from rankguard.supervisor.wishes import Wishes
from rankguard.wire import Message

clock = time.monotonic


class WorldAttempt:
    """As `attempt.LiveAttempt`, for `../main.py`."""

    def __init__(self, ground: Ground, before: tuple[Attempt, ...]) -> None:
        assert ground.fleet is not None
        self._ground, self._fleet = ground, ground.fleet
        self._spec = spec = ground.spec.replace(attempt=len(before))
        self._files, self._wall = ground.files, time.time()
        self._said_error = False
        self.job = Job(for_telling(spec), before)
        self.wishes = Wishes(self.job, keeps=spec.keeps)
        self._screen = OnScreen(spec, ground.consoles, ground.on_terminal)
        self._output = Output(spec, self._screen.sinks, self._warn, ground.few_fds)
        self.driver = Driver(self.job, ground.selector, clock, self._record, self._listen, ground.awake)
        self.desk = Desk(ground.wire, self.job, self._files, self.take, clock, self._heard_at, ground.heals)
        self._ranks = NodeRanks(
            spec, self._fleet, clock, emit=self._on_fact, output=self._output, on_payload=self.desk.payload
        )
        self._ranks.patience, self._ranks.looked = self._patience, self._note_course
        self._looked: set[int] = set()
        self._heard: dict[int, float] = {}
        self.driver.launcher = self.driver.tree = self._ranks
        self.desk.asks |= self._screen.answer(self._glimpses(), self._output)
        self._gathering = Gathering(
            self.job,
            self._fleet,
            self._ranks,
            self._files,
            clock,
            emit=self.driver.emit,
            redact=ground.redact,
            numbers=ground.stacks,
        )
        self.desk.later["stacks"] = self._gathering.stacks
        self.driver.examine, self.driver.muster = self._gathering.examine, self._muster
        self.desk.sampled = self._sampled
        self._listeners: list[Callable[[Fact | Order], object]] = [self._wake_page, self._screen.listen]
        if ground.last_word.path is not None:
            ahead = Ahead(ground.last_word, self.job, clock)
            self.desk.judged = ahead.judged
            self._listeners.append(ahead.listen)
        self._listeners.append(self.desk.listen)
        self._parts: list[Part] = [self._fleet, self._gathering, self._output, self._screen, ground.reading]
        self._parts.append(Rehearsal(self.job))
        if ground.page is not None:
            ground.page.warn, ground.page.sampled = self._warn, self._sampled
            self._parts.append(ground.page)
        if before:
            self._fleet.again(clock())

    def _glimpses(self) -> Any:
        from rankguard.supervisor.glimpses import Glimpses

        return Glimpses(self.job, self._ground.memory, self._heard_at, self._ground.wire.send, here=False)

    # ── Its life ─────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, carried: Iterable[Fact] = ()) -> Verdict:
        """From launch until nothing is left of it on any node that can be asked."""
        self.driver.emit(JobStarted(clock(), self._wall))
        for fact in carried:
            self.take(fact)
        if self._ground.reading.paused:
            self.pause(True, clock())
        self.desk.on_message(clock())
        self.driver.run(self._idle)
        now = clock()
        self._ranks.close(now)
        final = verdict(self.job.case().replace(now=now), __version__)
        self._screen.close()
        lost = self._output.finish()
        return final.replace(warnings=(*final.warnings, *lost))

    @property
    def lasted_s(self) -> float:
        """From its launch to the end of its last rank."""
        return max(0.0, (self.job.ended_at or self.job.now) - (self.job.started_at or self.job.now))

    def close(self) -> None:
        """What another attempt makes anew: nothing but what Python lets go of by itself."""

    def pause(self, paused: bool, now: float) -> None:
        """Our own reader is slow. Ranks elsewhere never wait for it: what comes meanwhile is held, within bounds."""
        self._output.hold(paused, now)

    def _idle(self, now: float) -> float | None:
        return self._ground.failopen.wake(self._parts, now, needed=self._ground.reading)

    # ── News ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, fact: Fact) -> None:
        """A fact from outside the job, for the core; what concerns further attempts is remembered."""
        self.wishes.note(fact)
        self.driver.emit(fact)

    def _on_fact(self, fact: Fact) -> None:
        """Of a node."""
        if isinstance(fact, NodeJoined):
            self._output.name_node(fact.node, fact.name)
        if isinstance(fact, StopRequested):
            self.take(fact)
        else:
            self.driver.emit(fact)

    def on_child(self, now: float) -> None:
        """SIGCHLD: our own agent's end is news of its pidfd."""

    def on_signal(self, received: Received, now: float) -> None:
        """Somebody asks us to end."""
        if received.signal == signal.SIGHUP and self._spec.ignore_hup:
            return
        if received.signal in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.take(StopRequested(now, received.signal, received.sender, to="supervisor"))

    def _patience(self) -> float:
        """Two clocks, as on one machine: after a failure, and after a request."""
        stop = self.job.stop
        if stop is None:
            return self._spec.grace
        return self._spec.shutdown_timeout if stop.grace is None else stop.grace

    def _heard_at(self, rank: int) -> float | None:
        return self._ranks.heard_at(rank)

    def _listen(self, told: Fact | Order) -> None:
        for listener in self._listeners:
            listener(told)

    def _muster(self, _spoken: tuple[int, ...], now: float) -> None:
        """Who came to a collective that timed out: what everybody has printed of it, and who gave a sign last."""
        remarks = tuple(
            Remark(rank.rank, lines) for rank in self.job.ranks if (lines := self._output.remarks.of(rank.rank))
        )
        self.driver.emit(Mustered(now, self._ranks.signs(now), remarks=remarks))

    def _wake_page(self, told: Fact | Order) -> None:
        if isinstance(told, SignalAll) and told.ends and self._ground.page is not None:
            self._ground.page.wake(clock())

    def _record(self, fact: Fact, orders: tuple[Order, ...]) -> None:
        self._files.append(story.lines(fact, orders))
        if self._files.error is not None and not self._said_error:
            self._said_error = True
            self._warn(self._files.error)

    def _warn(self, statement: str) -> None:
        self.driver.warn(statement)

    def _note_course(self, node: int) -> None:
        """What all ranks hold, once all agents have told it anew. Limits are each machine's own, and have no place here."""
        self._looked.add(node)
        if len(self._looked) < len(self._ranks.held()):
            return
        self._looked.clear()
        heard = 0
        for rank in range(self.job.spec.nprocs):
            at = self._heard_at(rank)
            if at is not None and at != self._heard.get(rank):
                self._heard[rank] = at
                heard |= 1 << rank
        self._ground.course.add(clock(), dict(self._sampled().get("ranks", ())), None, None, None, heard)

    def _sampled(self) -> Message:
        """What all ranks held when their agents looked last."""
        each = self._fleet.plan.nproc
        ranks = [
            [node * each + rank, held] for node, told in self._ranks.held() for rank, held in told.get("ranks", ())
        ]
        ages = [told["age_s"] for _node, told in self._ranks.held() if "age_s" in told]
        return {"ranks": ranks, "age_s": max(ages), "memory": to_data(MemoryState())} if ages else {}
