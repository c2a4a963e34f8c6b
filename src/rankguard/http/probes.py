"""The three questions of whoever runs containers: has it started, is it alive, can it do its work? Pure.

Alive is not ready, and ready is not started: a job that stops or starts again is alive, and takes no work. What failed or
stalled is none of the three. Where nobody reports readiness, a rank that executes counts as ready: nothing more is known.
"""

from typing import NamedTuple

from rankguard.core.job import Job
from rankguard.http.followed import Followed
from rankguard.report.wording import many, plural, printable

SILENT_S = 10.0
"""The supervisor takes a millisecond to answer; while it starts thousands of ranks, seconds."""


class Answer(NamedTuple):
    """`yes`: 200, else 503. `why` is one line."""

    yes: bool
    why: str


def started(run: Followed) -> Answer:
    """All ranks have become ready once in this attempt (or execute, where nobody reports readiness)."""
    job, failed = run.job, _failed(run)
    if failed is not None or job is None:
        return Answer(False, failed or "nothing has been started")
    if (between := _between(run)) is not None:
        return Answer(False, between)
    if _all_started(job):
        return Answer(True, f"started: {_all(job)}")
    return Answer(False, _over(run) or _waiting(job))


def ready(run: Followed, silent_s: float = 0.0) -> Answer:
    """All ranks can do their work now. `silent_s`: for how long the supervisor has owed an answer."""
    job, failed = run.job, _failed(run)
    if failed is not None or job is None:
        return Answer(False, failed or "nothing has been started")
    no = _between(run) or _over(run) or _silent(silent_s)
    if no is None and job.stopped_at is not None:
        no = "stopping"
    if no is None and job.suspended_at is not None:
        no = "suspended"
    if no is None and not _all_started(job):
        no = _waiting(job)
    if no is None and job.ended:
        no = f"{job.ended} of {_ranks(job)} {'has' if job.ended == 1 else 'have'} finished"
    return Answer(no is None, no or f"ready: {_all(job)}")


def live(run: Followed, silent_s: float = 0.0) -> Answer:
    """Nothing has failed for good, and the supervisor answers: 503 is for a job that will not come back by itself."""
    no = _failed(run) or _silent(silent_s)
    if no is not None:
        return Answer(False, no)
    job = run.job
    told = _between(run) or _over(run)
    if told is None and job is not None and job.stopped_at is not None:
        told = "stopping"
    return Answer(True, f"live: {told}" if told else "live")


def phase(run: Followed) -> str:
    """The job's state in a word: starting, ready, running, suspended, stopping, restarting, failed, succeeded, interrupted."""
    job, final = run.job, run.aside.get("final")
    if _failed(run) is not None:
        return "failed"
    if final is not None:
        return str(final["outcome"])
    if _between(run) is not None:
        return "restarting"
    if job is None or not _all_started(job):
        return "starting" if job is None or job.stopped_at is None else "stopping"
    if job.stopped_at is not None:
        return "stopping"
    if job.suspended_at is not None:
        return "suspended"
    return "ready" if job.expects_ready else "running"


def _failed(run: Followed) -> str | None:
    """It did, and nothing will follow."""
    final, job = run.aside.get("final"), run.job
    if final is not None:
        return _line("failed", final["statement"]) if final["outcome"] == "failed" else None
    if job is None or job.failed_at is None or _between(run) is not None:
        return None
    return _line("failed", _statement(run, job))


def _between(run: Followed) -> str | None:
    """An attempt failed, and another one follows, or may."""
    job = run.job
    if job is None or job.failed_at is None or run.aside.get("final") is not None or run.aside.get("given_up"):
        return None
    if run.aside.get("resting"):
        return _line("restarting", run.aside["resting"])
    heals = run.aside.get("heals")
    if heals or (heals is None and job.judged is None and len(job.attempts) < job.spec.max_restarts):
        return _line("restarting", _statement(run, job))
    return None


def _statement(run: Followed, job: Job) -> str:
    """The verdict's, or what was seen first."""
    if job.judged is not None:
        return run.verdict(newest=0).statement
    since = round((job.failed_at or 0.0) - (job.started_at or 0.0), 6)
    seen = next((moment.what for moment in job.timeline if moment.at_s >= since), "a rank failed")
    return f"{seen}; what came first is being found out"


def _over(run: Followed) -> str | None:
    final = run.aside.get("final")
    return _line(final["outcome"], final["statement"]) if final is not None else None


def _silent(seconds: float) -> str | None:
    return f"the supervisor has not answered for {seconds:.0f} s" if seconds > SILENT_S else None


def _all_started(job: Job) -> bool:
    if job.expects_ready:
        return job.all_ready_at is not None
    return job.spawned == job.spec.nprocs


def _waiting(job: Job) -> str:
    """Who is not there yet, and what the first of them says that it does."""
    if job.spec.watch is not None:
        status = job.ranks[0].status
        doing = f" ({printable(status.text, 80)})" if status and status.text else ""
        heard = f": {printable(status.probe, 200)}" if status and status.probe else ""
        return f"starting: the engine is not ready{doing}{heard}"
    plan = job.spec.nodes
    if plan is not None and len(job.nodes) < plan.count:
        missing_nodes = [number for number in range(plan.count) if number not in job.nodes]
        return f"starting: {len(job.nodes)} of {plan.count} nodes have joined; waiting for {_nodes(missing_nodes)}"
    if not job.expects_ready:
        return f"starting: {job.spawned} of {_ranks(job)} {'executes' if job.spawned == 1 else 'execute'}"
    missing = [rank for rank in job.ranks[: job.spec.nprocs] if rank.ready_at is None]
    names = job.spec.names
    named = [(rank.rank, names[rank.rank] if names else None) for rank in missing]
    who = many(named, 4)
    said = next(((at, r.status.text) for at, r in enumerate(missing) if r.status is not None and r.status.text), None)
    told = ""
    if said is not None:
        whose = f"{many([named[said[0]]], 1)}: " if len(missing) > 1 else ""
        told = f" ({whose}{printable(said[1], 80)})"
    return f"starting: {job.ready} of {_ranks(job)} ready; waiting for {who}{told}"


def _nodes(numbers: list[int]) -> str:
    more = f" and {len(numbers) - 4} more" if len(numbers) > 4 else ""
    return ", ".join(f"node {number}" for number in numbers[:4]) + more


def _ranks(job: Job) -> str:
    return plural(job.spec.nprocs, "rank")


def _all(job: Job) -> str:
    how = "ready" if job.expects_ready else "running"
    if job.spec.watch is not None:
        return f"the engine is {how}"
    return f"all {_ranks(job)} {how}" if job.spec.nprocs > 1 else f"the only rank is {how}"


def _line(what: str, text: str) -> str:
    return f"{what}: {printable(text, 400)}"
