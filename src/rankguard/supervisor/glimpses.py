"""A glimpse of the ranks for the live view: what is told of them a few times a second.

Made in one walk over the ranks and a handful of reads, however many ranks there are: of many ranks only those are told
that hold everybody up. It is no fact and not in the journal: nothing is decided by it. Read next: `onscreen.py`.
"""

from collections.abc import Callable
from typing import Any

from rankguard.core.job import Job, RankState
from rankguard.linux.glance import resident
from rankguard.linux.memory import MemoryDomain
from rankguard.model import Phase
from rankguard.wire import Message

_TEXT = 200
"""Characters of a status: more than any line shows."""


class Glimpses:
    """Of one job. `tell` reaches the front; `heard_at(rank)` is when a rank last said or printed anything."""

    def __init__(
        self,
        job: Job,
        memory: MemoryDomain,
        heard_at: Callable[[int], float | None],
        tell: Callable[[Message], None],
        *,
        here: bool = True,
    ) -> None:
        """`here`: the ranks are processes of this machine."""
        self._job, self._memory, self._heard_at, self._tell, self._here = job, memory, heard_at, tell, here
        self._wanted = False

    def ask(self, ask: Message, now: float) -> Message | None:
        """`{"do": "glimpse", "rows": most ranks to be told}`; with `"when": "spoken"` the front is told once a rank speaks."""
        if ask.get("when") == "spoken":
            self._wanted = True
            return None
        job = self._job
        counts: dict[str, int] = {}
        held_up: list[tuple[bool, float, int]] = []
        heard = told = None
        for rank in job.ranks:
            phase = _shown(job.phase(rank))
            counts[phase] = counts.get(phase, 0) + 1
            at = self._heard_at(rank.rank)
            if at is not None and (heard is None or at > heard):
                heard = at
            said = rank.status
            if said is not None and (told is None or said.at > told):
                told = said.at
            if rank.ready_at is None and not rank.gone and rank.not_spawned is None:
                held_up.append(_holds_up(rank, at, now))
        return {
            "is": "glimpse",
            "n": len(job.ranks),
            "elapsed": now - _began(job, now),
            "expects": job.expects_ready,
            "ready": job.ready,
            "counts": counts,
            "executing": job.spawned,
            "heard": None if heard is None else now - heard,
            "told": None if told is None else now - told,
            "rows": [self._row(job.ranks[number], now) for number in self._chosen(held_up, ask["rows"])],
            "memory": self._used(),
        }

    def spoken(self) -> None:
        """A rank told a status: the front may wait for that."""
        if self._wanted:
            self._wanted = False
            self._tell({"is": "spoken"})

    def _chosen(self, held_up: list[tuple[bool, float, int]], most: int) -> list[int]:
        """All ranks if there is room for all; else those that hold everybody up, in the order of their numbers."""
        everybody = len(self._job.ranks)
        if everybody <= most:
            return list(range(everybody))
        held_up.sort()
        return sorted(number for _, _, number in held_up[:most])

    def _row(self, rank: RankState, now: float) -> list[Any]:
        """Rank, phase, text, done, total, unit, seconds of silence, resident bytes, seconds until it was ready."""
        said = rank.status
        text = done = total = unit = None
        if said is not None:
            text = said.text[:_TEXT] if said.text is not None else None
            done, total, unit = said.done, said.total, said.unit
        heard = self._heard_at(rank.rank) or rank.spawned_at
        return [
            rank.rank,
            _shown(self._job.phase(rank)),
            text,
            done,
            total,
            unit,
            None if heard is None else now - heard,
            resident(rank.pid) if rank.exited is None and self._here else None,
            None if rank.ready_at is None else rank.ready_at - _began(self._job, now),
        ]

    def _used(self) -> list[int | None]:
        """Used and limit of the job's memory, in bytes. What the kernel gives back first (file cache) is not counted."""
        if not self._here:
            return [None, None]
        state = self._memory.state()
        used = state.used_bytes
        if used is not None and state.cache_bytes is not None:
            used = max(0, used - state.cache_bytes)
        return [used, state.limit_bytes]


def _began(job: Job, now: float) -> float:
    return now if job.started_at is None else job.started_at


def _shown(phase: Phase) -> str:
    """As users know it: a rank that does not execute yet is starting, too."""
    return "starting" if phase is Phase.LAUNCHING else str(phase)


def _holds_up(rank: RankState, heard: float | None, now: float) -> tuple[bool, float, int]:
    """To sort by: long silence first, then the least done."""
    silent = now - (heard or rank.spawned_at or now)
    if silent >= 10.0:
        return False, -round(silent, -1), rank.rank
    said = rank.status
    done = said.done / said.total if said is not None and said.done is not None and said.total else 0.0
    return True, round(done, 1), rank.rank
