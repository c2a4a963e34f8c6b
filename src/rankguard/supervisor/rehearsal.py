"""What a failure needs is loaded, and gone through once, while all ranks run and nothing else is to be done.

Modules that no start waits for would else be read from the disk between the first failure and the error in somebody's
hand: 20 ms of the 27 that it took. Two made-up failures of a made-up job of two ranks then go through core, diagnosis and
journal, which are pure, and what comes out is thrown away: after that Python knows the way (its caches of patterns,
attributes and instructions are filled). A step at a time, so that real news waits for none but the one at work.

Read next: `../driver.py` (who calls), `survey.py` (the largest of what is loaded), `main.py`.
"""

import json
from collections.abc import Iterator
from importlib import import_module

from rankguard._version import __version__
from rankguard.core import story
from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import Exited, Fact, JobStarted, Looked, Signalled, Spawned
from rankguard.model import Ending, Memory
from rankguard.orders import Judge, Order

AFTER_S = 0.2
"""After the last rank was started. Ranks have the processors first, and a job that ends at once does without."""
MODULES = (
    "rankguard.diagnosis.wants",
    "glob",
    "platform",
    "rankguard.linux.devices",
    "rankguard.linux.surroundings",
    "rankguard.linux.portuse",
    "rankguard.linux.gpus",
    "rankguard.supervisor.survey",
    "rankguard.diagnosis.xids",
    "rankguard.diagnosis.hints.gpu",
    "rankguard.diagnosis.hints.kinds",
    "rankguard.diagnosis.hints.machine",
    "rankguard.diagnosis.hints.python",
    "rankguard.diagnosis.gpus",
)
"""What most failures load; in an order in which none of them takes long. A test holds that nothing is missing."""
_ENDINGS = (
    (Ending(kind="signal", signal="SIGKILL", number=9), ()),
    (
        Ending(kind="exit", code=1),
        (
            "Traceback (most recent call last):",
            '  File "/program.py", line 1, in main',
            "ValueError: this is a rehearsal",
        ),
    ),
)


class Rehearsal:
    """Of one job; a part of the supervisor. Does nothing once something has failed, or somebody asked to end."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._due: float | None = None
        self._steps: Iterator[None] | None = _steps(job)

    def next_wake(self) -> float | None:
        return self._due

    def wake(self, now: float) -> None:
        """One step, if it is time."""
        job = self._job
        if self._steps is None or (self._due is None and job.spawned < len(job.ranks)):
            return
        if job.failed_at is not None or job.stopped_at is not None or job.ended:
            self._due = self._steps = None
        elif self._due is None:
            self._due = now + AFTER_S
        elif now >= self._due and next(self._steps, _OVER) is _OVER:
            self._due = self._steps = None


_OVER = object()


def _steps(job: Job) -> Iterator[None]:
    for name in MODULES:
        import_module(name)
        yield
    for ending, tail in _ENDINGS:
        for _ in range(2):  # what comes first is learned the second time
            yield from play(job, ending, tail)


def play(job: Job, ending: Ending, tail: tuple[str, ...]) -> Iterator[None]:
    """A failure of rank 0 of two, as it would be told: journal, judgement, verdict."""
    made_up = Job(job.spec.replace(nprocs=2, rank_env=(), names=(), ready_timeout=None, stall_timeout=None))
    at = job.now
    held = Memory(rss_bytes=1 << 20, held_bytes=1 << 20)
    for fact in (
        JobStarted(at, job.started_wall),
        Spawned(at, 0, 1),
        Spawned(at, 1, 2),
        Exited(at, 0, ending, log_tail=tail),
        Looked(at, memory=((1, held),), state=job.memory),
        Signalled(at, 15, 1),
    ):
        for order in _take(made_up, fact):
            if isinstance(order, Judge):
                _take(made_up, choose(made_up.case().replace(now=at)))
    yield
    json.dumps(verdict(made_up.case().replace(now=at), __version__).to_dict())
    yield


def _take(job: Job, fact: Fact) -> tuple[Order, ...]:
    orders = step(job, fact)
    story.lines(fact, orders)
    return orders
