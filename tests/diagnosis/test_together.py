"""Two or three failures at random instants over 2 to 16 ranks, and victims of them: what holds for every combination.

The pure core and the diagnosis, with a driver of a few lines: exits are seen when they are complete, reports come when
`finally` blocks are done, SIGTERM ends whoever has not failed by then.
"""

import heapq
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.failure_class import VICTIMS, failure_class
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import (
    DeadlinePassed,
    Exited,
    FailureReported,
    JobStarted,
    Looked,
    Reaped,
    Signalled,
    Spawned,
    TreeEmpty,
)
from rankguard.model import Ending, ExceptionInfo, Report
from rankguard.orders import Finish, Judge, Look, Reap, SignalAll, SignalRank, Sweep, WakeAt
from rankguard.testing.player import new_spec

LOST = "Connection reset by peer"
KILLED, CRASHED = Ending("signal", None, "SIGKILL", 9), Ending("signal", None, "SIGSEGV", 11)
STOPPED = Ending("signal", None, "SIGTERM", 15)
OWN = ("killed", "crashed", "exit", "exception")
LAG = st.floats(0.0, 0.09)
"""From a failure to its news: less than the verdict waits for those that may come late (`policy.ECHO`)."""


class Failure:
    """One rank's failure: of which kind, when, when its report comes and when its end can be seen."""

    def __init__(self, rank, kind, at, report_lag, exit_lag):
        self.rank, self.kind, self.at = rank, kind, at
        self.reports_at = at + report_lag if "exception" in kind else None
        self.exits_at = (self.reports_at or at) + exit_lag

    def __repr__(self):
        return f"Failure({self.rank}, {self.kind!r}, at={self.at!r}, reports_at={self.reports_at!r}, exits_at={self.exits_at!r})"

    def ending(self):
        return {"killed": KILLED, "crashed": CRASHED}.get(self.kind) or Ending("exit", 3 if self.kind == "exit" else 1)

    def peer(self):
        return LOST if self.kind.startswith("victim") else None

    def report(self, at):
        name = "ConnectionResetError" if self.peer() else "ValueError"
        raised = ExceptionInfo(type=name, message=LOST if self.peer() else "bad", frames=(f"train.py:{self.rank} f",))
        return FailureReported(at, self.rank, Report("exception", name, raised, self.at), self.peer())


@st.composite
def failures(draw):
    nprocs = draw(st.integers(2, 16))
    ranks = draw(st.permutations(range(nprocs)))
    count = draw(st.integers(1, min(3, nprocs)))
    made = [
        Failure(rank, draw(st.sampled_from(OWN)), 5 + draw(st.floats(0, 0.05)), draw(LAG), draw(LAG))
        for rank in ranks[:count]
    ]
    first = min(failure.at for failure in made)
    victims = draw(st.integers(0, nprocs - count))
    kinds = st.sampled_from(["victim", "victim exception"])
    made += [
        Failure(rank, draw(kinds), first + draw(st.floats(1e-4, 0.05)), draw(LAG), draw(LAG))
        for rank in ranks[count : count + victims]
    ]
    return nprocs, made


class Play:
    """One job to its end."""

    def __init__(self, nprocs, made):
        self.job, self.steps = Job(new_spec(nprocs)), []
        self.failures = {failure.rank: failure for failure in made}
        self.order, self.events, self.gone = itertools.count(), [], set()
        self.stopped_at = None
        for failure in made:
            self._plan(failure.at, lambda now, failure=failure: self._begins(failure, now))
        self._tell(JobStarted(0.0, 1.8e9))
        for rank in range(nprocs):
            self._tell(Spawned(0.01, rank, 100 + rank))
        while self.events and not self.job.finished:
            at, _, event = heapq.heappop(self.events)
            event(at)

    def failed_by_itself(self, rank):
        failure = self.failures.get(rank)
        return failure is not None and (self.stopped_at is None or failure.at <= self.stopped_at)

    def _plan(self, at, event):
        heapq.heappush(self.events, (at, next(self.order), event))

    def _begins(self, failure, now):
        if not self.failed_by_itself(failure.rank):
            return
        if failure.reports_at is not None:
            self._plan(failure.reports_at, lambda at: self._tell(failure.report(at)))
        self._plan(failure.exits_at, lambda at: self._exit(failure.rank, at, failure.ending(), failure.peer()))

    def _exit(self, rank, at, ending, peer=None):
        if rank not in self.gone:
            self.gone.add(rank)
            self._tell(Exited(at, rank, ending, oom_readable=True, peer_death=peer))

    def _tell(self, fact):
        orders = step(self.job, fact)
        self.steps.append((fact, orders))
        for order in orders:
            self._obey(order, fact.at)

    def _obey(self, order, now):
        match order:
            case Look():
                dying = tuple(
                    (f.rank, "exiting")
                    for f in sorted(self.failures.values(), key=lambda f: f.rank)
                    if f.rank not in self.gone and self.failed_by_itself(f.rank) and (f.reports_at or f.at) <= now < f.exits_at
                )  # fmt: skip
                self._plan(now, lambda at: self._tell(Looked(at, dying)))
            case SignalAll():
                self.stopped_at = now if self.stopped_at is None else self.stopped_at
                for rank in range(len(self.job.ranks)):
                    if rank not in order.spare and not self.failed_by_itself(rank):
                        self._plan(now + 0.001, lambda at, rank=rank: self._exit(rank, at, STOPPED))
                self._plan(now, lambda at: self._tell(Signalled(at, order.signal, 1)))
            case WakeAt():
                self._plan(order.when, lambda at: self._tell(DeadlinePassed(at, order.name, order.generation)))
            case Judge():
                self._plan(now, lambda _at: self._tell(choose(self.job.case())))
            case Reap():
                self._plan(now, lambda at: self._tell(Reaped(at, order.rank)))
            case Sweep():
                self._plan(now, lambda at: self._tell(TreeEmpty(at)))
            case SignalRank() | Finish() | _:
                pass


@settings(max_examples=150, deadline=None)
@given(failures())
def test_what_holds_for_all_combinations(drawn) -> None:
    play = Play(*drawn)
    job, judged, made = play.job, play.job.judged, play.failures
    case = job.case()

    assert job.finished
    assert judged is not None
    assert judged.rank is not None
    assert judged.rank not in judged.either
    # Who was stopped is never the culprit, nor one of those who may have been first, but for want of anybody's own word.
    told = [failure for failure in made.values() if play.failed_by_itself(failure.rank)]
    own = [failure for failure in told if failure.kind in OWN]
    assert play.failed_by_itself(judged.rank)
    # Somebody failed by himself, and all news came in time: no victim is named, nor may have been first.
    assert own
    assert {judged.rank, *judged.either} <= {failure.rank for failure in own}
    # Of failures of one strength the first is named, or may have been it.
    strength = failure_class(case, case.ranks[judged.rank])
    same = [f for f in own if failure_class(case, case.ranks[f.rank]) is strength and case.ranks[f.rank].suspect]
    assert min(same, key=lambda f: f.at).rank in (judged.rank, *judged.either)
    # Whoever failed before the stop has a row that says so.
    rows = {row.rank: row for row in verdict(case.replace(now=job.now), "0").ranks}
    for failure in told:
        related = rows[failure.rank].relation
        if case.ranks[failure.rank].suspect:
            assert related in ("culprit", "independent", "collateral")
        if failure.kind in ("killed", "exception") and case.ranks[failure.rank].suspect and failure.rank != judged.rank:
            assert related == "independent"
        if failure_class(case, case.ranks[failure.rank]) in VICTIMS:
            assert related in ("collateral", "stopped")
    # The journal of facts gives the same again.
    again = Job(job.spec)
    assert [orders for _, orders in play.steps] == [step(again, fact) for fact, _ in play.steps]
    assert choose(again.case()) == choose(case)
