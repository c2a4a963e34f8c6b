"""Cells for the nodes of a job on several machines: who has joined, who is silent, who is lost. Read next: `stopping.py`.

A node that is lost while ranks of it run is a failure as a rank's is: look, stop the others, judge. Of these ranks nothing
will be heard again, so nobody waits for them: they count as ended and reaped, without an `Exited`. Who was first, the
node or a rank, is not decided here (`diagnosis/nodes.py`).

Silence takes its time to be a loss, and those that lose a peer by it complain before. So the verdict on a job of which
only such victims are known waits until every node has been heard of since, or is lost (`policy.HEARD`).

In the job of an agent (`spec.share`) the node that can be lost is the coordinator's: its ranks end by themselves.
"""

from rankguard.core.clocks import REMEMBERED, Orders, disarm, wake
from rankguard.core.job import Job, RankState
from rankguard.core.policy import UNHEARD
from rankguard.core.stopping import (
    accuse,
    all_ended,
    finish_when_done,
    judge_when_resolved,
    stop_for_failure,
    suspect,
    warn,
)
from rankguard.facts import UNJOINED, NodeHeard, NodeJoined, NodeLost, NodeSilent, NodeStopping

SIGKILL = 9
FEW = 8
"""The joining of so many nodes is told one by one."""


def joined(job: Job, fact: NodeJoined) -> Orders:
    """A node takes part; or only its clock was measured anew."""
    job.nodes[fact.node] = fact
    count = len(job.nodes) if job.spec.nodes is None else job.spec.nodes.count
    if not fact.again and count <= FEW:
        job.remember(fact.at, f"node {fact.node} ({fact.name}) joined")
    elif not fact.again and len(job.nodes) == count:
        job.remember(fact.at, f"all {count} nodes have joined, {fact.name} last")
    return ()


def silent(job: Job, fact: NodeSilent) -> Orders:
    """No failure yet, and nothing is done about it; the verdict on ranks that only lost a peer waits for the node."""
    if fact.node in job.lost_nodes:
        return ()
    job.silent_nodes[fact.node] = fact
    job.silences += 1
    if job.silences <= REMEMBERED:
        job.remember(fact.at, f"nothing was heard of node {fact.node} ({fact.name}) for {fact.silent_s:.1f} s")
    return ()


def heard(job: Job, fact: NodeHeard) -> Orders:
    """It is there."""
    if job.silent_nodes.pop(fact.node, None) is None:
        return ()
    if job.silences <= REMEMBERED:
        what = f"node {fact.node} ({fact.name}) was heard again, after {fact.silent_s:.1f} s"
        job.remember(fact.at, what)
    return _go_on(job, fact.at, "every node is heard")


def stopping(job: Job, fact: NodeStopping) -> Orders:
    """As we asked it to, or by itself: it was faster than we, or knows more. Then the others are told to end, too."""
    if fact.signal == SIGKILL:
        job.killing_nodes.setdefault(fact.node, fact)
    if fact.node in job.stopping_nodes or fact.node in job.lost_nodes:
        return ()
    job.stopping_nodes[fact.node] = fact
    by_itself = job.stopped_at is None
    because = f"node {fact.node} ({fact.name}) told its ranks to end: {fact.because}"
    if by_itself and job.failed_at is None:
        job.failed_at, job.failed_by = fact.at, "node-stopping"
        accuse(job)
    for number, how in fact.dying if job.failed_at is not None else ():
        rank = job.ranks[number]
        rank.dying = rank.dying or how
        if not rank.suspect and not rank.gone and rank.not_spawned is None:
            suspect(job, rank, fact.at)
    if not by_itself:
        return ()
    job.remember(fact.at, because)
    job.awaits_muster = False
    return stop_for_failure(job, fact.at, because)


def lost(job: Job, fact: NodeLost) -> Orders:
    """Its ranks count as ended. The first failure, or what others had complained of; or it comes when all is over."""
    if fact.node in job.lost_nodes:
        return ()
    job.lost_nodes[fact.node] = fact
    job.silent_nodes.pop(fact.node, None)
    gone = [rank for rank in job.ranks_of(fact.node) if not rank.gone and rank.not_spawned is None]
    for rank in gone:
        _lose(job, rank, fact)
    for rank in job.ranks_of(fact.node):
        if rank.exited is not None and not rank.reaped:
            rank.reaped = True
            job.reaped += 1
    what = f"node {fact.node} ({fact.name}) was lost: {fact.statement}"
    if job.spec.share is not None:
        what = f"the coordinator ({fact.name}) is gone: {fact.statement}"
    elif fact.how in UNJOINED:
        what = f"node {fact.node} is missing: {fact.statement}"
    job.remember(fact.at, what)
    orders: Orders = ()
    if not gone and job.spec.share is None:
        orders = warn(job, f"{what}, after its ranks had ended; whether anything is left there is not known")
    elif job.stopped_at is None:
        if job.failed_at is None:
            job.failed_at, job.failed_by = fact.at, "node-lost"
            accuse(job)
        job.awaits_muster = False
        orders = stop_for_failure(job, fact.at, what)
    elif job.stop is not None or job.judged is not None:  # else it may be what the verdict is about
        orders = warn(job, f"{what}, while the job was being stopped; what is left there ends by itself, unseen")
    if gone and job.ended == job.spec.nprocs:
        return (*orders, *all_ended(job, fact.at))
    return (*orders, *_go_on(job, fact.at, what), *finish_when_done(job))


def _lose(job: Job, rank: RankState, fact: NodeLost) -> None:
    rank.phase_at_end = job.life(rank)
    rank.lost = fact
    rank.reaped = True
    job.ended += 1
    job.reaped += 1
    job.ranks_lost += 1
    job.heard.add(rank.rank)
    job.unresolved.discard(rank.rank)


def nodes_passed(job: Job, at: float) -> Orders:
    """Every node has been heard of since the failure, or was silent for longer than `--node-timeout` allows."""
    return _go_on(job, at, "nothing more will be heard of the nodes")


def _go_on(job: Job, at: float, because: str) -> Orders:
    """To the verdict, unless a node of which nothing is heard may still be the reason."""
    plan = job.spec.nodes
    if not job.awaits_nodes or plan is None or (at < job.heard_by and not job.ranks_lost):
        return judge_when_resolved(job)
    since = max((each.at - each.silent_s for each in job.silent_nodes.values()), default=None)
    if since is not None and not job.ranks_lost and at < since + plan.node_timeout + UNHEARD:
        if "nodes" in job.due:
            return ()
        until = since + plan.node_timeout + UNHEARD
        return (wake(job, "nodes", until, "ranks lost a peer, and a node is silent: it may be lost"),)
    job.awaits_nodes = False
    void = ("nodes",) if job.due.pop("nodes", None) is not None else ()
    return (*disarm(job, void, because), *judge_when_resolved(job, because))
