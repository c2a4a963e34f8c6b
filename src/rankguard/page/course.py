"""Memory over a run: what each look at the ranks saw, a line a look (`memory.jsonl`), thinned as it ages.

A line: `at` (seconds of the journal's clock), `kib` (rank → what it held; one that was not seen is not there), `used` and
`limit` (bytes, of the limit with the least room), `from` (which limit that is), `heard` (a number in base 16 whose bits are
the ranks that gave a sign of life since the line before). Pure; whoever writes the lines is `supervisor/memorylog.py`,
what was looked at is told in `supervisor/samples.py`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rankguard.core.job import Job
from rankguard.model import Verdict

NAME = "memory.jsonl"
POINTS, CELLS = 600, 24_000
"""Of what a page is given: points in time, and numbers in all."""
_LEAST_AT, _MOST_AT = 0.0, 1e10
"""No machine is up for so many seconds."""
_MOST_RANKS = 100_000


class Point(NamedTuple):
    """One look."""

    at: float
    held: Mapping[int, int]
    used: int | None = None
    limit: int | None = None
    limit_from: str | None = None
    heard: int = 0


def base_of(at: float, held: Mapping[int, int], used: int | None, limit: int | None, source: str | None) -> bytes:
    """A line but for its end, which `line_of` adds: who was heard changes when the line before is left out."""
    kib = ",".join(f'"{rank}":{size >> 10}' for rank, size in held.items())
    rest = f',"limit":{limit}' if limit is not None else ""
    rest += f',"used":{used}' if used is not None else ""
    rest += f',"from":{json.dumps(source)}' if source is not None else ""
    return f'{{"at":{at:.3f},"kib":{{{kib}}}{rest}'.encode()


def line_of(base: bytes, heard: int) -> bytes:
    """The whole line."""
    return base + b',"heard":"%x"}\n' % heard


def kept(ats: Sequence[float], most: int) -> list[int]:
    """Which of some instants to keep, `most` at most: the older one is, the farther apart. The first and the last stay."""
    if len(ats) <= most:
        return list(range(len(ats)))
    few, many = 0.0, 1e6
    found: list[int] = []
    for _ in range(20):  # as many as may be: how far apart they are for their age is searched for
        ratio = (few * many) ** 0.5 if few else many / 1e3
        chosen = _apart(ats, ratio, most)
        if chosen is None:
            many = ratio
        else:
            few, found = ratio, chosen
        if few and many / few < 1.05 or len(found) > 0.95 * most:  # noqa: RUF021  # read from left to right
            break
    return found or [0, *range(len(ats) - max(1, most - 1), len(ats))]


def _apart(ats: Sequence[float], ratio: float, most: int) -> list[int] | None:
    """Those that are a share of their age apart; None when these are more than `most`."""
    now = last = ats[-1]
    found = [len(ats) - 1]
    for at in range(len(ats) - 2, 0, -1):
        if last - ats[at] >= (now - ats[at]) / ratio:
            found.append(at)
            last = ats[at]
            if len(found) >= most:
                return None
    return [0, *found[::-1]]


def points(lines: Iterable[bytes]) -> list[Point]:
    """Those of a file, whoever may have written it: what has not the shape of a line is left out."""
    return points_of(_entries(lines))


def points_of(entries: Iterable[Any], before: Sequence[Point] = ()) -> list[Point]:
    """The same from lines that are read already; `before`: what they follow."""
    told: list[Point] = list(before[-1:])
    for entry in entries:
        try:
            at = float(entry["at"])
            held = {int(rank): int(size) << 10 for rank, size in entry["kib"].items()}
            source = str(entry["from"])[:400] if "from" in entry else told[-1].limit_from if told else None
            mask = int(str(entry.get("heard", "0"))[: _MOST_RANKS // 4], 16)
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
            continue
        if _LEAST_AT <= at < _MOST_AT and (not told or at > told[-1].at):  # the file may have told it already
            told.append(Point(at, held, _size(entry.get("used")), _size(entry.get("limit")), source, max(0, mask)))
    return told[len(before[-1:]) :]


def _entries(lines: Iterable[bytes]) -> Iterator[Any]:
    for line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            continue


def rows_of(job: Job, verdict: Verdict) -> dict[int, int]:
    """The row of the verdict for each rank of the job. One node's journal is of its own ranks, the verdict of all nodes'."""
    if job.spec.share is None:
        return {rank: rank for rank in range(min(len(job.ranks), len(verdict.ranks)))}
    numbers = {row.pid: number for number, row in enumerate(verdict.ranks) if row.node == job.spec.node}
    return {rank.rank: numbers[rank.pid] for rank in job.ranks if rank.pid is not None and rank.pid in numbers}


def of_attempt(course: Sequence[Point], job: Job) -> list[Point]:
    """Those of this attempt, and the look on its first failure, which is in the journal."""
    started, looked = job.started_at, job.looked
    if started is None:
        return []
    own = [point for point in course if point.at >= started]
    if looked is not None and looked.memory:
        held = {rank: memory.held_bytes for rank, memory in looked.memory if memory.held_bytes is not None}
        state = looked.state
        used = state.used_bytes if state.age_s is None else None  # it was fuller before
        own.append(Point(looked.at, held, used, state.limit_bytes, state.limit_from))
        own.sort(key=lambda point: point.at)
    return own


def memory(
    course: Sequence[Point], job: Job, verdict: Verdict, short_at: float | None, since: float | None = None
) -> Any:
    """The page's `memory`; null where nothing is known. `since`: only points after so many seconds since the launch."""
    own = of_attempt(course, job)
    started = job.started_at or 0.0
    if since is not None:
        own = [point for point in own if round(point.at - started, 3) > since]  # as it has been told
    elif not own:
        return None
    ranks = sorted({rank for point in own for rank in point.held})
    chosen = [own[at] for at in kept([point.at for point in own], max(8, min(POINTS, CELLS // max(1, len(ranks)))))]
    rows = rows_of(job, verdict)
    limits = [point for point in own if point.limit is not None]
    state = verdict.memory
    return {
        "limit_bytes": limits[-1].limit if limits else state.limit_bytes if state is not None else None,
        "limit_from": limits[-1].limit_from if limits else state.limit_from if state is not None else None,
        "at_s": [round(point.at - started, 3) for point in chosen],
        "used_bytes": [point.used for point in chosen],
        "ranks": {str(rows[rank]): [point.held.get(rank) for point in chosen] for rank in ranks if rank in rows},
        "kills": _kills(job, verdict),
        "near_s": None if short_at is None else round(short_at - started, 6),
    }


def heard(course: Sequence[Point], job: Job) -> dict[int, list[tuple[float, float]]]:
    """By rank: stretches of time (since the launch), in each of which it gave a sign of life."""
    found: dict[int, list[tuple[float, float]]] = {}
    started = job.started_at or 0.0
    before = 0.0
    for point in of_attempt(course, job):
        at, mask = point.at - started, point.heard
        while mask:
            found.setdefault((mask & -mask).bit_length() - 1, []).append((before, at))
            mask &= mask - 1
        before = at
    return found


def last_heard(course: Sequence[Point], job: Job) -> dict[int, float]:
    """By rank: the instant of the last look that noticed a sign of life."""
    found: dict[int, float] = {}
    seen = 0
    for point in reversed(of_attempt(course, job)):
        new = point.heard & ~seen
        seen |= new
        while new:
            found[(new & -new).bit_length() - 1] = point.at
            new &= new - 1
    return found


def _kills(job: Job, verdict: Verdict) -> list[dict[str, Any]]:
    """Ranks that the kernel's OOM killer ended, as the verdict has it: the culprit first, then as they died."""
    if job.spec.share is not None:
        return []
    found = []
    for number, (row, rank) in enumerate(zip(verdict.ranks, job.ranks, strict=False)):
        if row.cause is None or row.cause.kind != "oom-kill" or rank.exited is None or job.started_at is None:
            continue
        begun = rank.exited.begun
        at = rank.exited.at if begun is None else min(begun.latest, rank.exited.at)
        what = f"killed by the kernel's OOM killer ({row.cause.confidence})"
        found.append({"rank": number, "at_s": round(at - job.started_at, 6), "what": what})
    culprit = verdict.culprit.rank if verdict.culprit is not None else None
    return sorted(found, key=lambda kill: (kill["rank"] != culprit, kill["at_s"]))


def _size(told: object) -> int | None:
    return told if type(told) is int and 0 <= told < 1 << 60 else None
