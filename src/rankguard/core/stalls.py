"""Ranks that give no sign of progress (`--stall-timeout`): one deadline for all, and who has been silent for too long.

What ranks print and their heartbeats are no facts: there may be thousands a second. So the deadline `stall` comes when
the soonest rank could be silent for too long; then we ask who has been (`Listen`), and mostly set it anew. What follows
if somebody has is in `examining.py`.
"""

from rankguard.core.clocks import Orders, wake
from rankguard.core.job import Job, RankState
from rankguard.model import Sign
from rankguard.orders import Listen


def stall_passed(job: Job, at: float) -> Orders:
    """Somebody may have been silent for too long; whoever has spoken since has not."""
    limit = job.spec.stall_timeout
    if limit is None or job.failed_at is not None or job.stopped_at is not None or job.ended == job.spec.nprocs:
        return ()
    return (Listen("--stall-timeout", at - limit),)


def late(job: Job, at: float, signs: tuple[Sign, ...]) -> list[RankState]:
    """Those that have been silent for too long."""
    found = []
    for sign in signs:
        due = _due(job, job.ranks[sign.rank], sign.at)
        if due is not None and due <= at:
            found.append(job.ranks[sign.rank])
    return found


def ask_again(job: Job, at: float, signs: tuple[Sign, ...], soonest: float | None) -> Orders:
    """When the soonest of them can be stalled. Pauses that no silence goes back to are forgotten."""
    limit = job.spec.stall_timeout
    assert limit is not None
    dues = [due for sign in signs if (due := _due(job, job.ranks[sign.rank], sign.at)) is not None]
    lasts = [last for sign in signs if (last := _last(job.ranks[sign.rank], sign.at)) is not None]
    if soonest is not None:
        dues.append(soonest + limit + _stood_still(job, soonest))
        lasts.append(soonest)
    job.stood_still = [pause for pause in job.stood_still if pause[1] > min(lasts, default=at)]
    return (wake(job, "stall", max(at, min(dues, default=at + limit)), "--stall-timeout"),)


def _due(job: Job, rank: RankState, heard_at: float | None) -> float | None:
    """When this rank is stalled if it goes on like that; null for one that has not begun or has ended.

    Counted from its last sign, else from its start; the time in which nothing could run does not count.
    """
    last, limit = _last(rank, heard_at), job.spec.stall_timeout
    assert limit is not None
    return None if last is None else max(last + limit + _stood_still(job, last), rank.deadline or 0.0)


def _last(rank: RankState, heard_at: float | None) -> float | None:
    if rank.spawned_at is None or rank.gone:
        return None
    return rank.spawned_at if heard_at is None else max(heard_at, rank.spawned_at)


def _stood_still(job: Job, since: float) -> float:
    return sum(until - max(begun, since) for begun, until in job.stood_still if until > since)


def because(job: Job, late: list[RankState]) -> str:
    """The reason of an order."""
    who = f"rank {late[0].rank} has" if len(late) == 1 else f"{len(late)} of {job.spec.nprocs} ranks have"
    return f"{who} given no sign of progress for {job.spec.stall_timeout:g} s"
