"""Failing, stopping, judging, sweeping: what follows from the first failure or from a request to end.

The order is always the same: look, stop, wait for the suspects, judge, sweep, finish. Only `_hold` departs from it
(docs/decisions/0004-hold-the-stop.md). Used by the cells of the table in `ranks.py` and `jobs.py`.

A job that is suspended goes on when it is to end: each way to an end calls `resume`. SIGCONT comes after the signal to
end, so that a rank meets that first, and not the loss of its peers.
"""

from rankguard.core.clocks import Orders, resume, wake
from rankguard.core.job import Job, RankState
from rankguard.core.policy import BOUND, ECHO, GATHER, HEARD, HOLD, LINGER, MUSTER, RECORDS, SETTLE, SUSPECTS
from rankguard.facts import Exited, JobStarted, StopRequested
from rankguard.orders import Finish, GiveUp, Judge, Look, Order, SignalAll, SignalRank, Spawn, Sweep, Tell

SIGABRT, SIGKILL, SIGPIPE, SIGTERM, SIGCONT = 6, 9, 13, 15, 18

MOST_WARNINGS = 50


def suspect(job: Job, rank: RankState, at: float) -> None:
    """Count a rank among those who may have failed first; unresolved until it has ended or said why it fails."""
    if rank.failed_at is None:
        rank.failed_at = at
    rank.suspect = True
    job.suspects.add(rank.rank)
    if (
        not rank.gone
        and (rank.report is None or rank.report.report.how == "exit")
        and rank.broken is None
        and rank.not_spawned is None
        and not rank.late
    ):
        job.unresolved.add(rank.rank)
    weigh(job, rank)


def weigh(job: Job, rank: RankState) -> None:
    """A suspect has said more of itself."""
    if rank.suspect and not job.own_failure and not _may_be_a_victim(rank):
        job.own_failure = True


def fail(
    job: Job,
    rank: RankState,
    at: float,
    by: str,
    because: str,
    *,
    of_peer: bool = False,
    echo: bool = False,
    timed_out: bool = False,
) -> Orders:
    """A rank failed by itself. The first failure stops the job; a later one before the stop is a co-suspect.

    `of_peer`: by what a peer's death does. `echo`: in a way in which others may have failed before, and say so later.
    `timed_out`: the peer did not come to a collective; then those are looked at that do not say so, too.
    """
    suspect(job, rank, at)
    first = job.failed_at is None
    if first:
        job.failed_at, job.failed_by = at, by
        accuse(job)
    job.remember(at, because)
    if of_peer:
        go_on = resume(job, at, because)
        muster = begin_muster(job, at) if timed_out and (first or job.holding) else ()
        if not first:
            return (*muster, *go_on_holding(job, at))
        job.holding = True
        return (Look(because), *go_on, *muster)
    job.awaits_muster = False  # a better reason has come
    return stop_for_failure(job, at, because, echo=echo)


def go_on_holding(job: Job, at: float) -> Orders:
    """One more rank has only lost a peer. There is nothing left to wait for once all have been heard."""
    if job.holding and job.spec.watch is None and len(job.heard) == job.spec.nprocs:
        return stop_for_failure(job, at, "every rank has ended or lost a peer")
    return judge_when_resolved(job)


def begin_muster(job: Job, at: float) -> Orders:
    """A collective timed out: see who does not say the same in a moment (`muster.py`). Once in a job's life."""
    if job.mustering or job.spec.adopted or job.spec.share is not None:  # of a share the coordinator asks for it
        return ()
    job.mustering = job.awaits_muster = True
    because = "a collective timed out: who did not come to it is looked at before anybody is stopped"
    return (wake(job, "muster", at + GATHER, because), wake(job, "hold", at + MUSTER, because))


def accuse(job: Job) -> None:
    """Ranks that told their parent of a failure and live on: whatever else fails now, they had failed before."""
    for rank in job.ranks:
        if rank.complained_at is not None and not rank.gone and rank.pid is not None:
            rank.accused = True
            suspect(job, rank, rank.complained_at)


def stop_for_failure(
    job: Job, at: float, because: str, *, echo: bool = False, spare: tuple[int, ...] | None = None
) -> Orders:
    """Look at all ranks, then tell all to end. Ranks that reported an exception end by themselves (of `spare`, if given)."""
    job.holding = False
    if job.stopped_at is not None:
        return judge_when_resolved(job)
    for number in sorted(job.leaving):
        if not job.ranks[number].gone:
            suspect(job, job.ranks[number], at)
    spared = tuple(rank for rank in _spared(job) if spare is None or rank in spare)
    job.spared = frozenset(spared)
    job.looked = None
    go_on = resume(job, at, because)
    job.stopped_at = at
    orders: list[Order] = [Look(because)]
    if not job.spec.adopted:
        job.remember(at, "told the other ranks to end")
        orders.append(SignalAll(because, SIGTERM, spared))
        orders += go_on
        orders.append(wake(job, "grace", at + job.spec.grace, "grace"))
        if spared:
            orders.append(wake(job, "settle", at + SETTLE, "they report an exception and end by themselves"))
    orders.append(wake(job, "suspects", at + SUSPECTS, "the suspects' endings are awaited"))
    if job.spec.nodes is not None:
        echo = True  # what has happened on other nodes may still be on its way
        orders += _await_nodes(job, at)
    if echo and not job.spec.adopted and len(job.heard) < job.spec.nprocs:
        job.echoing = True
        orders.append(wake(job, "echo", at + ECHO, "another rank may have failed before, and tell it later"))
    return tuple(orders)


def _await_nodes(job: Job, at: float) -> Orders:
    """Who only lost a peer may have lost a node of which nothing is heard, and which is not yet called lost."""
    assert job.failed_at is not None  # else nothing is stopped for it
    if job.ranks_lost or not job.suspects or job.own_failure:
        return ()
    job.awaits_nodes, job.heard_by = True, job.failed_at + HEARD
    return (wake(job, "nodes", max(at, job.heard_by), "ranks lost a peer: every node is to be heard of first"),)


def _may_be_a_victim(rank: RankState) -> bool:
    """It only lost a peer, or has not yet said why it fails."""
    if rank.not_spawned is not None or rank.broken is not None or rank.late:
        return False
    if rank.report is not None and (rank.report.report.how != "exit" or rank.report.peer_death is not None):
        return rank.report.peer_death is not None
    return rank.exited is None or ended_of_peer(rank.exited)


def ended_of_peer(fact: Exited) -> bool:
    """It ended as those do that lose a peer: with the words for it, or by writing to a closed connection. A log may hold
    such words from before, so that other signals are no answer to a peer's death.
    """
    if fact.ending.kind != "signal":
        return fact.peer_death is not None
    return fact.ending.number == SIGPIPE or (fact.ending.number == SIGABRT and fact.peer_death is not None)


def _spared(job: Job) -> tuple[int, ...]:
    """Those that reported an exception and end by themselves, with their own code. Not those that only lost a peer,
    unless nobody else can be to blame: their endings tell nothing, and everybody would wait for them.
    """
    suspects = [job.ranks[number] for number in sorted(job.suspects)]
    only_victims = all(_lost_a_peer(rank) for rank in suspects)
    return tuple(r.rank for r in suspects if _ends_by_itself(r) and (only_victims or not _lost_a_peer(r)))


def _ends_by_itself(rank: RankState) -> bool:
    return not rank.gone and rank.report is not None and rank.report.report.how in ("exception", "exit")


def _lost_a_peer(rank: RankState) -> bool:
    said = rank.report or rank.exited
    return said is not None and said.peer_death is not None


def warn(job: Job, statement: str) -> Orders:
    """Each once, and no more of them than somebody reads."""
    if len(job.warnings) < MOST_WARNINGS and statement not in job.warnings:
        job.warnings.append(statement)
        return (Tell(statement, "note"),)
    return ()


def leave(job: Job, at: float, because: str) -> Orders:
    """Let go of an engine that is somebody else's, at once and as it is: nobody is signalled, nobody is waited for."""
    if job.stopped_at is None:
        job.stopped_at = at
    job.finished = True
    job.remember(at, f"{because}: the engine is left as it is")
    return (Finish(f"{because}: the engine is left as it is"),)


def stop_on_request(job: Job, fact: StopRequested) -> Orders:
    """End the job because somebody outside asks for it: forward the signal, start the clock of a request."""
    because = f"asked to end by {asker(fact)}"
    if job.attached:
        job.stop = job.stop or fact
        return leave(job, fact.at, because)
    go_on = resume(job, fact.at, because)
    job.stop, job.stopped_at = fact, fact.at
    job.remember(fact.at, because)
    orders: list[Order] = [SignalAll(because, fact.signal), *go_on]
    if job.spec.share is not None:
        orders.insert(0, Look(because))  # the coordinator cannot, and asks since a rank has failed
    limit = job.spec.shutdown_timeout if fact.grace is None else fact.grace
    if fact.at_once:
        return (*orders, *kill(job, fact.at, because))
    if limit > 0:
        orders.append(wake(job, "shutdown", fact.at + limit, "shutdown timeout"))
    return (*orders, Tell(because, "stopping"))


def asker(fact: StopRequested) -> str:
    return f"signal {fact.signal}" if fact.by == "signal" else fact.by


def kill(job: Job, at: float, because: str) -> Orders:
    """SIGKILL for all that is left, ranks and whatever they started, and the bound for it."""
    if job.killed_at is not None or job.tree is not None:
        return ()
    go_on = resume(job, at, because)
    if job.stopped_at is None:
        job.stopped_at = at
    job.killed_at = job.sweeping_at = at
    job.remember(at, f"killed what was left: {because}")
    return (Sweep(because, kill=True), wake(job, "bound", at + BOUND, "a tree that refuses to become empty"), *go_on)


def judge_when_resolved(job: Job, because: str = "every suspect has ended or said why it fails") -> Orders:
    """The verdict waits for the suspects' statuses; once they are there it waits for nothing."""
    if job.awaits_muster or job.failed_at is None or job.judging or job.holding or job.looked is None or job.unresolved:
        return ()
    if job.echoing and len(job.heard) < job.spec.nprocs:
        return ()
    if job.awaits_nodes and not job.own_failure:
        return ()
    return judge(job, because)


def judge(job: Job, because: str) -> Orders:
    """Once in a job's life."""
    if job.judging:
        return ()
    job.judging = True
    return (Judge(because),)


def all_ended(job: Job, at: float) -> Orders:
    """The last rank has ended: judge with what is known, and end what the ranks have left behind."""
    job.ended_at = at
    orders: list[Order] = []
    job.unresolved.clear()
    job.holding = job.echoing = job.awaits_nodes = False  # nothing ran on a node that was not heard of
    orders += judge_when_resolved(job, "all ranks have ended")
    if job.spec.adopted:
        return tuple(orders)
    if job.sweeping_at is None:
        job.sweeping_at = at
        because = "all ranks have ended"
        go_on = resume(job, at, because)
        orders += (Sweep(because), *go_on)
        began = at if job.stopped_at is None else job.stopped_at + job.lost_while_stopping
        orders.append(wake(job, "sweep", max(at, began + job.spec.grace), "grace of what the ranks left behind"))
    return (*orders, *finish_when_done(job))


def finish_when_done(job: Job) -> Orders:
    """Ended, judged, reaped and empty are separate facts; the job is over when all four are there."""
    judged = job.failed_at is None or job.judged is not None
    accounted = job.reaped == job.ended == job.spec.nprocs or (job.tree is not None and bool(job.tree.survivors))
    if job.finished or job.tree is None or not judged or not accounted:
        return ()
    job.finished = True
    if job.tree.survivors:
        return (Finish("what refuses to die is named"),)
    return (Finish("all ranks have ended, are judged and reaped, and no process is left"),)


# ── Deadlines, by name ───────────────────────────────────────────────────────────────────────────────────────────


def complaint_passed(job: Job, at: float) -> Orders:
    """A rank told its parent of a failure by a signal, and did not end."""
    if job.failed_at is not None or job.stopped_at is not None:
        return ()
    waiting = [rank for rank in job.ranks if rank.complaint_due is not None and not rank.gone]
    late = [rank for rank in waiting if rank.pid is not None and _due(rank) <= at]
    if not late:
        soonest = min((max(_due(rank), at + 1.0) for rank in waiting), default=None)
        return () if soonest is None else (wake(job, "complaint", soonest, "another rank told of a failure later"),)
    job.failed_at, job.failed_by = at, "complaint"
    accuse(job)
    which = ", ".join(str(rank.rank) for rank in late)
    because = f"rank {which} had sent its parent a signal that ends a process, and did not end"
    job.remember(at, because)
    return stop_for_failure(job, at, because)


def _due(rank: RankState) -> float:
    return 0.0 if rank.complaint_due is None else rank.complaint_due


def hold_passed(job: Job, at: float) -> Orders:
    """No better culprit came while the stop was held. On a job that is going to pieces it is held on."""
    if (
        job.awaits_muster
        and job.ended == job.spec.nprocs
        and job.failed_at is not None
        and at < job.failed_at + RECORDS
    ):
        return (wake(job, "hold", job.failed_at + RECORDS, "all ranks have ended; what they left is still being read"),)
    job.awaits_muster = False
    if not job.holding:
        return judge_when_resolved(job, "what is known of a collective that timed out takes too long")
    if job.mustering:
        return stop_after_muster(job, at)
    if job.spec.share is not None:
        return stop_for_failure(job, at, "a rank lost a peer, and the coordinator did not say what to do")
    unheard = job.spec.nprocs - len(job.heard)
    leaving = job.leaving - job.heard
    in_clean_up = not job.unresolved and job.spawned == job.spec.nprocs and unheard <= len(job.heard)
    if not job.lingering and (leaving or in_clean_up):
        job.lingering = True
        because = f"{len(job.heard)} ranks have ended or lost a peer; who began it may be in its clean-up"
        if leaving:
            because = f"rank {min(leaving)} is leaving with an exit code"
        return (wake(job, "hold", at + LINGER - HOLD, because),)
    return stop_for_failure(job, at, "a rank lost a peer, and no other failure came")


def echo_passed(job: Job, _at: float) -> Orders:
    """Who has not told of an earlier failure by now has none to tell of."""
    job.echoing = False
    return judge_when_resolved(job)


def stop_after_muster(job: Job, at: float) -> Orders:
    """Who was stopped (SIGSTOP) hears SIGTERM only when it goes on."""
    because = "a collective timed out, and no other failure came"
    return (*stop_for_failure(job, at, because), SignalAll(because, SIGCONT, ends=False))


def settle_passed(job: Job, at: float) -> Orders:
    """A rank that reported an exception has not ended by itself (a thread of it keeps it alive)."""
    lingering = [rank for rank in sorted(job.spared) if not job.ranks[rank].gone]
    if lingering:
        job.spared_signalled_at = at
    return tuple(SignalRank("it reported an exception and did not end", rank, SIGTERM) for rank in lingering)


def suspects_passed(job: Job, at: float) -> Orders:
    """A suspect takes too long to end: judge without its status."""
    job.unresolved.clear()
    return judge_when_resolved(job, "a suspect takes too long to end")


def clock_passed(job: Job, at: float) -> Orders:
    """The grace or the shutdown timeout is over."""
    return kill(job, at, "its time to end by itself was over")


def sweep_passed(job: Job, at: float) -> Orders:
    """What the ranks left behind did not end when asked."""
    return kill(job, at, "left behind by ranks and did not end when asked")


def bound_passed(job: Job, at: float) -> Orders:
    """Something refuses to die."""
    return (GiveUp("the bound for an empty tree was over"),) if job.tree is None else ()


def launch_orders(job: Job, fact: JobStarted) -> Orders:
    """Everything that starts with the job."""
    orders: list[Order] = []
    here = not job.spec.shown_elsewhere  # else the coordinator's core has all ranks, and their clocks
    if job.spec.ready_timeout is not None and here:
        job.ready_by = fact.at + job.spec.ready_timeout
        orders.append(wake(job, "ready", job.ready_by, "--ready-timeout"))
    if job.spec.stall_timeout is not None and here:
        orders.append(wake(job, "stall", fact.at + job.spec.stall_timeout, "--stall-timeout"))
    if not job.spec.adopted:
        orders.insert(0, Spawn("the job begins", 0, job.spec.nprocs - 1))
    return tuple(orders)
