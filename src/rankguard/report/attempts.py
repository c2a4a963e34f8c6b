"""The attempts that failed before this one, in words. Read next: `text.py` (where they stand)."""

from collections.abc import Iterator
from datetime import datetime

from rankguard.model import Attempt, Verdict
from rankguard.report import wording as say

_NAMED = 3
"""Attempts that are told each by itself: the last ones."""


def earlier(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Labelled cells: what failed before, and why there was no further attempt."""
    failed = verdict.attempts
    if failed:
        told = [_one(attempt) for attempt in failed[-_NAMED:]]
        left_out = len(failed) - len(told)
        first = [f"{left_out} more"] if left_out else []
        yield "before", "; ".join(first + told)
    if verdict.not_restarted is not None:
        yield "again", f"no: {verdict.not_restarted}"


def succeeded_line(verdict: Verdict) -> str | None:
    """`attempt 3 succeeded; before: …`; null when it was the first."""
    if not verdict.attempts:
        return None
    return f"attempt {len(verdict.attempts) + 1} succeeded; before: {dict(earlier(verdict))['before']}"


def _one(attempt: Attempt) -> str:
    who = f", rank {attempt.rank}" if attempt.rank is not None else ""
    return f"attempt {attempt.attempt + 1} failed after {say.seconds(_failed_after(attempt))} ({attempt.cause}{who})"


def _failed_after(attempt: Attempt) -> float:
    """From its launch; `lasted_s` holds the stopping of the others, too, and is what there is where its failure has no instant."""
    try:
        began, failed = datetime.fromisoformat(attempt.started_at), datetime.fromisoformat(attempt.failed_at or "")
    except ValueError:
        return attempt.lasted_s
    return (failed - began).total_seconds()
