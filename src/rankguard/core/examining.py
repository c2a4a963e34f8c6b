"""Somebody is late: not ready in time, or silent for too long. All ranks are examined before anything is done to any.

A deadline alone tells who is late and not why. So the job is examined first (`Examine`: the stacks of all, who uses the
CPU; half a second), and whoever has become ready or has spoken by then is spared. One examination serves both clocks.
Not of adopted processes, which are somebody else's: there the deadline itself is the failure. Who is to blame is not
decided here (`diagnosis/stalls.py`). Read next: `stalls.py` (who is silent), `stopping.py`.
"""

from rankguard.core import stalls
from rankguard.core.clocks import Orders, wake
from rankguard.core.job import Job, RankState
from rankguard.core.stopping import accuse, leave, stop_for_failure, suspect
from rankguard.facts import Examined, Silences
from rankguard.orders import Examine, SignalAll

SIGCONT = 18


def ready_passed(job: Job, at: float) -> Orders:
    """Somebody was not ready in time, unless it asked for more."""
    if job.failed_at is not None or job.stopped_at is not None or job.examining is not None:
        return ()
    late = _not_ready(job, at)
    if not late:
        return _wait_for_ready(job)
    because = _unready(job, late)
    return _fail(job, late, at, "ready-timeout", because) if job.spec.adopted else _examine(job, because)


def heard(job: Job, fact: Silences) -> Orders:
    """Nobody is stalled: ask again when the soonest can be."""
    if job.failed_at is not None or job.examining is not None:
        return ()
    late = stalls.late(job, fact.at, fact.silent)
    if not late:
        return stalls.ask_again(job, fact.at, fact.silent, fact.soonest)
    return _examine(job, stalls.because(job, late))


def examined(job: Job, fact: Examined) -> Orders:
    """Whoever is late still has failed; else both clocks are set anew."""
    if fact.number != job.examining:
        return ()
    job.examining = None
    if job.failed_at is not None:
        return ()
    late = _not_ready(job, fact.at)
    by, because = "ready-timeout", _unready(job, late)
    if not late and job.spec.stall_timeout is not None:
        late = stalls.late(job, fact.at, fact.signs)
        by, because = "stall", stalls.because(job, late) if late else ""
    if late:
        job.examined = fact
        return _fail(job, late, fact.at, by, because)
    again = () if job.spec.stall_timeout is None else stalls.ask_again(job, fact.at, fact.signs, None)
    return (*again, *_wait_for_ready(job))


def examine_later(job: Job, at: float) -> None:
    """The job is suspended: stacks that are being taken now show nothing but that. Ask again when it goes on."""
    if job.examining is None or job.suspended_at is None:
        return
    job.examining = None
    if job.spec.stall_timeout is not None:
        job.due["stall"] = at
    if "ready" not in job.due and _unready_ranks(job):
        job.due["ready"] = max(at, job.ready_by)


def _examine(job: Job, because: str) -> Orders:
    job.examinations += 1
    job.examining = job.examinations
    return (Examine(because, job.examining),)


def _fail(job: Job, late: list[RankState], at: float, by: str, because: str) -> Orders:
    job.failed_at, job.failed_by = at, by
    accuse(job)
    for rank in late:
        rank.late = True
        suspect(job, rank, at)
    job.remember(at, because)
    if job.attached and job.spec.watch is not None and job.spec.watch.on_failure == "report":
        return leave(job, at, because)
    orders = stop_for_failure(job, at, because)
    # Who was stopped (SIGSTOP) hears SIGTERM only when it goes on.
    return orders if job.spec.adopted else (*orders, SignalAll(because, SIGCONT, ends=False))


def _unready_ranks(job: Job) -> list[RankState]:
    """Those that are still to become ready, where somebody waits for that."""
    if job.ready_by == float("inf"):
        return []
    return [rank for rank in job.ranks if rank.ready_at is None and not rank.gone and rank.member is None]


def _not_ready(job: Job, at: float) -> list[RankState]:
    return [rank for rank in _unready_ranks(job) if _due(job, rank) <= at]


def _wait_for_ready(job: Job) -> Orders:
    """Until the soonest of them is late."""
    soonest = min((_due(job, rank) for rank in _unready_ranks(job)), default=None)
    if soonest is None or "ready" in job.due:
        return ()
    return (wake(job, "ready", soonest, "a rank asked for more time"),)


def _due(job: Job, rank: RankState) -> float:
    return max(job.ready_by, rank.deadline or 0.0)


def _unready(job: Job, late: list[RankState]) -> str:
    if job.spec.watch is not None:
        return "the engine was not ready in time"
    return f"{len(late)} of {job.spec.nprocs} ranks were not ready in time"
