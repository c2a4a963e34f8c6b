"""As `test_together.py`, on several machines: news take their time, clocks are off, agents act by themselves, nodes are lost.

True time is known here, and to nobody in the play: facts carry what the clock of their machine says, within what is told of
it. What holds all the same: nobody who was stopped is named, and the first of the failures that count is named or may have
been it.
"""

import heapq
import itertools
import os

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.diagnosis.test_together import OWN, STOPPED, Failure

from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.failure_class import VICTIMS, failure_class
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import (
    DeadlinePassed,
    Exited,
    JobStarted,
    Looked,
    NodeJoined,
    NodeLost,
    NodeSilent,
    NodeStopping,
    Reaped,
    Signalled,
    Spawned,
    TreeEmpty,
)
from rankguard.jobspec import NodesPlan
from rankguard.orders import Judge, Look, Reap, SignalAll, Sweep, WakeAt
from rankguard.testing.player import new_spec

LAG = st.floats(0.0, 0.05)
"""From a failure to its news on its own machine; with the way to the coordinator less than the verdict waits."""
TIMEOUT = 5.0
EXAMPLES = int(os.environ.get("EXAMPLES", "0"))


class Machine:
    """One node: `latency` to the coordinator, one way; its clock is off by `error`, and that is told to be at most that."""

    def __init__(self, number, latency, error):
        self.number, self.latency, self.error = number, latency, error * latency
        self.told_at = None
        self.lost_at = None
        self.arrives = 0.0

    def __repr__(self):
        return f"Machine({self.number}, {self.latency!r}, {self.error!r}, lost_at={self.lost_at!r}, told_at={self.told_at!r})"


@st.composite
def courses(draw):
    count, each = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    machines = [Machine(n, draw(st.floats(1e-4, 0.02)), draw(st.floats(-1, 1))) for n in range(count)]
    lost = draw(st.sampled_from([None, None, "closed", "silent"]))
    lost_at = 5 + draw(st.floats(0, 0.05))
    if lost is not None:
        machines[draw(st.integers(0, count - 1))].lost_at = lost_at
    ranks = draw(st.permutations(range(count * each)))
    failing = draw(st.integers(0 if lost else 1, min(3, count * each)))
    made = [
        Failure(rank, draw(st.sampled_from(OWN)), 5 + draw(st.floats(0, 0.05)), draw(LAG), draw(LAG))
        for rank in ranks[:failing]
    ]
    first = min([failure.at for failure in made] + ([lost_at] if lost else []))
    victims = draw(st.integers(0, count * each - failing))
    made += [
        Failure(rank, "victim", first + draw(st.floats(1e-4, 0.05)), 0.0, draw(LAG))
        for rank in ranks[failing : failing + victims]
    ]
    return machines, each, made, lost


class Play:
    """One job to its end."""

    def __init__(self, machines, each, made, lost):
        plan = NodesPlan(count=len(machines), nproc=each, node_timeout=TIMEOUT)
        self.job, self.steps = Job(new_spec(len(machines) * each).replace(nodes=plan)), []
        self.machines, self.each = machines, each
        self.failures = {failure.rank: failure for failure in made}
        self.order, self.events, self.gone = itertools.count(), [], set()
        for failure in made:
            self._plan(failure.at, lambda now, failure=failure: self._begins(failure, now))
        self._tell(JobStarted(0.0, 1.8e9), 0.0)
        for machine in machines:
            joined = NodeJoined(0.0, machine.number, "h", machine.number * each, each, uncertainty=machine.latency)
            self._tell(joined, 0.0)
            if machine.lost_at is not None:
                self._lose(machine, lost)
        for rank in range(len(machines) * each):
            self._tell(Spawned(0.01, rank, 100 + rank), 0.01)
        while self.events and not self.job.finished:
            at, _, event = heapq.heappop(self.events)
            event(at)

    def machine(self, rank):
        return self.machines[rank // self.each]

    def failed_by_itself(self, rank):
        failure = self.failures.get(rank)
        told = self.machine(rank).told_at
        return failure is not None and (told is None or failure.at <= told)

    def _plan(self, at, event):
        heapq.heappush(self.events, (at, next(self.order), event))

    # ── On a machine ─────────────────────────────────────────────────────────────────────────────────────────────

    def _begins(self, failure, _now):
        if not self.failed_by_itself(failure.rank):
            return
        if failure.reports_at is not None:
            self._plan(failure.reports_at, lambda at: self._reports(failure, at))
        self._plan(failure.exits_at, lambda at: self._exits(failure.rank, at, failure.ending(), failure.peer()))

    def _reports(self, failure, now):
        machine = self.machine(failure.rank)
        told = failure.report(now + machine.error)
        report = told.report.replace(raised_at=failure.at + machine.error)
        self._send(machine, now, told.replace(report=report))
        if not failure.peer():
            self._stop(machine, now)

    def _exits(self, rank, now, ending, peer=None):
        if rank in self.gone:
            return
        self.gone.add(rank)
        machine = self.machine(rank)
        self._send(machine, now, Exited(now + machine.error, rank, ending, oom_readable=True, peer_death=peer))
        if ending is not STOPPED and not peer:
            self._stop(machine, now)

    def _stop(self, machine, now):
        """Its agent looks, and tells its ranks to end. Who reports an exception ends by itself."""
        if machine.told_at is not None:
            return
        machine.told_at = now
        here = range(machine.number * self.each, (machine.number + 1) * self.each)
        dying = tuple(
            (rank, "exiting")
            for rank in here
            if rank not in self.gone
            and self.failed_by_itself(rank)
            and (self.failures[rank].reports_at or self.failures[rank].at) <= now
        )
        self._send(machine, now, NodeStopping(now + machine.error, machine.number, "h", "it ends", 15, dying))
        for rank in here:
            if not self.failed_by_itself(rank):
                self._plan(now + 0.001, lambda at, rank=rank: self._exits(rank, at, STOPPED))

    def _send(self, machine, now, fact):
        """News arrive in order, and none of what is sent after a loss."""
        if machine.lost_at is not None and now > machine.lost_at:
            return
        machine.arrives = max(machine.arrives, now + machine.latency)
        self._plan(machine.arrives, lambda at: self._tell(fact, at))

    def _lose(self, machine, how):
        at = machine.lost_at
        if how == "closed":
            self._plan(
                at + machine.latency, lambda now: self._tell(NodeLost(now, machine.number, "h", how, "gone"), now)
            )
            return
        self._plan(at + 1, lambda now: self._tell(NodeSilent(now, machine.number, "h", 1.0), now))
        lost = NodeLost(at + TIMEOUT, machine.number, "h", how, "nothing was heard of it", TIMEOUT)
        self._plan(at + TIMEOUT, lambda now: self._tell(lost, now))

    # ── The coordinator ──────────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, fact, now):
        orders = step(self.job, fact)
        self.steps.append((fact, orders))
        for order in orders:
            self._obey(order, now)

    def _obey(self, order, now):
        match order:
            case Look():
                self._plan(now, lambda at: self._tell(Looked(at), at))
            case SignalAll():
                for machine in self.machines:
                    if machine.lost_at is None or now + machine.latency <= machine.lost_at:
                        self._plan(now + machine.latency, lambda at, machine=machine: self._stop(machine, at))
                self._plan(now, lambda at: self._tell(Signalled(at, order.signal, 1), at))
            case WakeAt():
                due = max(now, order.when)
                self._plan(due, lambda at: self._tell(DeadlinePassed(at, order.name, order.generation), at))
            case Judge():
                self._plan(now, lambda at: self._tell(choose(self.job.case().replace(now=at)), at))
            case Reap():
                self._plan(now, lambda at: self._tell(Reaped(at, order.rank), at))
            case Sweep():
                self._plan(now, lambda at: self._tell(TreeEmpty(at), at))


@settings(max_examples=EXAMPLES or 150, deadline=None)
@given(courses())
def test_what_holds_for_all_combinations(drawn) -> None:
    play = Play(*drawn)
    job, judged = play.job, play.job.judged
    case = job.case()
    lost = next((machine for machine in play.machines if machine.lost_at is not None), None)

    assert job.finished
    assert judged is not None
    assert judged.rank is not None or judged.node is not None
    assert judged.rank is None or judged.node is None
    # Who was stopped is never the culprit, nor one of those who may have been first.
    named = {judged.rank, *judged.either} - {None}
    here = {rank for rank in named if play.machine(rank) is not lost}
    assert all(play.failed_by_itself(rank) for rank in here)
    own = [f for f in play.failures.values() if f.kind in OWN and play.failed_by_itself(f.rank) and heard(play, f)]
    if judged.rank is not None and own:
        assert play.failures[judged.rank].kind in OWN
    # The first failure of its strength is named, or may have been it.
    if judged.rank is not None and lost is None:
        strength = failure_class(case, case.ranks[judged.rank])
        same = [f for f in own if failure_class(case, case.ranks[f.rank]) is strength and not at_once(play, f)]
        assert not same or min(same, key=lambda f: f.at).rank in named
    # A node that was lost before anything else, by more than clocks may be off and news under way, is named.
    if lost is not None and all(f.at > lost.lost_at + 0.05 + 0.1 for f in own):
        assert judged.node == lost.number
    # And one that was lost after a rank had failed, and everybody knew, is not.
    if lost is not None and any(f.exits_at + 0.1 < lost.lost_at for f in own):
        assert judged.rank is not None
    rows = verdict(case.replace(now=job.now), "0").ranks
    for failure in play.failures.values():
        if failure_class(case, case.ranks[failure.rank]) in VICTIMS:
            assert rows[failure.rank].relation in ("collateral", "stopped", "culprit")
    again = Job(job.spec)
    assert [orders for _, orders in play.steps] == [step(again, fact) for fact, _ in play.steps]
    assert choose(again.case()) == choose(case)


def heard(play, failure):
    """Its news were sent before its node was lost."""
    machine = play.machine(failure.rank)
    return machine.lost_at is None or (failure.reports_at or failure.exits_at) <= machine.lost_at


def at_once(play, failure):
    """In the instant in which its machine told its ranks to end: that it was before is then nobody's to know."""
    return failure.at == play.machine(failure.rank).told_at
