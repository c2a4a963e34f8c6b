"""The state of a run that has no verdict: one that goes on, or one that was cut off. Text for people, 80 columns."""

import json
import os
import stat
from collections.abc import Sequence

from rankguard.case import Case
from rankguard.diagnosis.words import ranges
from rankguard.model import Memory, MemoryState, Phase, RankOutcome, Verdict
from rankguard.record import Record, from_data
from rankguard.report import wording as say

_NAMED = 8
_WARNINGS = 3
_MOST = 16 << 20
_CLOCK = 1e10
"""No machine is up for so many seconds."""
_MATTERS_S = 10
"""Growth is told where it fills a hundredth of the limit within so long."""


class RankNow(Record):
    """A rank as far as it is known. `silent_s`: since it said `status`."""

    rank: int
    phase: Phase
    status: str | None = None
    done: float | None = None
    total: float | None = None
    silent_s: float | None = None


class Sampled(Record):
    """The last look at what the ranks held: bytes by rank, the job's limits, and how long before it was."""

    held: tuple[tuple[int, int], ...] = ()
    memory: MemoryState = MemoryState()
    growing: tuple[tuple[int, int], ...] = ()
    """Ranks and how fast they grew (bytes/s), the fastest first."""
    oom_kills: tuple[tuple[str, int], ...] = ()
    """Counters of OOM kills around the job as they stood: file and value."""
    age_s: float | None = None

    @property
    def share(self) -> float | None:
        """How full the limit was with what the kernel cannot take back: 0.998."""
        limit, used = self.memory.limit_bytes, self.memory.firm_bytes
        return used / limit if limit and used is not None else None


def last_look(folder: str) -> tuple[object, float | None]:
    """What `samples.json` in a run's folder holds, and its instant on the journal's clock."""
    try:
        fd = os.open(f"{folder}/samples.json", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(fd, "rb") as file:
            data = json.loads(file.read(_MOST)) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except (OSError, ValueError, RecursionError):
        return None, None
    at = data.get("at") if isinstance(data, dict) else None
    return (data, float(at)) if isinstance(at, int | float) and 0 <= at < _CLOCK else (None, None)


def sampled(data: object, age_s: object) -> Sampled:
    """From `samples.json` or a live run's answer; whatever has not its shape is left out."""
    told = data if isinstance(data, dict) else {}
    return Sampled(
        held=_pairs(told.get("ranks")),
        memory=_state(told.get("memory")),
        growing=_pairs(told.get("growing")),
        oom_kills=tuple(
            (pair[0], pair[1])
            for pair in _list(told.get("oom_kills"))
            if isinstance(pair, list) and list(map(type, pair)) == [str, int]
        ),
        age_s=float(age_s) if isinstance(age_s, int | float) else None,
    )


def remembered(case: Case, samples: Sampled) -> Case:
    """The case of a run that was cut off, with what its ranks held at the last look."""
    held = dict(samples.held)
    known = case.memory if samples.memory == MemoryState() else samples.memory.replace(age_s=samples.age_s)
    ranks = tuple(
        rank.replace(memory=Memory(held_bytes=held[rank.rank], age_s=samples.age_s))
        if rank.rank in held and rank.memory == Memory()
        else rank
        for rank in case.ranks
    )
    return case.replace(ranks=ranks, memory=known)


def _pairs(told: object) -> tuple[tuple[int, int], ...]:
    pairs = [pair for pair in _list(told) if isinstance(pair, list) and list(map(type, pair)) == [int, int]]
    return tuple((rank, size) for rank, size in pairs if 0 <= size < 1 << 60)


def _list(told: object) -> list[object]:
    return told if isinstance(told, list) else []


def _state(told: object) -> MemoryState:
    """Numbers that are none, or that no machine has, are left out."""
    if not isinstance(told, dict):
        return MemoryState()
    known: dict[str, object] = {
        field: value
        for field in MemoryState._fields
        if isinstance(value := told.get(field), int | float) and type(value) is not bool and 0 <= value < 1 << 60
    }
    source = told.get("limit_from")
    return from_data(MemoryState, known | ({"limit_from": source} if isinstance(source, str) else {}))


def ranks_now(verdict: Verdict, waiting: Sequence[Sequence[object]] = ()) -> tuple[RankNow, ...]:
    """The ranks of a live run's answers `report` and `progress` (rank, status, done, total, seconds of silence)."""
    said = {entry[0]: entry for entry in waiting if len(entry) == 5}
    return tuple(_of(row, said.get(row.rank)) for row in verdict.ranks if row.rank is not None)


def _of(row: RankOutcome, said: Sequence[object] | None) -> RankNow:
    phase = {"alive": row.phase, "lost": Phase.LOST}.get(row.ending.kind, Phase.ENDED)
    _rank, status, done, total, silent = said or (0, None, None, None, None)
    return RankNow(
        rank=row.rank or 0,
        phase=phase,
        status=status if isinstance(status, str) else None,
        done=float(done) if isinstance(done, int | float) else None,
        total=float(total) if isinstance(total, int | float) else None,
        silent_s=float(silent) if isinstance(silent, int | float) else None,
    )


def state_text(
    headline: str,
    verdict: Verdict,
    ranks: Sequence[RankNow],
    news: str,
    tails: Sequence[tuple[int, Sequence[str]]] = (),
    more: str = "",
    since: str = "before",
    samples: Sampled = Sampled(),  # noqa: B008  # frozen
) -> str:
    """`headline` is the first line; `news` tells when and what was last known; `more` where to read on.

    `since`: how the age of a status is told, `ago` or `before` (the last news).
    """
    lines = [say.printable(headline, 400), ""]
    cells = [
        ("when", f"launched {say.when(verdict.started_at) or 'at an unknown time'}; {news}"),
        ("ranks", _phases(ranks)),
    ]
    telling = [rank for rank in ranks if rank.status is not None and rank.phase is not Phase.ENDED]
    cells += [(f"rank {rank.rank}", _said(rank, since)) for rank in telling[:_NAMED]]
    cells += [("", f"and {len(telling) - _NAMED} more ranks said something")] if len(telling) > _NAMED else []
    cells.append(("memory", _memory(samples, since)))
    cells += [("" if n else "note", text) for n, text in enumerate(verdict.warnings[-_WARNINGS:])]
    for label, text in cells:
        lines += say.row(label, say.printable(text, 600), 80) if text else []
    for number, told in tails:
        lines += [f"  rank {number} said last", *say.quoted(told)] if told else []
    lines += say.row("more", say.printable(more, 600), 80) if more else []
    return "\n".join(lines)


def _phases(ranks: Sequence[RankNow]) -> str:
    groups: dict[str, list[int]] = {}
    for rank in ranks:
        groups.setdefault(say.phase(rank.phase), []).append(rank.rank)
    return "; ".join(f"{ranges(members)} {phase}" for phase, members in groups.items())


def _said(rank: RankNow, since: str) -> str:
    far = ""
    if rank.done is not None:
        far = f", {say.number(rank.done)}" + (f" of {say.number(rank.total)}" if rank.total else "")
    age = f", {say.whole_seconds(rank.silent_s)} {since}" if rank.silent_s is not None else ""
    return f'"{say.printable(rank.status or "", 80)}"{far}{age}'


def _memory(samples: Sampled, since: str) -> str:
    if not samples.held:
        return ""
    largest, who = max((size, rank) for rank, size in samples.held)
    total = sum(size for _rank, size in samples.held)
    age = f", {say.whole_seconds(samples.age_s)} {since}" if samples.age_s is not None else ""
    full = f"; {fullness(samples)}" if samples.memory.limit_bytes else ""
    return f"ranks {say.size(total)} in all, the largest rank {who} with {say.size(largest)}{age}{full}"


def fullness(samples: Sampled) -> str:
    """`99.8 % of 100 GiB (memory.max of …/job), growing 2.1 GiB/s, rank 6 fastest`."""
    state, share = samples.memory, samples.share
    limit = say.size(state.limit_bytes or 0)
    text = f"the limit is {limit}" if share is None else f"{100 * share:.1f} % of {limit}"
    text += f" ({say.cut_path(state.limit_from, 48)})" if state.limit_from else ""
    growth = int(state.growth_bytes_s or 0)
    if growth * _MATTERS_S > (state.limit_bytes or 0) / 100:
        text += f", growing {say.size(growth)}/s"
        text += f", rank {samples.growing[0][0]} fastest" if samples.growing else ""
    return text
