"""The supervisor's front desk: what the front (and other terminals) ask of a job, and what they are told.

An ask becomes a fact for the core, or is answered from what is known. Nothing here waits: what the front does not take
is kept by the wire. To add an ask: its name in `asks`. Read next: `../wire.py`, `../client.py` (the other end).
"""

import os
from collections.abc import Callable
from typing import Any

from rankguard._version import __version__
from rankguard.core.job import Job
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import (
    Exited,
    Fact,
    FrontLost,
    ProtocolBroken,
    ReadinessExpected,
    Resumed,
    SignalPassed,
    StopRequested,
    Suspended,
)
from rankguard.model import Sender, Verdict
from rankguard.orders import Order, Tell
from rankguard.record import to_data
from rankguard.report.files import RunFiles
from rankguard.wire import Message, Wire

NAMED = 16
"""Ranks that a progress line may name."""


CANNOT_MISS = frozenset({"stop", "signal", "suspend", "resume", "expect"})
"""What the front asks for on behalf of somebody who relies on it."""


class Desk:
    """Of one job. `emit` takes facts; `heard_at(rank)` is when a rank last said anything; `heals(verdict)`
    whether a failure is followed by another attempt: whoever waits for the job is then not told that it has failed.
    """

    def __init__(
        self,
        wire: Wire,
        job: Job,
        files: RunFiles,
        emit: Callable[[Fact], None],
        clock: Callable[[], float],
        heard_at: Callable[[int], float | None],
        heals: Callable[[Verdict], bool],
    ) -> None:
        self._wire, self._job, self._files, self._emit, self._clock = wire, job, files, emit, clock
        self._heard_at, self._heals = heard_at, heals
        self.asks: dict[str, Callable[[Message, float], Message | None]] = {
            "expect": lambda ask, now: self._emit(ReadinessExpected(now, ask["timeout"])),
            "stop": lambda ask, now: self._emit(_stop(ask, now)),
            "signal": lambda ask, now: self._emit(SignalPassed(now, ask["signal"])),
            "suspend": lambda _ask, now: self._emit(Suspended(now)),
            "resume": lambda _ask, now: self._emit(Resumed(now)),
            "reject": lambda ask, now: self._emit(ProtocolBroken(now, ask["rank"], ask["statement"])),
            "ping": lambda _ask, _now: {"is": "pong"},
            "progress": self._progress,
            "alive": self._alive,
            "report": self._report,
        }
        """What can be asked, and its answer, if it has one."""
        self.later: dict[str, Callable[[Message, float, Callable[[Message], None]], None]] = {}
        """What is answered when the answer is there (`stacks`)."""
        self.sampled: Callable[[], Message] = dict
        """What the ranks held when they were looked at last (`samples.py`)."""
        self.judged: Callable[[Verdict], object] = bool
        """Told what is known once the culprit is."""
        self._reported: tuple[float, Message] | None = None
        self._said_failed = False

    # ── Asked ────────────────────────────────────────────────────────────────────────────────────────────────────

    def on_message(self, now: float) -> None:
        """News on the wire to the front."""
        self._wire.flush()
        for message, fds in self._wire.receive():
            for fd in fds:
                os.close(fd)
            self.ask(message, now, self._wire.send)

    def ask(self, message: Message, now: float, reply: Callable[[Message], None]) -> None:
        """Of whoever may ask; the answer comes at once, later, or never."""
        if message["do"] in self.later:
            self.later[message["do"]](message, now, reply)
            return
        answer = self.asks[message["do"]](message, now)
        if answer is not None:
            reply(answer)

    def front_is_gone(self, now: float, front_pid: int) -> bool:
        """The front let go of the wire, as it does just before it has ended; `FrontLost` is then on its way."""
        if self._wire.closed and not self._job.finished:
            self._emit(FrontLost(now, front_pid))
        return self._wire.closed

    def _progress(self, _ask: Message, now: float) -> Message:
        """Who is not ready yet, and what it said last: (rank, text, done, total, seconds of silence)."""
        waiting: list[list[Any]] = []
        for rank in self._job.ranks:
            if rank.ready_at is None and not rank.gone and rank.member is None:
                said = rank.status
                heard = self._heard_at(rank.rank) or rank.spawned_at or now
                told = (said.text, said.done, said.total) if said is not None else (None, None, None)
                waiting.append([rank.rank, *told, now - heard])
        unsaid = len(waiting[NAMED:])
        status = self._job.ranks[0].status if self._job.spec.watch is not None else None
        return {
            "is": "progress",
            "ready": self._job.ready,
            "waiting": waiting[:NAMED],
            "unsaid": unsaid,
            "probe": None if status is None else status.probe,
        }

    def _alive(self, _ask: Message, now: float) -> Message:
        """That we answer; and of the ranks that are not ready, how long ago the one that spoke last did: null when all are."""
        waiting = [rank for rank in self._job.ranks[: self._job.spec.nprocs] if rank.ready_at is None and not rank.gone]
        heard = [self._heard_at(rank.rank) or rank.spawned_at or now for rank in waiting]
        return {"is": "alive", "silent_s": now - max(heard) if heard else None}

    def _report(self, _ask: Message, now: float) -> Message:
        """What is known so far; made anew at most once a second (of a large job: more seldom), whoever asks."""
        if self._reported is None or now - self._reported[0] >= max(1.0, len(self._job.ranks) / 100):
            known = self.known().replace(outcome="running").to_dict()
            progress = self._progress({}, now)
            self._reported = now, {"is": "report", "verdict": known, "progress": progress, "samples": self.sampled()}
        return self._reported[1]

    # ── Told ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def payload(self, rank: int, payload: bytes | None, fd: int | None) -> None:
        """A rank's readiness, to the front; a large payload travels as the file it came in."""
        message: Message = {"is": "payload", "rank": rank}
        if fd is not None:
            self._wire.send(message, [fd])
        else:
            self._wire.send(message | {"json": (payload or b"null").decode()})

    def listen(self, told: Fact | Order) -> None:
        """Every fact and order, once it is done: the front is told what it waits for, or all if it asked for that."""
        job = self._job
        if (
            not self._said_failed
            and not job.spec.max_restarts
            and job.failed_at is not None
            and job.stopped_at is not None
        ):
            self._said_failed = True  # now, before the ranks' ends take the processors; the verdict follows
            self._wire.send({"is": "told", "what": "failed", "rank": None, "text": job.failed_by})
        if not isinstance(told, Tell):
            if isinstance(told, Exited) and told.rank == self._job.spec.debug_rank:
                self._wire.send({"is": "told", "what": "let-go", "rank": told.rank, "text": "the terminal is free"})
            if self._job.spec.events and isinstance(told, Fact):
                self._wire.send({"is": "fact", "name": type(told).__name__, "fact": to_data(told)})
            return
        message: Message = {"is": "told", "what": told.what, "rank": told.rank, "text": told.because}
        if told.what in ("all-ready", "judged", "spawned"):
            known = self.known()
            if told.what == "judged" and self._heals(known):
                message["what"] = "attempt-failed"
            elif told.what == "judged":
                message["verdict"] = known.to_dict()
            self._wire.send(message)
            if told.what == "judged":
                self.judged(known)
            self._files.state(known)
        else:
            self._wire.send(message)
            if told.what == "note":  # a warning, which whoever looks at a live run should see
                self._files.state(self.known())

    def known(self) -> Verdict:
        """What is known so far, in the verdict's shape."""
        return verdict(self._job.case().replace(now=self._clock()), __version__)


def _stop(ask: Message, now: float) -> StopRequested:
    sender = Sender(**ask["sender"]) if ask["sender"] else None
    return StopRequested(now, ask["signal"], sender, ask["grace"], ask["at_once"], ask["by"])
