"""Who came to a collective that timed out: in the supervisor (`Muster` → `Mustered`).

What everybody's output has said of collectives, PyTorch's records where it has left any (`records.py`), and the stacks
of those that are alive and have not said that they timed out: one of them was waited for. Those that give up are left alone.
It takes `MOST_S` at most while anybody lives: of whoever has not been read by then the kernel's own words must do. When
all have ended nobody waits but the verdict, and records are what is left: they may take `ENDED_S`. Nobody is woken or
stopped, and nothing is decided here.

Ranks leave their records one after the other, most often just before they end. So where one has left a record, those
that live and have left none are waited for: it is looked for again when a rank ends, and after `AGAIN_S`.

Read next: `core/muster.py` (when), `diagnosis/collectives.py` (what it means), `snapshots.py`.
"""

from collections.abc import Callable

from rankguard.collective import Remark
from rankguard.core.job import Job
from rankguard.diagnosis.collective_words import told
from rankguard.facts import Fact, Mustered
from rankguard.launchers.redaction import redacted
from rankguard.linux.procstack import kernel_stack
from rankguard.model import Sign
from rankguard.stacks import UNREAD, Stack
from rankguard.supervisor.examination import told_groups
from rankguard.supervisor.records import Records
from rankguard.supervisor.snapshots import Snapshots

MOST_S = 2.0
ENDED_S = 10.0
"""Reading begins anew when the sweep of what the ranks left behind is over, which may take the grace (5 s)."""
AGAIN_S = 1.0
MOST_RANKS = 16
"""Stacks of more ranks are not taken: where so many have not timed out, the one is not found by its stack."""


class Muster:
    """Of one job, once in its life. `signs(now)` are the ranks' last signs of progress."""

    def __init__(
        self,
        job: Job,
        snapshots: Snapshots,
        records: Records,
        signs: Callable[[float], tuple[Sign, ...]],
        remarks: Callable[[int], tuple[str, ...]],
        emit: Callable[[Fact], None],
        redact: Callable[[str], str],
    ) -> None:
        self._job, self._snapshots, self._records = job, snapshots, records
        self._signs, self._remarks = signs, remarks
        self._emit, self._redact = emit, redact
        self._until: float | None = None
        self._again = self._began = 0.0
        self._living = 0
        self._found: dict[int, Stack] = {}
        self._wanted: tuple[int, ...] = ()
        self._all_found = self._read = self._told = False

    def begin(self, spoken: tuple[int, ...], now: float) -> None:
        """Start; `Mustered` comes from `wake`."""
        alive = set(self._alive()) - set(spoken)
        silent = [rank for rank in alive if not told(rank, self._remarks(rank)).timed_out]
        heard = {sign.rank: sign.at or 0.0 for sign in self._signs(now)}
        self._wanted = tuple(sorted(silent, key=lambda rank: (heard.get(rank, 0.0), rank))[:MOST_RANKS])
        self._began, self._until, self._again = now, now + MOST_S, now + AGAIN_S
        self._all_found, self._living = not self._wanted, len(self._alive())
        self._read_records()

        def done(_found: dict[int, Stack]) -> None:
            self._all_found = True

        if self._wanted:
            self._found = self._snapshots.take(self._wanted, done)

    def _read_records(self) -> None:
        self._read = False
        self._records.read(range(len(self._job.ranks)), self._all_read)

    def _all_read(self) -> None:
        self._read = True

    def _complete(self) -> bool:
        """Nothing more can come: stacks and records are there, and no rank that lives may leave a record yet."""
        recorded, alive = {each.rank for each in self._records.found}, set(self._alive())
        return self._read and (self._all_found or not alive) and not (recorded and alive - recorded)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called; at once when it has just told something, which is still in the queue."""
        if self._told or (self._until is not None and self._complete()):
            return 0.0
        return min(self._until, self._again) if self._until is not None and self._read else self._until

    def wake(self, now: float) -> None:
        """Tell what was found, when all is there or the time is over."""
        self._told = False
        if self._until is None:
            return
        living = len(self._alive())
        # A sweep of what the ranks left behind ends all programs of ours; it is over when the tree is empty.
        cut_off = not self._read and not self._records.at_work and self._job.tree is not None
        if cut_off or (self._read and (living < self._living or now >= self._again)):
            self._living = living
            self._again = now + AGAIN_S
            self._read_records()
        if not living:
            self._until = self._began + ENDED_S
        if now < self._until and not self._complete():
            return
        self._records.close()
        self._until, self._told = None, True
        alive = self._alive()
        found = {rank: stack for rank, stack in self._found.items() if rank in alive}
        for rank in self._wanted:
            if rank in alive and rank not in found and (known := kernel_stack(alive[rank])) is not None:
                found[rank] = known.replace(lacks=UNREAD)
        _text, saved = self._snapshots.keep(found, sorted(found)) if found else ("", None)
        remarks = tuple(Remark(rank, lines) for rank in alive if (lines := self._remarks(rank)))
        recorded = self._records.found
        told_all = Mustered(now, self._signs(now), told_groups(found), remarks, recorded, saved)
        self._emit(redacted(told_all, self._redact))

    def _alive(self) -> dict[int, int]:
        return {rank.rank: rank.pid for rank in self._job.ranks if rank.pid is not None and rank.exited is None}
