"""The data of a page for a run on disk: its files read once more, by whoever wants `report --html`.

Whatever lies in the folder is somebody's data: reads are bounded, no link or FIFO is followed, and what has not the shape
of ours is left out. A run that lives is shown as it stands. Read next: `../http/shown.py`, `remains.py` (cut off).
"""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from rankguard.http import shown
from rankguard.http.followed import Followed
from rankguard.jobspec import JobSpec
from rankguard.model import Verdict
from rankguard.page import logs
from rankguard.page.course import NAME as MEMORY
from rankguard.page.course import points, rows_of
from rankguard.report.logtail import lines
from rankguard.report.redact import Redactor, knowing
from rankguard.runs.folder import CHANGED, Run
from rankguard.runs.remains import remains

_JOURNAL = 1 << 30
_COURSE = 16 << 20
_TAILS = 8 << 20
_LOGS = 360_000
"""Characters of all tails together."""
_LIVE_LINES, _READ = 60, 16 << 10
GENERAL = (
    "what the ranks printed is shown by the general rules for secrets: which values of its environment and arguments were "
    "secret is known to a run alone, and only while it lives"
)

Data = dict[str, Any]
Rules = dict[str, list[str]]


class NothingTold(Exception):
    """There is nothing that a page could show."""


def page_data(run: Run, answered: Data | None = None, doctor: Sequence[Data] | None = None) -> Data:
    """`{"view", "memory", "logs"}`. `answered`: a live run's own answer to `report`, with the answer to `rules` in it. Raises `NothingTold`."""
    try:
        return _page_data(run, answered, doctor)
    except CHANGED as error:
        raise NothingTold(f"the files of run {run.id} are not as it left them ({type(error).__name__})") from error


def _page_data(run: Run, answered: Data | None, doctor: Sequence[Data] | None) -> Data:
    folder = str(run.folder.absolute())
    followed, last = _followed(f"{folder}/events.jsonl")
    verdict, state, line, live = _verdict(run, answered, followed)
    if followed.job is None:
        followed = _of_verdict(verdict)
    job = followed.job
    assert job is not None
    if not live:
        followed.aside["final"] = verdict.to_dict()
    followed.course, followed.recalled = points(lines(f"{folder}/{MEMORY}", _COURSE)), True
    now = max(last, followed.course[-1].at if followed.course else last)
    if live and run.is_live() is not None:
        now = max(now, job.started_at + time.time() - job.started_wall if job.started_at is not None else now)
    view = shown.view_of(
        followed, now, live=live, verdict=verdict, state=state, state_line=line, folder=folder, doctor=doctor
    )
    told = _logs(folder, followed, verdict, view, (answered or {}).get("rules"), ended=run.ended)
    if any("by_general_rules" in each for each in told):
        view["verdict"]["warnings"].append(GENERAL)
    data = {"view": view, "memory": shown.memory_of(followed, verdict=verdict), "logs": told}
    try:
        json.dumps(data, allow_nan=False)
    except ValueError:  # no browser would read it
        raise NothingTold(f"the files of run {run.id} hold numbers that are none") from None
    return data


def _verdict(run: Run, answered: Data | None, followed: Followed) -> tuple[Verdict, str | None, str | None, bool]:
    """What is known, the state and a line about it where these are not of the verdict, and whether the run lives."""
    data = (answered or {}).get("verdict") or run.read()
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, StopIteration):
        if run.ended:
            return Verdict.from_dict(data), None, None, False
        if run.is_live() is not False:
            known = Verdict.from_dict(data) if data else followed.verdict().replace(outcome="running")
            return known, None, None, True
    left = remains(run.folder)
    if left is None:
        raise NothingTold(f"run {run.id} has left nothing that could be shown")
    why = "everything of it was killed at once, or the machine went down"
    return left.verdict, "cut off", f"no verdict: run {run.id} was cut off: {why}", False


def _of_verdict(verdict: Verdict) -> Followed:
    """Of a run that has no journal: it never began."""
    from rankguard.core.job import Job

    followed = Followed()
    followed.spec = JobSpec(
        run_id=verdict.run_id, command=verdict.command, argv=(), nprocs=max(1, len(verdict.ranks)), env={}, cwd=""
    )
    followed.job = Job(followed.spec)
    return followed


def _followed(path: str) -> tuple[Followed, float]:
    """The journal replayed, and the instant of its last fact. One that was changed or cut off tells as far as it goes."""
    followed = Followed()
    with contextlib.suppress(*CHANGED):
        for line in lines(path, _JOURNAL):
            followed.take(line)
    return followed, followed.job.now if followed.job is not None else 0.0


def _logs(folder: str, run: Followed, verdict: Verdict, view: Data, rules: Rules | None, *, ended: bool) -> list[Data]:
    """The culprit's longest. What the journal has of a rank's last lines was redacted while the run knew its secrets."""
    job = run.job
    assert job is not None
    attempt = len(job.attempts)
    saved = _saved(folder, attempt)
    told, rows = {each["rank"]: each for each in shown.told_logs(run, verdict)}, rows_of(job, verdict)
    redactor = Redactor() if rules is None else knowing(rules)
    redactor.env(os.environ)  # where its own secrets are not known any more, those of this shell may be the same
    for rank in range(min(job.spec.nprocs, len(job.ranks))):
        number = rows.get(rank)
        if number is None or number not in told:
            continue
        if rank in saved:
            told[number] = saved[rank] | {"rank": number}
        elif not ended and job.spec.log_max and not told[number]["streams"]:
            found = logs.log(folder, rank, attempt, job.spec.log_max, redactor.text, _LIVE_LINES, _READ)
            told[number] = found | {"rank": number} | ({"by_general_rules": True} if rules is None else {})
    ranked = [told[number] for number in logs.order(view["ranks"]) if number in told]
    return logs.fitted([each for each in ranked if each["streams"]], _LOGS)


def _saved(folder: str, attempt: int) -> dict[int, Data]:
    """What the supervisor has kept of the ranks that failed (`tails.json`), by its own numbers of them."""
    try:
        data = json.loads(b"".join(lines(f"{folder}/{logs.NAME}", _TAILS)))
        found = [each for each in data["logs"] if logs.is_log(each) and each["attempt"] == attempt]
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return {each["rank"]: each for each in found}
