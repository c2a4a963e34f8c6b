"""An agent's end of the link to the coordinator: what its ranks do goes up, orders of the whole job come down.

Of one node's part of a job on several machines (`spec.share`). A local death is acted on by this node's own core; here it
is only told, with every turn of the loop. No rank waits for the network: output that the link does not take is dropped
and counted, and the node's own files have it. Read next: `../../nodes/link.py`, `../../launchers/fleet.py` (the other end).
"""

import os
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import TYPE_CHECKING, Any

from rankguard._version import __version__
from rankguard.core.job import Job
from rankguard.diagnosis.verdict import verdict
from rankguard.driver import URGENT
from rankguard.facts import (
    Complained,
    Degraded,
    Exited,
    Extended,
    Fact,
    FailureReported,
    FrontLost,
    GpusRead,
    Judged,
    KernelKilled,
    KernelNoted,
    LeavingTold,
    Looked,
    MemoryShort,
    NodeLost,
    NodeStopping,
    NotSpawned,
    OomSeen,
    OutputClosed,
    ProtocolBroken,
    Ready,
    Reaped,
    Resumed,
    Signalled,
    SignalPassed,
    Spawned,
    StatusTold,
    StopRequested,
    Surveyed,
    Suspended,
    WardenLost,
    Warned,
)
from rankguard.jobspec import JobSpec, Share
from rankguard.launchers.contract import Told
from rankguard.model import Sign, Verdict
from rankguard.nodes.link import Dialing, Link
from rankguard.nodes.mapping import to_wire
from rankguard.nodes.tcp import shown
from rankguard.orders import Order, SignalAll, Sweep
from rankguard.record import to_data
from rankguard.report.wording import size
from rankguard.wire import Message

if TYPE_CHECKING:
    from rankguard.supervisor.attempt import LiveAttempt

SIGKILL, SIGTERM, SIGCONT, SIGSTOP, SIGTSTP = 9, 15, 18, 19, 20
UP = frozenset({
    Complained, Degraded, Exited, Extended, FailureReported, FrontLost, GpusRead, KernelKilled, KernelNoted, LeavingTold,
    Looked, MemoryShort, NotSpawned, OomSeen, OutputClosed, ProtocolBroken, Ready, Reaped, Spawned, StatusTold,
    StopRequested, Surveyed, WardenLost, Warned,
})  # fmt: skip
"""What the coordinator's core is told. The others are this node's own decisions, which it makes for all nodes."""
BY_COORDINATOR = "node"
"""`StopRequested.to` of one that came down the link: it does not go up again."""
_SIGNS_S = 1.0
_PAYLOAD = 32 << 20
"""Bytes of a rank's payload that travel."""


class Uplink:
    """Of one agent's run; it outlives an attempt."""

    def __init__(
        self, spec: JobSpec, selector: BaseSelector, clock: Callable[[], float], tell: Callable[[str], None]
    ) -> None:
        assert spec.share is not None
        self._spec, self._selector, self._clock, self._tell = spec, selector, clock, tell
        self._share: Share = spec.share
        self._link: Link | None = None
        self._writing = False
        self._facts: list[tuple[str, dict[str, Any]]] = []
        self._attempt: LiveAttempt | None = None
        self._signs_at = 0.0
        self._began, self._said_at = clock(), 10.0
        self._told_at = self._began
        self._standing: Message | None = None
        self._begun: Share | None = None
        self.again = False
        """Another attempt is to be made."""
        self.final: Verdict | None = None
        """The verdict of the whole job, once the coordinator has told it."""
        self.lost: NodeLost | None = None
        """Nothing more comes from the coordinator."""
        hello: Message = {
            "node": self._share.node,
            "name": spec.node,
            "nproc": spec.nprocs,
            "pid": os.getpid(),
            "count": self._share.count,
        }
        self._dialing: Dialing | None = Dialing(self._share.host, self._share.port, self._share.token, hello, clock)
        self._dialing.watch(selector, (URGENT, self._on_dialing))

    # ── Of one attempt ───────────────────────────────────────────────────────────────────────────────────────────

    def serve(self, attempt: "LiveAttempt") -> None:
        """From now on it is this attempt that is told and asked; its ranks are held back until all nodes have theirs."""
        self._attempt, self.again = attempt, False
        self._standing = {"is": "standing", "port": attempt.port}
        self._send(self._standing)

    def listen(self, told: Fact | Order) -> None:
        """Every fact, before its orders; every order, once it is done."""
        before, self._told_at = self._told_at, self._clock()
        if isinstance(told, SignalAll | Sweep):
            self._tell_stopping(told, before)
        if type(told) in UP and not (isinstance(told, StopRequested) and told.to == BY_COORDINATOR):
            assert isinstance(told, Fact)
            self.tell(told)
        elif isinstance(told, Signalled):
            self._flush_facts()  # the other nodes wait for this; what is surveyed next can wait

    def tell(self, fact: Fact) -> None:
        """A fact that is the coordinator's alone."""
        self._facts.append(to_wire(fact))

    def _tell_stopping(self, order: SignalAll | Sweep, at: float) -> None:
        """What ranks do of a signal of ours is not to be held against them; what they did before it is.

        `at`: before the first of them was signalled. Afterwards some may have ended already.
        """
        job = self._attempt.job if self._attempt is not None else None
        if isinstance(order, Sweep) and (job is None or job.ended == job.spec.nprocs):
            return  # what they left behind is nobody's failure
        if order.kill if isinstance(order, Sweep) else order.ends:
            number = SIGKILL if isinstance(order, Sweep) else order.signal
            self.tell(NodeStopping(at, 0, self._spec.node, order.because, number))

    def tee(self, output: Told) -> Told:
        """What ranks print goes on to `output`, and up."""
        return _Tee(output, self)

    def feed(self, rank: int, which: int, data: bytes) -> None:
        """Bytes of a rank's stdout or stderr."""
        self._flush_facts()
        if self._link is not None:
            said: Message = {"is": "out", "rank": rank, "which": which, "data": data.decode("latin-1")}
            self._link.send_output(said, len(data))

    def payload(self, rank: int, payload: bytes | None, fd: int | None) -> None:
        """A rank's readiness: JSON, or the file that has it."""
        if fd is not None:
            size = os.fstat(fd).st_size
            payload = os.pread(fd, size, 0) if size <= _PAYLOAD else None
            if payload is None and self._attempt is not None:
                self._attempt.driver.warn(
                    f"the payload of a rank has {size} bytes; across nodes at most {_PAYLOAD} travel: it is told as null"
                )
        self._send({"is": "payload", "rank": rank, "json": (payload or b"null").decode()})

    # ── A part of the attempt ────────────────────────────────────────────────────────────────────────────────────

    def next_wake(self) -> float | None:
        saying = self._began + self._said_at if self._begun is None else float("inf")
        if self._dialing is not None:
            due = [self._dialing.next_wake(), self._began + self._share.join_timeout, saying]
            return min(at for at in due if at is not None)
        if self._link is None or self.final is not None:
            return None
        return min(self._signs_at + _SIGNS_S, self._link.last_heard + self._share.orphan_timeout, saying)

    def wake(self, now: float) -> None:
        """What is due: facts go up, the coordinator is dialled, its silence is noticed."""
        if self._begun is None and now >= self._began + self._said_at:
            self._say_what_is_waited_for(now - self._began)
        if self._dialing is not None:
            self._dialing.wake(now)
            self._look_at_dialing(now)
            if self._dialing is not None and now >= self._began + self._share.join_timeout:
                why = self._dialing.last_error or "nobody answers"
                self._dialing.close()
                self._dialing = None
                self._lose(now, "never", f"it could not be reached within {self._share.join_timeout:g} s: {why}")
            return
        if self._link is None or self.final is not None:
            return
        self._flush_facts()
        if now >= self._signs_at + _SIGNS_S:
            self._signs_at = now
            self._tell_signs(now)
        if now - self._link.last_heard >= self._share.orphan_timeout:
            self._on_link(now)  # it may be we who were stopped
        if self._link is None:
            return
        silent = now - self._link.last_heard
        if silent >= self._share.orphan_timeout:
            self._lose(now, "silent", f"nothing was heard of it for {silent:.1f} s", silent)
        self._watch_writing()

    def _say_what_is_waited_for(self, waited: float) -> None:
        """As readiness is, at 10, 30, 60 s and each minute."""
        self._said_at = {10.0: 30.0, 30.0: 60.0}.get(self._said_at, self._said_at + 60.0)
        if self._dialing is not None:
            why = f": {self._dialing.last_error}" if self._dialing.last_error else ""
            self._tell(f"{waited:.0f} s: waiting for node 0 at {shown(self._share.host, self._share.port)}{why}")
        elif self._link is not None:
            self._tell(f"{waited:.0f} s: node 0 is reached; waiting for the other nodes")

    def _flush_facts(self) -> None:
        if self._facts and self._link is not None:
            facts, self._facts = self._facts, []
            self._send({"is": "facts", "facts": facts})

    def _tell_signs(self, now: float) -> None:
        attempt = self._attempt
        if attempt is None or attempt.job.finished:
            return
        signs: tuple[Sign, ...] = attempt.driver.launcher.signs(now)
        self._send({"is": "signs", "signs": [to_data(sign) for sign in signs], "held": attempt.sampled()})

    # ── The link ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, message: Message) -> None:
        if self._link is not None:
            self._link.send(message)
            self._watch_writing()

    def _watch_writing(self) -> None:
        link = self._link
        if link is None or link.closed or link.pending == self._writing:
            return
        self._writing = link.pending
        events = EVENT_READ | (EVENT_WRITE if self._writing else 0)
        self._selector.modify(link, events, (URGENT, self._on_link))

    def _on_dialing(self, now: float) -> None:
        if self._dialing is not None:
            self._dialing.wake(now)
            self._look_at_dialing(now)

    def _look_at_dialing(self, now: float) -> None:
        dialing = self._dialing
        assert dialing is not None
        if dialing.link is not None:
            self._link, self._dialing = dialing.link, None
            self._selector.register(self._link, EVENT_READ, (URGENT, self._on_link))
            if self._standing is not None:
                self._send(self._standing)
            self._on_link(now)
        elif dialing.refused is not None:
            self._dialing = None
            dialing.close()
            self._lose(now, "refused", dialing.refused)

    def _on_link(self, now: float) -> None:
        link = self._link
        if link is None:
            return
        link.flush()
        for message in link.receive():
            self._take(message, now)
        if link.closed and self.final is not None:
            self.close()
        elif link.closed and self._link is link:
            said = f" ({link.error})" if link.error else ""
            self._lose(now, "closed", f"its end of the connection is closed{said}")
        self._watch_writing()

    def _take(self, message: Message, now: float) -> None:
        match message.get("do"):
            case "ping":
                self._send({"is": "pong", "t": message["t"], "mine": self._clock()})
            case "again":
                self.again = True
            case "finish":
                self.final = Verdict.from_dict(message["verdict"])  # the link is let go of once that is in our files
                # One that had not begun, or that nobody waits for any longer.
                if self._attempt is not None and not self._attempt.job.finished:
                    self._stop(self._attempt, now, SIGTERM, "the job, which is over", 0.0, at_once=True)
            case _ if self._attempt is not None and not self._attempt.job.finished:
                self._ordered(self._attempt, message, now)

    def _ordered(self, attempt: "LiveAttempt", message: Message, now: float) -> None:
        """What is asked of an attempt that has not ended."""
        match message.get("do"):
            case "go":
                parts = {name: message[name] for name in ("node", "first_rank", "world_size", "run_id")}
                self._begun = self._share.replace(**parts)
                attempt.begin(self._begun, message["master_addr"], message["master_port"])
            case "signal" if message["ends"]:
                spare, patience = tuple(message["spare"]), float(message["patience"])
                self._stop(attempt, now, message["signal"], message["because"], patience, spare=spare)
            case "signal":
                self._pass_signal(attempt, message["signal"], now)
            case "kill":
                self._stop(attempt, now, SIGTERM, message["because"], 0.0, at_once=True)
            case "signal-rank":
                attempt.driver.launcher.signal_rank(message["rank"], message["signal"])
            case "examine":
                attempt.examine(message["number"], now)
            case "stacks":
                self._stacks(attempt, message, now)

    @staticmethod
    def _pass_signal(attempt: "LiveAttempt", number: int, now: float) -> None:
        if number in (SIGSTOP, SIGTSTP):
            attempt.take(Suspended(now))
        elif number == SIGCONT and attempt.job.suspended_at is not None:
            attempt.take(Resumed(now))
        else:
            attempt.take(SignalPassed(now, number))

    def _stop(
        self, attempt: "LiveAttempt", now: float, number: int, because: str, patience: float, *,
        at_once: bool = False, spare: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        if attempt.job.stopped_at is None or at_once:
            attempt.take(StopRequested(now, number, None, patience, at_once, because, BY_COORDINATOR, spare))

    def _stacks(self, attempt: "LiveAttempt", message: Message, now: float) -> None:
        number = message["id"]

        def answer(reply: Message) -> None:
            self._send({"is": "answer", "id": number, "answer": reply})

        attempt.desk.later["stacks"]({"do": "stacks", "rank": message["rank"], "data": True}, now, answer)

    def _lose(self, now: float, how: str, statement: str, silent_s: float = 0.0) -> None:
        """Nobody is left who speaks for the whole job: this node's ranks end."""
        self.close()
        if self.lost is not None:
            return
        name = self._share.host if how in ("closed", "silent") else shown(self._share.host, self._share.port)
        self.lost = NodeLost(now, 0, name, how, statement, silent_s)
        if self._attempt is not None:
            self._attempt.take(self.lost)

    def close(self) -> None:
        """Let go. The coordinator waits for that when it has told the verdict of the whole job."""
        if self._dialing is not None:
            self._dialing.close()
            self._dialing = None
        if self._link is not None:
            self._selector.unregister(self._link)
            self._link.close()
            self._link = None

    # ── After an attempt ─────────────────────────────────────────────────────────────────────────────────────────

    pids: frozenset[int] = frozenset()
    """Children of ours that are no part of the job."""

    def done(self, job: Job, _final: Verdict) -> None:
        """Nothing is left of the attempt on this node."""
        if self._link is not None and self._link.dropped_bytes:
            lost, self._link.dropped_bytes = size(self._link.dropped_bytes), 0
            self.tell(
                Warned(self._clock(), f"{lost} of what its ranks printed did not reach node 0; its own files have it")
            )
        empty = job.tree
        self._flush_facts()
        if self._link is not None:
            self._link.send_behind({"is": "done", "tree": None if empty is None else to_wire(empty)})
            self._watch_writing()

    def alone(self, final: Verdict, job: Job) -> Verdict:
        """Our own verdict, when there is none of the whole job. Nobody can say that that has succeeded."""
        assert self.lost is not None
        if final.outcome != "failed":
            final = without_coordinator(job, self.lost)
        share = self._begun
        if share is None:
            return final
        last = share.first_rank + self._spec.nprocs - 1
        said = f"this is the verdict of node {share.node} alone: what it calls rank 0 to {self._spec.nprocs - 1}"
        said += f" are ranks {share.first_rank} to {last} of {share.world_size}"
        return final.replace(warnings=(*final.warnings, said))

    @property
    def waits(self) -> bool:
        """The attempt is over, and what the coordinator makes of it is still to come."""
        return self.final is None and self.lost is None and not self.again


def without_coordinator(job: Job, lost: NodeLost) -> Verdict:
    """Of a node whose ranks have not failed, and that nobody tells what became of the others."""
    at = lost.at
    case = job.case().replace(now=at, failed_at=at, failed_by="node-lost", stop=None, lost_nodes=(lost,))
    judged = Judged(at, None, "node-lost", 1, basis="the coordinator was lost", node=lost.node)
    return verdict(case.replace(judged=judged), __version__)


class _Tee:
    """`Told` twice."""

    def __init__(self, output: Told, uplink: Uplink) -> None:
        self._output, self._uplink = output, uplink
        self.ended, self.tail, self.log_of = output.ended, output.tail, output.log_of

    def feed(self, rank: int, which: int, data: bytes, now: float) -> None:
        self._output.feed(rank, which, data, now)
        self._uplink.feed(rank, which, data)
