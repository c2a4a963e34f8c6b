"""The verdict on an engine that was kept when our supervisor was gone (`--on-lost keep`): what is known, and how it ended.

The journal is replayed up to the loss, and the end of what was started is added: so the cause of a failure reads as ever.
Where even that raises, the wait status speaks alone. Never 0 after a failure that was known before.
Read next: `lost.py`, `cli/front/keeper.py`.
"""

import time
from collections.abc import Mapping

from rankguard._version import __version__
from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import Degraded, Exited, JobStarted, Looked, NotSpawned, Reaped, Spawned, StopRequested, TreeEmpty
from rankguard.jobspec import JobSpec
from rankguard.launchers.start import not_executed
from rankguard.linux.child import from_status
from rankguard.lost import as_told, filed, keep_details
from rankguard.model import Ending, MemoryState, Retry, Sender, Teardown, Verdict
from rankguard.report.redact import for_telling

PART = "the supervisor"
Ends = Mapping[int, tuple[int, int | None]]
"""Rank → its pid, and its wait status, null where nobody could learn it."""


class Told:
    """What the front knows of the job, whatever became of its journal."""

    def __init__(self) -> None:
        self.why = ""
        """Why nothing is watched any more."""
        self.bug: str | None = None
        """The supervisor's last word."""
        self.asked: tuple[float, int, Mapping[str, object] | None] | None = None
        """The first request to end: when, which signal, who sent it."""
        self.stopping = False
        """The supervisor has passed that on."""
        self.failed: str | None = None
        self.failed_at: float | None = None
        """A failure was known, and the engine told to end."""
        self.failure: Verdict | None = None
        """That failure's verdict, if it was there."""
        self.not_executed: tuple[str, int] | None = None
        """Stage and errno, if it was started by the front, in vain."""


def verdict_of_kept(spec: JobSpec, ends: Ends, told: Told) -> Verdict:
    """Filed, too. `ends`: of what was started, none if nothing was."""
    now = time.monotonic()
    try:
        final = _replayed(spec, ends, told, now)
    except Exception:  # noqa: BLE001  # we are here because something of ours is broken
        final = _plain(spec, ends, told)
    if final.exit_code == 0 and (told.failure is not None or told.failed is not None):
        final = _as_known_before(final, told)
    said = f"rankguard degraded: {told.why}"
    if not any(PART in warning for warning in final.warnings):
        final = final.replace(warnings=(*final.warnings, said), degraded=final.degraded + 1)
    if told.bug is not None and (kept := keep_details(spec, told.bug)) is not None:
        final = final.replace(
            hints=(*final.hints, f"report the fault of rankguard with `{kept}`, which holds the details")
        )
    return filed(spec, final)


def _replayed(spec: JobSpec, ends: Ends, told: Told, now: float) -> Verdict:
    try:
        job = as_told(spec, now)
        _end(job, spec, ends, told, now)
    except Exception:  # noqa: BLE001  # the journal may end in the middle of anything
        job = Job(for_telling(spec))
        step(job, JobStarted(now, time.time()))
        _end(job, spec, ends, told, now)
    return verdict(job.case().replace(now=now), __version__)


def _end(job: Job, spec: JobSpec, ends: Ends, told: Told, now: float) -> None:
    """Tell the job what has become of it since."""
    now = max(now, job.now)
    step(job, Degraded(now, PART, told.why))
    if told.not_executed is not None:
        error, statement = not_executed(spec, *told.not_executed)
        step(job, NotSpawned(now, 0, told.not_executed[0], error, statement))
    if told.asked is not None and job.stop is None:
        at, number, sender = told.asked
        step(job, StopRequested(max(at, job.now), number, Sender(**sender) if sender else None))  # type: ignore[arg-type]
    for rank in list(job.ranks):
        if rank.not_spawned is not None:
            continue
        pid, status = ends.get(rank.rank, (rank.pid or 0, None))
        if rank.pid is None and rank.rank not in ends:
            step(job, NotSpawned(now, rank.rank, "cancelled", 0, "it was not started any more"))
            continue
        if rank.pid is None:
            step(job, Spawned(now, rank.rank, pid))
        if rank.exited is None:
            step(job, Exited(now, rank.rank, Ending("exit") if status is None else from_status(status)))
        if rank.rank < spec.nprocs and not rank.reaped:
            step(job, Reaped(now, rank.rank))
    if job.failed_at is not None and job.judged is None:
        if job.looked is None:
            step(job, Looked(now))
        step(job, choose(job.case()))
    if job.tree is None:
        step(job, TreeEmpty(now))


def _as_known_before(final: Verdict, told: Told) -> Verdict:
    """It ended with 0, and had failed."""
    if told.failure is not None and told.failure.exit_code:
        return told.failure.replace(warnings=final.warnings, ended_at=final.ended_at, degraded=final.degraded)
    statement = f"it failed ({told.failed}) before rankguard's supervisor was gone, and ended with exit code 0"
    return final.replace(outcome="failed", exit_code=1, statement=statement, summary=statement)


def _plain(spec: JobSpec, ends: Ends, told: Told) -> Verdict:
    """By wait statuses alone, made of nothing that could fail."""
    known = [from_status(status) for _rank, (_pid, status) in sorted(ends.items()) if status is not None]
    bad = next((end for end in known if end.code != 0), None)
    code, said = 0 if known else 125, "it ended with exit code 0" if known else "nobody could learn how it ended"
    if bad is not None:
        code = 128 + (bad.number or 0) if bad.kind == "signal" else bad.code or 0
        said = f"it was ended by {bad.signal}" if bad.kind == "signal" else f"it ended with exit code {bad.code}"
    asked = told.asked is not None
    outcome = "interrupted" if asked else "failed" if code else "succeeded"
    return Verdict(
        run_id=spec.run_id,
        command=for_telling(spec).command,
        outcome=outcome,
        exit_code=code,
        statement=said,
        summary=said,
        fingerprint=None,
        owner=None,
        retry=Retry(advice="unknown", because="nothing was watched when it ended"),
        started_at="",
        ready_at=None,
        failed_at=None,
        ended_at=None,
        world_size=spec.nprocs,
        nodes=(spec.node,) if spec.node else (),
        start="exec",
        labels=spec.labels,
        culprit=None,
        either=(),
        order=None,
        stopped_by=None,
        memory=MemoryState(),
        ranks=(),
        attempts=(),
        teardown=Teardown(took_s=None, killed=(), survivors=(), left=()),
        hints=(),
        warnings=(),
        timeline=(),
        rankguard=__version__,
    )
