"""The state of a run that has no verdict: one that goes on, or one that was cut off. Text for people, 80 columns."""

from collections.abc import Sequence

from rankguard.model import Phase, RankOutcome, Verdict
from rankguard.record import Record
from rankguard.report import wording as say

_NAMED = 8


class RankNow(Record):
    """A rank as far as it is known. `silent_s`: since it said `status`."""

    rank: int
    phase: Phase
    status: str | None = None
    done: float | None = None
    total: float | None = None
    silent_s: float | None = None


class Sampled(Record):
    """The last look at what the ranks held: bytes by rank, the job's limit, and how long before it was."""

    held: tuple[tuple[int, int], ...] = ()
    limit_bytes: int | None = None
    age_s: float | None = None


def sampled(data: object, age_s: object) -> Sampled:
    """From `samples.json` or a live run's answer; whatever has not its shape is left out."""
    told = data if isinstance(data, dict) else {}
    pairs = told.get("ranks") if isinstance(told.get("ranks"), list) else []
    held = [tuple(pair) for pair in pairs or () if isinstance(pair, list) and list(map(type, pair)) == [int, int]]
    memory = told.get("memory")
    limit = memory.get("limit_bytes") if isinstance(memory, dict) else None
    return Sampled(
        held=tuple((rank, size) for rank, size in held if 0 <= size < 1 << 60),
        limit_bytes=limit if isinstance(limit, int) and 0 < limit < 1 << 60 else None,
        age_s=float(age_s) if isinstance(age_s, int | float) else None,
    )


def ranks_now(verdict: Verdict, waiting: Sequence[Sequence[object]] = ()) -> tuple[RankNow, ...]:
    """The ranks of a live run's answers `report` and `progress` (rank, status, done, total, seconds of silence)."""
    said = {entry[0]: entry for entry in waiting if len(entry) == 5}
    return tuple(_of(row, said.get(row.rank)) for row in verdict.ranks if row.rank is not None)


def _of(row: RankOutcome, said: Sequence[object] | None) -> RankNow:
    phase = row.phase if row.ending.kind == "alive" else Phase.ENDED
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
    return "; ".join(f"{say.ranges(members)} {phase}" for phase, members in groups.items())


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
    limit = f"; the limit is {say.size(samples.limit_bytes)}" if samples.limit_bytes is not None else ""
    return f"ranks {say.size(total)} in all, the largest rank {who} with {say.size(largest)}{age}{limit}"
