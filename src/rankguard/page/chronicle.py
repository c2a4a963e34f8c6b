"""What a page shows and the job's state does not keep: what ranks said while they started, signs of life, signals sent.

Told each fact after `step` has taken it, with the orders that it gave; a fact costs the same however many ranks there
are, and what is kept is bounded. Pure. One chronicle is of one attempt: another one is made when the next begins.
Not the journal (`../core/story.py`), which has all of it. Read next: `data.py`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rankguard.core.job import Job
from rankguard.diagnosis.words import ranges, signal_name
from rankguard.facts import (
    Examined,
    Extended,
    Fact,
    FailureReported,
    Joined,
    LeavingTold,
    MemoryEased,
    MemoryShort,
    Mustered,
    Ready,
    Spawned,
    StatusTold,
)
from rankguard.model import Sign
from rankguard.orders import Order, SignalAll, SignalRank, Sweep

STEPS = 240
"""Of signs of life, at most; when there are more, two become one."""
FINEST_S = 0.05
"""Of a step. A failure in the first seconds is seen, too."""
CELLS, _LEAST = 24_000, 24
"""Numbers of all ranks together; but no fewer steps than that."""
SPANS = 40
"""Of one rank's start-up; what is said after that belongs to the last one."""
STOPS = 200
_TEXT = 200
_LONGEST_S = 1e10
_SIGCONT = 18
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


class Span:
    """What a rank did from an instant on, in its own words or ours. `alike`: its words without their numbers."""

    __slots__ = ("alike", "at", "what")

    def __init__(self, what: str, at: float, alike: str | None = None) -> None:
        self.what, self.at, self.alike = what, at, alike


class Signs:
    """How many signs of life a rank gave in each step of time since the launch: `FINEST_S` at first, twice that when it is full."""

    __slots__ = ("counts", "step")

    def __init__(self) -> None:
        self.step = FINEST_S
        self.counts: list[int] = []

    def add(self, since: float) -> None:
        since = min(since, _LONGEST_S)  # no run is longer, whatever a file says
        at = int(max(0.0, since) / self.step)
        while at >= STEPS:
            self.counts, self.step = _halved(self.counts), self.step * 2
            at = int(max(0.0, since) / self.step)
        if at >= len(self.counts):
            self.counts += [0] * (at + 1 - len(self.counts))
        self.counts[at] += 1

    def by(self, step: float) -> list[int]:
        """The counts in wider steps."""
        counts, mine = self.counts, self.step
        while mine < step:
            counts, mine = _halved(counts), mine * 2
        return counts


class Chronicle:
    """Of one attempt. `spans`, `signs` and `last` are by rank; `stops` has (instant, what was sent to whom, and why)."""

    def __init__(self) -> None:
        self.spans: dict[int, list[Span]] = {}
        self.signs: dict[int, Signs] = {}
        self.last: dict[int, tuple[float, str]] = {}
        """A rank's last sign of life: its instant, and what it was."""
        self.stops: list[tuple[float, str]] = []
        self.short_at: float | None = None
        """Since when a memory limit has been near, as a warning said."""
        self._said: dict[int, str] = {}
        self._stopping = ""

    def take(self, job: Job, fact: Fact, orders: tuple[Order, ...]) -> None:
        """One fact that `job` has taken, and what it led to."""
        if isinstance(fact, StatusTold):
            self._status(job, fact)
        elif isinstance(fact, Spawned):
            self._begin(job, fact.rank, "starting", fact.at)
        elif isinstance(fact, Ready):
            self._heard(job, fact.rank, fact.at, "readiness")
        elif isinstance(fact, Extended | LeavingTold | FailureReported):
            self._heard(job, fact.rank, fact.at, "message")
        elif isinstance(fact, Joined):
            self._begin(job, fact.rank, "starting", fact.at)
        elif isinstance(fact, Examined | Mustered):
            self._hear(job, fact.signs)
        elif isinstance(fact, MemoryShort):
            self.short_at = self.short_at or fact.at
        elif isinstance(fact, MemoryEased):
            self.short_at = None
        for order in orders:
            if isinstance(order, SignalAll | SignalRank | Sweep):
                self._signal(job, fact.at, order)

    def _hear(self, job: Job, signs: Iterable[Sign]) -> None:
        """What the launcher knows of the last sign of each rank, output among them."""
        for sign in signs:
            if sign.at is not None and sign.at > self.last.get(sign.rank, (float("-inf"), ""))[0]:
                self._heard(job, sign.rank, sign.at, sign.by or "message")

    def _status(self, job: Job, fact: StatusTold) -> None:
        what = "progress" if fact.done is not None else "status" if fact.text else "heartbeat"
        self._heard(job, fact.rank, fact.at, what)
        if fact.text and fact.rank < len(job.ranks) and job.ranks[fact.rank].ready_at is None:
            said = fact.text[:_TEXT]
            if said != self._said.get(fact.rank):  # most messages of a rank say what the one before said
                self._said[fact.rank] = said
                self._begin(job, fact.rank, said, fact.at)

    def _begin(self, job: Job, rank: int, what: str, at: float) -> None:
        spans = self.spans.setdefault(rank, [])
        alike = _NUMBER.sub("…", what)
        if spans and spans[-1].alike == alike:
            spans[-1].what = alike  # `loading shard 3 of 17`, then 4: one thing that it does
        elif len(spans) < SPANS:
            spans.append(Span(what, at, alike))
        else:
            spans[-1].what = "and more"

    def _heard(self, job: Job, rank: int, at: float, what: str) -> None:
        self.last[rank] = at, what
        found = self.signs.get(rank)
        if found is None:
            found = self.signs[rank] = Signs()
        found.add(at - (job.started_at if job.started_at is not None else at))

    def _signal(self, job: Job, at: float, order: SignalAll | SignalRank | Sweep) -> None:
        if len(self.stops) >= STOPS:
            return
        if isinstance(order, SignalRank):
            told = f"{signal_name(order.signal)} to rank {order.rank}: {order.because}"
        elif isinstance(order, Sweep):
            if not order.kill:  # nearly always there is nothing left that could get it
                return
            told = f"SIGKILL to all that is left: {order.because}"
        else:
            if order.signal == _SIGCONT and job.stopped_at is not None:
                return  # so that whoever stands still hears what was sent just now
            left = [r.rank for r in job.ranks if r.pid is not None and not r.gone and r.rank not in order.spare]
            if not left:
                return
            noun = "ranks" if len(left) > 1 else "rank"
            whom = f"{noun} {ranges(left)}" if job.spec.watch is None else "the engine"
            if job.spec.share is not None and job.spec.watch is None:  # our numbers are not those of the job
                whom = f"{len(left)} {noun} of this node"
            told = f"{signal_name(order.signal)} to {whom}: {order.because}"
        if told != self._stopping:
            self._stopping = told
            self.stops.append((at, told))


def together(
    signs: Mapping[int, Signs], until: float, heard: Mapping[int, Sequence[tuple[float, float]]] | None = None
) -> dict[str, Any] | None:
    """The signs of all ranks in steps of one width, up to an instant since launch; null where there is none.

    `heard`: stretches of time in each of which a rank gave at least one sign, which may have been a line of output.
    """
    heard = heard or {}
    ranks = sorted(signs.keys() | heard.keys())
    if not ranks:
        return None
    step = max((each.step for each in signs.values()), default=FINEST_S)
    most = max(_LEAST, min(STEPS, CELLS // len(ranks)))
    while until / step > most - 1:
        step *= 2
    count = int(until / step) + 1
    told: dict[str, list[int]] = {}
    for rank in ranks:
        counts = signs[rank].by(step) if rank in signs else []
        counts = [*counts, *([0] * (count - len(counts)))][:count]
        for first, last in heard.get(rank, ()):
            if last - first < 2 * step:  # a sign between two looks belongs to one step, not to both that they touch
                first = last = (first + last) / 2  # noqa: PLW2901
            for at in range(int(max(0.0, first) / step), min(count, int(last / step) + 1)):
                counts[at] = max(1, counts[at])
        told[str(rank)] = counts
    return {"from_s": 0.0, "step_s": step, "ranks": told}


def _halved(counts: Sequence[int]) -> list[int]:
    even = [*counts, 0] if len(counts) % 2 else counts
    return [even[at] + even[at + 1] for at in range(0, len(even), 2)]
