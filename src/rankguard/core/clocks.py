"""Deadlines: set, void, moved by the time in which nothing could run.

A job that is suspended (Ctrl-Z) has no deadline: all are void, and `due` remembers them. When it goes on, they are set
anew, later by as long as it stood still. The same when we stood still ourselves and only learn it afterwards
(`TimeLost`). Used by `stopping.py` and by the cells of the table; what to do when one comes is there.
"""

from rankguard.core.job import Job
from rankguard.orders import Disarm, Order, SignalAll, Tell, WakeAt

SIGCONT, SIGSTOP = 18, 19
REMEMBERED = 20
"""Pauses that the timeline tells; somebody may suspend a job any number of times."""

Orders = tuple[Order, ...]


def wake(job: Job, name: str, when: float, because: str) -> WakeAt:
    """Set a deadline; an earlier one of that name becomes stale. Not while the job is suspended (`wake_in_time`)."""
    assert job.suspended_at is None
    generation = job.generations[name] = job.generations.get(name, 0) + 1
    job.due[name] = when
    return WakeAt(because, name, generation, when)


def wake_in_time(job: Job, name: str, when: float, because: str) -> Orders:
    """Set a deadline now, or when the job goes on."""
    if job.suspended_at is None:
        return (wake(job, name, when, because),)
    job.due[name] = when
    return ()


def disarm(job: Job, names: tuple[str, ...], because: str) -> Orders:
    """Make deadlines void; one that is on its way already is stale. Whether they are still due is the caller's word."""
    for name in names:
        job.generations[name] = job.generations.get(name, 0) + 1
    return (Disarm(because, names),) if names else ()


def suspend(job: Job, at: float, because: str) -> Orders:
    """Stop every rank and every clock. To be stopped by us is no failure, and nothing that takes time is late."""
    stop = () if job.attached else (SignalAll(because, SIGSTOP, ends=False),)
    orders: Orders = (*stop, *disarm(job, tuple(job.due), because))
    job.suspended_at = at
    _remember(job, at, because)
    return (*orders, Tell(because, "suspended"))


def resume(job: Job, at: float, because: str) -> Orders:
    """Let ranks and clocks go on. Nothing when the job is not suspended."""
    if job.suspended_at is None:
        return ()
    lost = max(0.0, at - job.suspended_at)
    job.suspended_at = None
    _remember(job, at, f"{because} after {lost:.1f} s")
    go_on = () if job.attached else (SignalAll(because, SIGCONT, ends=False),)
    return (*go_on, *postpone(job, at, lost, because), Tell(because, "resumed"))


def postpone(job: Job, at: float, lost: float, because: str) -> Orders:
    """All deadlines come later by the seconds that were lost until now, those that ranks have of their own too."""
    if job.spec.stall_timeout is not None:
        job.stood_still.append((at - lost, at))
    job.ready_by += lost
    job.lost_while_stopping += lost if job.stopped_at is not None else 0.0
    for rank in job.ranks:
        if rank.deadline is not None:
            rank.deadline += lost
        if rank.complaint_due is not None:
            rank.complaint_due += lost
    return tuple(wake(job, name, when + lost, because) for name, when in job.due.items())


def lose(job: Job, at: float, lost: float) -> Orders:
    """We stood still without having been asked."""
    because = f"rankguard itself stood still for {lost:.1f} s"
    _remember(job, at, because)
    return postpone(job, at, lost, because)


def _remember(job: Job, at: float, what: str) -> None:
    job.pauses += 1
    if job.pauses <= REMEMBERED:
        job.remember(at, what)
