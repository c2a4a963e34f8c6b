"""What a page is given of a run: view, memory and logs, from what is followed. Of a live run and of one that is over.

The page server asks while a run lives (`routes.py`), `rankguard report --html` afterwards (`../runs/page.py`), with the
same answers. Made when it is asked for, so that a probe waits for none of it. Read next: `../page/data.py`.
"""

from collections.abc import Sequence
from typing import Any

from rankguard.http import probes
from rankguard.http.followed import Followed
from rankguard.model import Verdict
from rankguard.page import course, logs
from rankguard.page.data import view
from rankguard.page.seen import Seen
from rankguard.report.logtail import lines

Data = dict[str, Any]
_WIDTH = 100
_COURSE = 16 << 20


def view_of(
    run: Followed,
    now: float,
    *,
    live: bool = True,
    silent_s: float = 0.0,
    verdict: Verdict | None = None,
    state: str | None = None,
    state_line: str | None = None,
    folder: str | None = None,
    doctor: Sequence[Data] | None = None,
) -> Data:
    """`now`: an instant of the journal's clock. `verdict`, `state` and `state_line`: where they are known better than here."""
    job = run.job
    assert job is not None  # nothing has been told, and whoever asks says so
    _recall(run)
    final = run.aside.get("final") is not None
    known = verdict or run.verdict()
    if not final and verdict is None:
        known = known.replace(outcome="running")
    report = None
    if known.outcome != "running":
        from rankguard.report.text import final_report

        report = final_report(known, width=_WIDTH, saved=folder is not None).split("\n")
    held = run.course[-1].held if run.course else {}
    wall = job.started_wall + (now - job.started_at) if job.started_at is not None else 0.0
    return view(
        Seen(
            job=job,
            chronicle=run.chronicle,
            verdict=known,
            state=state or probes.phase(run),
            now=now,
            made_at=wall,
            live=live and not final,
            state_line=state_line or (probes.ready(run, silent_s).why if live else known.statement),
            report=report,
            folder=folder or job.spec.run_dir,
            held=held,
            course=run.course,
            doctor=doctor,
        )
    )


def memory_of(run: Followed, since: float | None = None, verdict: Verdict | None = None) -> Data | None:
    """The course of memory; null where nothing is known of it."""
    if run.job is None:
        return None
    _recall(run)
    found: Data | None = course.memory(run.course, run.job, verdict or run.verdict(), run.chronicle.short_at, since)
    return found


def log_of(run: Followed, rank: int) -> Data | None:
    """The ends of what a rank has printed, from its files; null of one that there is not. Of a watched engine there is one output, the engine's."""
    job = run.job
    if job is None or not 0 <= rank < len(job.ranks):
        return None
    attempt = len(job.attempts)
    if job.spec.run_dir is None or not job.spec.log_max:
        return {"rank": rank, "attempt": attempt, "streams": {}}
    of = rank if job.spec.watch is None else 0
    return logs.log(job.spec.run_dir, of, attempt, job.spec.log_max, run.redact) | {"rank": rank}


def told_logs(run: Followed, verdict: Verdict) -> list[Data]:
    """The last lines of each rank that has ended, as the journal has them: without secrets, and both streams together."""
    job = run.job
    assert job is not None
    told, rows = [], course.rows_of(job, verdict)
    for rank in job.ranks[: job.spec.nprocs]:
        lines = rank.exited.log_tail if rank.exited is not None else ()
        stream = (rank.exited.log if rank.exited is not None else None) or "stderr"
        row = rows.get(rank.rank)
        if row is not None:
            path = verdict.ranks[row].log_path
            told.append(logs.told_log(row, len(job.attempts), lines, stream, path))
    return told


def _recall(run: Followed) -> None:
    """What was looked at before this server was there, of a run that has begun before it: from the run's folder, once."""
    if run.recalled or run.job is None or run.job.spec.run_dir is None:
        return
    run.recalled = True
    before = course.points(lines(f"{run.job.spec.run_dir}/{course.NAME}", _COURSE))
    first = run.course[0].at if run.course else float("inf")
    run.course[:0] = [point for point in before if point.at < first]
