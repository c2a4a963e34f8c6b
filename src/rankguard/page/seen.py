"""What a page is made of: the run as it has been followed up to an instant, and that instant. Values only.

Read next: `data.py` (what is made of it).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rankguard.core.job import Job
from rankguard.model import Verdict
from rankguard.page.chronicle import Chronicle
from rankguard.page.course import Point

Data = dict[str, Any]


class Seen(NamedTuple):
    """All that a view is made of. `now`: the instant that is shown as now, on the journal's clock; `made_at`: the same as
    the time of day (seconds since the epoch). `held`: what each rank holds, of a run that lives. `report`: the final text.
    """

    job: Job
    chronicle: Chronicle
    verdict: Verdict
    state: str
    now: float
    made_at: float
    live: bool = False
    state_line: str | None = None
    report: Sequence[str] | None = None
    folder: str | None = None
    held: Mapping[int, int] = {}
    course: Sequence[Point] = ()
    doctor: Sequence[Data] | None = None


def since(job: Job, at: float | None) -> float | None:
    """Seconds since the launch of the attempt; null of what has not happened."""
    if at is None or job.started_at is None:
        return None
    return round(at - job.started_at, 6)
