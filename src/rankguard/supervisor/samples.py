"""What the ranks hold in memory, looked at now and then: the one thing about a living job that the kernel tells to nobody
unasked. For `report` of a live run, and for whoever wants to know how it stood when everything was cut off.

A few ranks at a time, so that a large job's look delays no news; the last look is in `samples.json` while the run lives.
Not the look on a failure (`Looked`), on which the verdict rests. Read next: `desk.py`, `../remains.py`.
"""

import json
from collections import deque
from collections.abc import Callable

from rankguard.core.job import Job
from rankguard.linux.glance import resident
from rankguard.linux.memory import MemoryDomain
from rankguard.record import to_data
from rankguard.report.files import RunFiles
from rankguard.wire import Message

FIRST_S, EVERY_S = 5.0, 30.0
_SLICE = 16
NAME = "samples.json"


class Samples:
    """Of one job; nothing is looked at any more once it is told to end."""

    def __init__(self, job: Job, domain: MemoryDomain, files: RunFiles, clock: Callable[[], float]) -> None:
        self._job, self._domain, self._files, self._clock = job, domain, files, clock
        self._due: float | None = clock() + FIRST_S
        self._todo: deque[int] = deque()
        self._held: dict[int, int] = {}
        self._at: float | None = None
        self._last: Message = {}

    def next_wake(self) -> float | None:
        return 0.0 if self._todo else self._due

    def wake(self, now: float) -> None:
        """Look at some ranks, if it is time."""
        if self._job.stopped_at is not None or self._job.ended == len(self._job.ranks):
            self._due, self._todo = None, deque()
            return
        if not self._todo:
            if self._due is None or now < self._due:
                return
            self._todo, self._held = deque(range(len(self._job.ranks))), {}
        for _ in range(min(_SLICE, len(self._todo))):
            self._look(self._todo.popleft())
        if not self._todo:
            self._keep(now)

    def told(self) -> Message:
        """The last look: `ranks` (rank, bytes), `age_s`, `memory` of the job's domain; empty when there was none."""
        return {} if self._at is None else self._last | {"age_s": round(self._clock() - self._at, 3)}

    def _look(self, number: int) -> None:
        rank = self._job.ranks[number]
        held = resident(rank.pid) if rank.exited is None else None
        if held is not None:
            self._held[number] = held

    def _keep(self, now: float) -> None:
        self._at, self._due = now, now + EVERY_S
        total = sum(self._held.values())
        self._last = {
            "ranks": [list(item) for item in self._held.items()],
            "memory": to_data(self._domain.state(total)),
        }
        self._files.save(NAME, json.dumps({"at": now} | self._last) + "\n")
