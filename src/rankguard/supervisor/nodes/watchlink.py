"""One node's end of the link when an engine is watched over several nodes (`watch --nnodes`).

The engine here is watched as on one machine, by this node's own core, and waits for nobody. Up goes what concerns the
other nodes: that this engine is being ended for a failure, that somebody asked it to end, and in the end its verdict.
Down comes the order to end, and the verdict that all nodes give. What was told is told again on a new connection.

A coordinator that cannot be reached for `--orphan-timeout` is a node that was lost: its engine is gone, or cannot be
known of, and a part of an engine without the others is of no use. One that was never reached keeps no engine from
running. Not here: the coordinator (`council.py`), ranks that are launched (`uplink.py`).
"""

import os
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import TYPE_CHECKING

from rankguard.core.job import Job
from rankguard.diagnosis.failure_class import FailureClass, failure_class
from rankguard.driver import URGENT
from rankguard.facts import Degraded, Fact, NodeLost, StopRequested
from rankguard.jobspec import JobSpec, Share
from rankguard.launchers.contract import Told
from rankguard.model import Verdict
from rankguard.nodes.link import Dialing, Link
from rankguard.orders import Order, SignalAll, Sweep, Tell
from rankguard.supervisor.nodes.seat import Seat
from rankguard.supervisor.nodes.uplink import BY_COORDINATOR, SIGTERM, without_coordinator
from rankguard.wire import Message

if TYPE_CHECKING:
    from rankguard.supervisor.attempt import LiveAttempt

_MOST_TOLD = 200
"""Of notes that wait for a link, and of requests to end."""


class WatchLink:
    """Of one run."""

    again = False
    """An engine that is watched is not started again by us."""

    def __init__(
        self, spec: JobSpec, selector: BaseSelector, clock: Callable[[], float], tell: Callable[[str, str], None]
    ) -> None:
        assert spec.share is not None
        assert spec.watch is not None
        self._spec, self._selector, self._clock, self._tell = spec, selector, clock, tell
        self._share: Share = spec.share
        self._reports = spec.watch.on_failure == "report"
        self._link: Link | None = None
        self._dialing: Dialing | None = None
        self._writing = False
        self._attempt: LiveAttempt | None = None
        self._seat: Seat | None = None
        self._lasting: list[Message] = []
        """What every coordinator is to know."""
        self._failing = self._said_late = self._is_done = False
        self._began = clock()
        self._alone_since: float | None = None
        """When the connection was lost, or when this node had nothing left to do but to tell."""
        self._how = "never", ""
        self.final: Verdict | None = None
        """The verdict that all nodes give, once the coordinator has told it."""
        self.lost: NodeLost | None = None
        """Nothing more comes from the coordinator."""
        self._dial()

    @property
    def pids(self) -> frozenset[int]:
        """Children of ours that are no part of the job."""
        return frozenset() if self._seat is None else self._seat.pids

    # ── Of the attempt ───────────────────────────────────────────────────────────────────────────────────────────

    def serve(self, attempt: "LiveAttempt") -> None:
        """From now on its engine is told of. Control groups are made by now, so the coordinator may be started."""
        self._attempt = attempt
        if self._share.coordinator is not None:
            self._seat = Seat(self._spec, self._selector, self._clock, self._tell)

    def tee(self, output: Told) -> Told:
        """Each node shows what its own engine prints."""
        return output

    def tell(self, fact: Fact) -> None:
        """Facts stay here: this node's core decides about its engine."""

    def payload(self, rank: int, payload: bytes | None, fd: int | None) -> None:
        """Readiness is told by each node of its own engine."""

    def listen(self, told: Fact | Order) -> None:
        """Every fact and order, once it is done."""
        job = self._attempt.job if self._attempt is not None else None
        if isinstance(told, Tell) and told.what == "note":
            self._send({"is": "note", "text": told.because})
        elif isinstance(told, StopRequested) and told.to != BY_COORDINATOR:
            self._ask_all(told.signal, at_once=told.at_once)
        elif job is None or not isinstance(told, SignalAll | Sweep):
            pass
        elif job.stop is not None:
            if isinstance(told, Sweep) and told.kill and job.stop.to != BY_COORDINATOR:
                self._ask_all(job.stop.signal, at_once=True)
        elif job.failed_at is not None and job.failed_by != "node-lost" and not self._failing:
            self._failing = True
            self._last({"is": "failing", "at": job.failed_at, "text": told.because})

    def _ask_all(self, number: int, *, at_once: bool) -> None:
        if len(self._lasting) < _MOST_TOLD:
            self._last({"is": "asked", "signal": number, "at_once": at_once})

    def done(self, job: Job, final: Verdict) -> None:
        """Nothing is left of the engine on this node."""
        self._is_done = True
        if self._alone_since is None and self._link is None:
            self._alone_since = self._clock()
        failed = final.outcome == "failed" and job.failed_by != "node-lost"
        rank = job.judged.rank if failed and job.judged is not None else None
        strength = FailureClass.FAILED
        if rank is not None:
            case = job.case()
            strength = failure_class(case, case.ranks[rank])
        self._last({
            "is": "done", "verdict": final.to_dict(), "at": job.failed_at if failed else None, "strength": int(strength),
        })  # fmt: skip

    def alone(self, final: Verdict, job: Job) -> Verdict:
        """Our own verdict, when there is none of all nodes."""
        assert self.lost is not None
        what = f"this is the verdict of this node alone: {self.lost.statement}"
        unknown = final.outcome == "succeeded" and not self._goes_on(self.lost.how)
        if unknown:  # whether the other parts of the engine have ended well nobody can say
            final = without_coordinator(job, self.lost)
        return final if what in final.warnings else final.replace(warnings=(*final.warnings, what))

    @property
    def waits(self) -> bool:
        """The engine here has ended, and what the coordinator makes of it is still to come."""
        waiting = self.final is None and self.lost is None
        if not waiting and self._seat is not None:
            self._seat.close()
            self._seat = None
        return waiting

    # ── A part of the attempt ────────────────────────────────────────────────────────────────────────────────────

    def next_wake(self) -> float | None:
        due = [None if self._seat is None else self._seat.next_wake()]
        if self._dialing is not None:
            due += [self._dialing.next_wake(), self._patient_until()]
        elif self._link is not None:
            due.append(self._link.last_heard + self._longest_silence)
        return min((at for at in due if at is not None), default=None)

    def wake(self, now: float) -> None:
        """What is due: the coordinator is dialled, or started again; its silence is noticed."""
        if self._seat is not None:
            self._seat.wake(now)
        if self._dialing is not None:
            self._on_dialing(now)
            until = self._patient_until()
            if self._dialing is not None and until is not None and now >= until:
                self._out_of_patience(now)
        elif self._link is not None:
            silent = now - self._link.last_heard
            if silent >= self._longest_silence:
                self._on_link(now)  # it may be we who were stopped
                silent = 0.0 if self._link is None else now - self._link.last_heard
            if self._link is not None and silent >= self._longest_silence:
                self._on_silence(now, silent)
            self._watch_writing()

    @property
    def _longest_silence(self) -> float:
        """On node 0 half as long: what does not answer there is no node, and the others wait for another one."""
        return self._share.orphan_timeout / (1 if self._seat is None else 2)

    def _on_silence(self, now: float, silent: float) -> None:
        if self._seat is None:
            self._lose(now, "silent", f"nothing was heard of it for {silent:.1f} s", silent)
            return
        self._seat.replace()
        self.close()
        self._how, self._alone_since = ("silent", f"nothing was heard of it for {silent:.1f} s"), now
        self._dial()

    def _patient_until(self) -> float | None:
        if self._alone_since is not None:
            return self._alone_since + self._share.orphan_timeout
        return None if self._said_late else self._began + self._share.join_timeout

    def _out_of_patience(self, now: float) -> None:
        assert self._dialing is not None
        why = self._dialing.last_error or "nobody answers"
        if self._seat is not None and not self._is_done:
            self._alone_since, self._said_late = None, True
            self._warn(f"no coordinator runs on this node ({why}): until one does, this engine is watched alone")
        elif self._alone_since is not None:
            how, first = ("never", "") if self._seat is not None else self._how
            self._lose(now, how, f"{first or 'it was not reached'}: {why}", now - self._alone_since)
        elif self._spec.on_lost == "end":
            self._lose(now, "never", f"it was not reached within {self._share.join_timeout:g} s: {why}")
        else:
            self._said_late = True
            self._warn(f"node 0 was not reached within {self._share.join_timeout:g} s ({why}): until it is, "
                       "this engine is watched alone")  # fmt: skip

    def _warn(self, text: str) -> None:
        if self._attempt is not None and not self._attempt.job.finished:
            self._attempt.driver.warn(text)
        else:
            self._tell("note", text)

    # ── The link ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _dial(self) -> None:
        hello: Message = {
            "node": self._share.node, "name": self._spec.node, "nproc": 0, "pid": os.getpid(), "count": self._share.count,
        }  # fmt: skip
        self._dialing = Dialing(self._share.host, self._share.port, self._share.token, hello, self._clock)
        self._dialing.watch(self._selector, (URGENT, self._on_dialing))

    def _on_dialing(self, now: float) -> None:
        dialing = self._dialing
        if dialing is None:
            return
        dialing.wake(now)
        if dialing.link is not None:
            self._link, self._dialing, self._writing = dialing.link, None, False
            self._alone_since = None
            self._selector.register(self._link, EVENT_READ, (URGENT, self._on_link))
            for message in self._lasting:
                self._send(message)
            self._on_link(now)
        elif dialing.refused is not None:
            self._lose(now, "refused", dialing.refused)

    def _on_link(self, now: float) -> None:
        link = self._link
        if link is None:
            return
        link.flush()
        for message in link.receive():
            self._take(message, now)
        if link.closed and self._link is link:
            self.close()
            said = f" ({link.error})" if link.error else ""
            self._how = "closed", f"its end of the connection was closed{said}"
            self._alone_since = now
            self._dial()
        self._watch_writing()

    def _take(self, message: Message, now: float) -> None:
        attempt = self._attempt
        match message.get("do"):
            case "ping":
                self._send({"is": "pong", "t": message["t"], "mine": self._clock()})
            case "note" | "joining":
                self._tell(message["do"], str(message["text"]))
            case "finish":
                self.final = Verdict.from_dict(message["verdict"])
                self.close()
            case "signal" if attempt is not None and not attempt.job.finished:
                at_once = bool(message["at_once"])
                if attempt.job.stopped_at is None or at_once:
                    grace = self._spec.grace if message["failed"] else None
                    number = SIGTERM if message["failed"] else int(message["signal"])
                    because = str(message["because"])
                    attempt.take(StopRequested(now, number, None, grace, at_once, because, BY_COORDINATOR))

    def _send(self, message: Message) -> None:
        if self._link is not None:
            self._link.send(message)
            self._watch_writing()

    def _last(self, message: Message) -> None:
        self._lasting.append(message)
        self._send(message)

    def _watch_writing(self) -> None:
        link = self._link
        if link is None or link.closed or link.pending == self._writing:
            return
        self._writing = link.pending
        events = EVENT_READ | (EVENT_WRITE if self._writing else 0)
        self._selector.modify(link, events, (URGENT, self._on_link))

    def _lose(self, now: float, how: str, statement: str, silent_s: float = 0.0) -> None:
        """Nobody is left who speaks of the other nodes."""
        self.close()
        if self.lost is not None:
            return
        where = f"{self._share.host}:{self._share.port}"
        self.lost = lost = NodeLost(now, 0, where, how, statement, silent_s)
        if self._attempt is None:
            return
        if self._goes_on(how):
            said = f"node 0 at {where}: {statement}; this engine is watched alone"
            self._attempt.take(Degraded(now, "the other nodes", said))
        else:
            self._attempt.take(lost)

    def _goes_on(self, how: str) -> bool:
        """The engine here goes on without node 0: that is only told."""
        return self._reports or (how in ("never", "refused") and self._spec.on_lost == "keep")

    def close(self) -> None:
        if self._dialing is not None:
            self._dialing.close()
            self._dialing = None
        if self._link is not None:
            self._selector.unregister(self._link)
            self._link.close()
            self._link = None
