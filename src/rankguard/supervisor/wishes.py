"""What somebody outside a job wants of it, remembered beyond the attempt in which it was said. Read next: `main.py`."""

import time
from collections.abc import Iterator

from rankguard.core.job import Job
from rankguard.facts import Fact, FrontLost, ReadinessExpected, Resumed, StopRequested, Suspended, WardenLost

clock = time.monotonic


class Wishes:
    """Of one attempt. `keeps`: the loss of one of our own processes is no wish that the job should end."""

    def __init__(self, job: Job, *, keeps: bool) -> None:
        self._job, self._keeps = job, keeps
        self.asked_to_end: Fact | None = None
        """Somebody wants this run to end, or one of our own processes is gone."""
        self._expected: ReadinessExpected | None = None
        self._suspended = False

    def note(self, fact: Fact) -> None:
        """A fact from outside the job, on its way to the core."""
        lost = isinstance(fact, FrontLost | WardenLost) and not self._keeps
        if isinstance(fact, StopRequested) or lost:
            self.asked_to_end = self.asked_to_end or fact
        elif isinstance(fact, ReadinessExpected):
            self._expected = fact
        elif isinstance(fact, Suspended | Resumed):
            self._suspended = isinstance(fact, Suspended)

    @property
    def last(self) -> str | None:
        """Why no attempt may follow, whatever became of this one."""
        if self.asked_to_end is not None:
            return "it was asked to end"
        wish, ready = self._expected, self._job.all_ready_at is not None
        if wish is not None and wish.timeout is not None and not ready and clock() >= wish.at + wish.timeout:
            return "whoever waited for it to be ready does not wait any longer"
        return None

    def carried(self) -> Iterator[Fact]:
        """What holds for the next attempt as well: readiness is expected, by the same instant; the job is suspended."""
        now, wish = clock(), self._expected
        if wish is not None and wish.timeout is not None and self._job.all_ready_at is None:
            yield ReadinessExpected(now, max(0.0, wish.at + wish.timeout - now))
        elif self._job.expects_ready:
            yield ReadinessExpected(now)
        if self._suspended:
            yield Suspended(now)
