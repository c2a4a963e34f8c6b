"""The cells of the table that take facts about one rank. Each returns its orders; none does anything else.

A cell is called only for the phases that the table in `machine.py` gives it.
"""

from rankguard.core import members
from rankguard.core.clocks import Orders, disarm, wake_in_time
from rankguard.core.job import Job, RankState
from rankguard.core.policy import COMPLAINT
from rankguard.core.stopping import (
    all_ended,
    begin_muster,
    ended_of_peer,
    fail,
    finish_when_done,
    go_on_holding,
    judge_when_resolved,
    stop_for_failure,
    suspect,
    weigh,
)
from rankguard.facts import (
    Complained,
    Exited,
    Extended,
    FailureReported,
    LeavingTold,
    NotSpawned,
    OutputClosed,
    ProtocolBroken,
    Ready,
    Reaped,
    Spawned,
    StatusTold,
)
from rankguard.model import Ending, Phase
from rankguard.orders import Order, Reap, SignalRank, Tell

SIGKILL, SIGTERM, SIGSTOP = 9, 15, 19
ASKED = (1, 2, SIGTERM)
"""What we send to end a rank, SIGKILL apart."""
COMPLAINTS = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 6: "SIGABRT", 15: "SIGTERM"}
"""Signals to its parent by which a rank says that it failed. Others are recorded and mean nothing to us."""


def spawned(job: Job, rank: RankState, fact: Spawned) -> Orders:
    rank.pid, rank.spawned_at = fact.pid, fact.at
    job.spawned += 1
    job.warm = job.warm or fact.warm
    stands = (SignalRank("the job is suspended", rank.rank, SIGSTOP),) if job.suspended_at is not None else ()
    if job.spawned == job.spec.nprocs:
        job.remember(fact.at, "all ranks started")
        return (*stands, Tell("every rank executes its program", "spawned"))
    return stands


def spawned_while_stopping(job: Job, rank: RankState, fact: Spawned) -> Orders:
    rank.pid, rank.spawned_at = fact.pid, fact.at
    job.spawned += 1
    job.warm = job.warm or fact.warm
    if job.spec.adopted or job.spec.nodes is not None:
        return ()  # the agent of its node has been told, too, and alone can say which signals were its own
    number = SIGTERM if job.stop is None else job.stop.signal
    number = number if job.killed_at is None else SIGKILL
    if number in fact.signals:
        return ()  # a second SIGTERM or SIGINT is more than a repetition: programs give up their clean end at it
    return (SignalRank("the job was told to end while this rank started", rank.rank, number),)


def not_spawned(job: Job, rank: RankState, fact: NotSpawned) -> Orders:
    _never_was(job, rank, fact)
    orders = fail(job, rank, fact.at, "not-spawned", f"rank {rank.rank} was not started: {fact.statement}")
    return (*orders, *_when_all_ended(job, rank, fact.at))


def not_spawned_while_stopping(job: Job, rank: RankState, fact: NotSpawned) -> Orders:
    _never_was(job, rank, fact)
    return _when_all_ended(job, rank, fact.at)


def _never_was(job: Job, rank: RankState, fact: NotSpawned) -> None:
    """There is no process to wait for, and none to reap."""
    rank.not_spawned, rank.phase_at_end = fact, Phase.LAUNCHING
    job.heard.add(rank.rank)
    rank.reaped = True
    job.ended += 1
    job.reaped += 1


def ready(job: Job, rank: RankState, fact: Ready) -> Orders:
    rank.ready_at = fact.at
    job.ready += 1
    orders: list[Order] = [Tell(f"rank {rank.rank} is ready", "ready", rank.rank)]
    orders += expect_readiness(job, fact.at, f"rank {rank.rank} reported readiness")
    if job.ready == job.spec.nprocs:
        job.all_ready_at = fact.at
        job.remember(fact.at, f"all ranks ready, rank {rank.rank} last")
        orders.append(Tell("the last rank is ready", "all-ready", rank.rank))
        if job.due.pop("ready", None) is not None and job.suspended_at is None:
            orders += disarm(job, ("ready",), "the last rank is ready")
    return tuple(orders)


def expect_readiness(job: Job, at: float, because: str) -> Orders:
    """From now on a rank that ends with 0 before it is ready has failed; those that did so already have."""
    if job.expects_ready:
        return ()
    job.expects_ready = True
    orders: list[Order] = [Tell(because, "readiness-expected")]
    if job.failed_at is None and job.stopped_at is None:
        for early in job.ended_unready:
            text = f"rank {early} had ended with 0 before it was ready"
            orders += fail(job, job.ranks[early], at, "exit", text)
    return tuple(orders)


def told_status(_job: Job, rank: RankState, fact: StatusTold) -> Orders:
    last = rank.status
    if last is None:
        rank.status = fact
    else:
        known: dict[str, object] = {"text": last.text} if fact.text is None else {}
        # How far it was with something else says nothing of what it does now.
        same = fact.text in (None, last.text)
        known |= {"done": last.done, "total": last.total, "unit": last.unit} if same and fact.done is None else {}
        known |= {"probe": last.probe} if fact.probe is None else {}
        rank.status = fact.replace(**known) if known else fact
    return ()


def extended(job: Job, rank: RankState, fact: Extended) -> Orders:
    rank.extended = fact
    rank.deadline = max(rank.deadline or 0.0, fact.at + fact.seconds)
    return ()


def leaving(_job: Job, rank: RankState, fact: LeavingTold) -> Orders:
    rank.status = StatusTold(fact.at, fact.rank, "stopping")
    return ()


def reported_failure(job: Job, rank: RankState, fact: FailureReported) -> Orders:
    if rank.report is not None:
        return ()
    rank.report = fact
    if fact.report.how == "exit" and fact.peer_death is None:
        job.leaving.add(rank.rank)  # its log may tell of a lost peer: the end will show
        return ()
    job.unresolved.discard(rank.rank)
    job.heard.add(rank.rank)
    how = {"exception": "reported an exception", "exit": "is leaving"}.get(fact.report.how, "reported a failure")
    because = f"rank {rank.rank} {how}: {_short(fact.report.text)}"
    echo = fact.report.how in ("exception", "exit")
    return fail(
        job, rank, fact.at, "report", because, of_peer=fact.peer_death is not None, echo=echo, timed_out=fact.timed_out
    )


def reported_failure_while_stopping(job: Job, rank: RankState, fact: FailureReported) -> Orders:
    """It counts only when the rank's own clock says that it failed before we told it to end."""
    if rank.report is not None:
        return ()
    rank.report = fact
    leaving = fact.report.how == "exit"
    if not leaving:
        job.heard.add(rank.rank)
    raised_at = fact.report.raised_at
    if job.failed_at is not None and raised_at is not None and raised_at < _told_at(job, rank):
        suspect(job, rank, raised_at)
    weigh(job, rank)
    if not leaving:
        job.unresolved.discard(rank.rank)
    return judge_when_resolved(job)


def _told_at(job: Job, rank: RankState) -> float:
    """When the rank was told to end, by the clock of its own machine; never, as long as its agent has not said so."""
    if job.spec.nodes is None:
        return job.stopped_at or 0.0
    own = job.stopping_nodes.get(job.node_of(rank.rank))
    return float("inf") if own is None else own.at


def reported_failure_after_end(job: Job, rank: RankState, fact: FailureReported) -> Orders:
    """The datagram outlived its sender: it still says why."""
    rank.report = rank.report or fact
    return ()


def broke_protocol(job: Job, rank: RankState, fact: ProtocolBroken) -> Orders:
    rank.broken = fact
    job.heard.add(rank.rank)
    return fail(job, rank, fact.at, "protocol", f"rank {rank.rank}: {fact.statement}")


def complained(job: Job, rank: RankState, fact: Complained) -> Orders:
    """It says by a signal to its parent that it failed: held against it if it then ends, or does not end in time."""
    if rank.complained is not None or fact.signal not in COMPLAINTS:
        return ()
    rank.complained, rank.complained_at, rank.complaint_due = fact.signal, fact.at, fact.at + COMPLAINT
    if "complaint" in job.due or job.failed_at is not None:
        return ()
    because = f"rank {rank.rank} sent {COMPLAINTS[fact.signal]} to its parent"
    return wake_in_time(job, "complaint", rank.complaint_due, because)


def complained_while_stopping(_job: Job, rank: RankState, fact: Complained) -> Orders:
    if rank.complained is None and fact.signal in COMPLAINTS:
        rank.complained = fact.signal
    return ()


def exited(job: Job, rank: RankState, fact: Exited) -> Orders:
    """The process has ended and nothing of ours has asked for it."""
    rank.phase_at_end = job.life(rank)
    _end(job, rank, fact)
    orders: Orders = ()
    failure, of_peer = _why_failed(job, rank, fact.ending), ended_of_peer(fact)
    if job.spec.watch is not None:
        orders = members.exited(job, rank, fact, failure)
        return (*orders, *_reap(job, rank), *_when_all_ended(job, rank, fact.at))
    echo = fact.ending.kind != "signal"
    if rank.suspect:  # it had said why, or was dying when we looked, and the stop is held
        itself = failure is not None and (rank.report is None or rank.rank in job.leaving) and not of_peer
        if itself and job.holding:
            job.awaits_muster = False
            orders = stop_for_failure(job, fact.at, f"rank {rank.rank} {failure}", echo=echo)
        else:
            late = fact.timed_out and job.holding
            orders = (*(begin_muster(job, fact.at) if late else ()), *go_on_holding(job, fact.at))
    elif failure is not None:
        orders = fail(
            job,
            rank,
            fact.at,
            "exit",
            f"rank {rank.rank} {failure}",
            of_peer=of_peer,
            echo=echo,
            timed_out=fact.timed_out,
        )
    else:
        orders = go_on_holding(job, fact.at)
        if rank.ready_at is None:
            job.ended_unready.append(rank.rank)
    return (*orders, *_reap(job, rank), *_when_all_ended(job, rank, fact.at))


def exited_while_stopping(job: Job, rank: RankState, fact: Exited) -> Orders:
    """Ranks that we stop are no failures; a suspect's status is what the verdict waits for. A SIGKILL before ours is one."""
    rank.phase_at_end = Phase.STOPPING if job.stop is not None else job.life(rank)
    ours = job.killed_at is not None or (job.spec.nodes is not None and job.node_of(rank.rank) in job.killing_nodes)
    if job.stop is None and not ours and fact.ending.number == SIGKILL and rank.failed_at is None:
        rank.failed_at = fact.at
    if job.spec.nodes is not None:
        rank.answered = _told_to_end(job, rank, fact.ending)
        if not rank.answered and job.failed_at is not None and _why_failed(job, rank, fact.ending) is not None:
            suspect(job, rank, fact.at)
    _end(job, rank, fact)
    return (*judge_when_resolved(job), *_reap(job, rank), *_when_all_ended(job, rank, fact.at))


def _told_to_end(job: Job, rank: RankState, ending: Ending) -> bool:
    """On another node news take their time. Its agent says when it told its ranks to end, before the first of their
    endings; one that comes before that is the rank's own doing, and the verdict goes by what its agent saw.
    """
    ours = ending.number in ASKED or (ending.number == SIGKILL and job.killed_at is not None)
    return ours or job.node_of(rank.rank) in job.stopping_nodes


def _end(job: Job, rank: RankState, fact: Exited) -> None:
    rank.exited = fact
    weigh(job, rank)
    job.heard.add(rank.rank)
    job.ended += rank.member is None
    job.unresolved.discard(rank.rank)


def _reap(job: Job, rank: RankState) -> Orders:
    """Somebody else's child is never reaped by us."""
    return () if job.spec.adopted or rank.member is not None else (Reap("its ending is recorded", rank.rank),)


def _why_failed(job: Job, rank: RankState, ending: Ending) -> str | None:
    if job.announced:
        return None
    if ending.kind == "signal":
        return f"was ended by {ending.signal}"
    if ending.code is None:
        return "ended, nobody can say how"
    if ending.code != 0:
        return f"ended with exit code {ending.code}"
    if rank.complained is not None:
        return f"ended with 0 after it had sent {COMPLAINTS[rank.complained]} to its parent"
    if job.expects_ready and rank.ready_at is None:
        return "ended with 0 before it was ready"
    return "ended with 0 while it was needed" if job.spec.any_end_fails else None


def _when_all_ended(job: Job, rank: RankState, at: float) -> Orders:
    return all_ended(job, at) if job.ended == job.spec.nprocs and rank.member is None else ()


def output_closed(_job: Job, _rank: RankState, _fact: OutputClosed) -> Orders:
    return ()


def reaped(job: Job, rank: RankState, fact: Reaped) -> Orders:
    if rank.reaped:
        return ()
    rank.reaped = True
    job.reaped += 1
    if fact.peak_bytes is not None:
        rank.memory = rank.memory.replace(peak_bytes=max(fact.peak_bytes, rank.memory.peak_bytes or 0))
    return finish_when_done(job)


def _short(text: str) -> str:
    line = text.strip().splitlines()[-1] if text.strip() else "no text"
    return line if len(line) <= 120 else line[:117] + "..."
