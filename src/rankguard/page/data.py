"""The object that the page shows: `rankguard.page/1`, from the replayed job, its chronicle and the verdict. Pure.

The same of a run that lives and of one that is over. Whatever ends in `_s` is seconds since the attempt's launch, in
`_bytes` bytes; unknown is null; every text is plain text. It decides nothing: state, verdict, relations and causes come
as they are. The shape is told in docs/probes.md. Read next: `rows.py`, `chronicle.py`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rankguard._version import __version__
from rankguard.core.job import Job, RankState
from rankguard.diagnosis.stacks import own_frames, sentence
from rankguard.model import Attempt, Ending
from rankguard.page.chronicle import Span, together
from rankguard.page.course import heard, rows_of
from rankguard.page.rows import rows_of_page, what_ended
from rankguard.page.seen import Data, Seen, since
from rankguard.record import to_data
from rankguard.stacks import Group

SCHEMA = "rankguard.page/1"
_FRAMES, _GROUPS = 40, 12
_SLOWEST = 0.05
"""A rank is the slowest to become ready if it is behind the median by so many seconds at least."""


def view(seen: Seen) -> Data:
    """The whole object but memory and logs, which have their own (`course.py`, `logs.py`)."""
    job, verdict = seen.job, seen.verdict
    rows = rows_of_page(seen)
    own = rows_of(job, verdict)
    return {
        "schema": SCHEMA,
        "rankguard": __version__,
        "live": seen.live,
        "made_at": _iso(seen.made_at),
        "now_s": since(job, seen.now),
        "state": seen.state,
        "run": _run(seen),
        "verdict": verdict.to_dict(),
        "report": None if seen.report is None else list(seen.report),
        "state_line": seen.state_line,
        "ranks": rows,
        "startup": _startup(seen, own),
        "deaths": _deaths(seen, rows, own),
        "stops": [{"at_s": since(job, at), "what": what} for at, what in seen.chronicle.stops],
        "moments": to_data(verdict.timeline),
        "signs": together(
            {own[rank]: each for rank, each in seen.chronicle.signs.items() if rank in own},
            max(0.0, since(job, seen.now) or 0.0),
            {own[rank]: each for rank, each in heard(seen.course, job).items() if rank in own},
        ),
        "stacks": _stacks(job),
        "attempts": [_attempt(each, verdict.started_at) for each in verdict.attempts],
        "doctor": None if seen.doctor is None else list(seen.doctor),
        "nodes": _nodes(job),
    }


def _run(seen: Seen) -> Data:
    spec, job = seen.job.spec, seen.job
    return {
        "id": spec.run_id,
        "command": list(spec.command),
        "folder": seen.folder,
        "started_at": seen.verdict.started_at or None,
        "attempt": len(job.attempts),
        "expects_ready": job.expects_ready,
        "watch": spec.watch is not None,
        "options": {
            "ready_timeout": spec.ready_timeout,
            "stall_timeout": spec.stall_timeout,
            "grace": spec.grace,
            "max_restarts": spec.max_restarts,
        },
    }


# ── Over time ────────────────────────────────────────────────────────────────────────────────────────────────────


def _startup(seen: Seen, own: Mapping[int, int]) -> Data:
    job = seen.job
    ready = sorted(r.ready_at for r in job.ranks[: job.spec.nprocs] if r.ready_at is not None)
    told: Data = {"ranks": [], "slowest": None, "behind_s": None, "all_ready_s": since(job, job.all_ready_at)}
    for rank in job.ranks:
        spans = seen.chronicle.spans.get(rank.rank, [])
        if (
            job.started_at is None
            or rank.rank not in own
            or (rank.member is not None and rank.member.role == "process")
        ):
            continue
        if rank.pid is None and not spans and seen.verdict.outcome != "running":
            continue
        if shown := _spans(job, rank, spans, seen):
            told["ranks"].append({"rank": own[rank.rank], "spans": shown})
    if job.all_ready_at is not None and len(ready) > 1:
        last = max(job.ranks[: job.spec.nprocs], key=lambda rank: rank.ready_at or 0.0)
        behind = (last.ready_at or 0.0) - ready[-2]
        if (last.ready_at or 0.0) - ready[len(ready) // 2 - 1] >= _SLOWEST:
            told["slowest"], told["behind_s"] = own.get(last.rank), round(behind, 6)
    return told


def _spans(job: Job, rank: RankState, spans: Sequence[Span], seen: Seen) -> list[Data]:
    """What it did until it was ready, had ended, or was told to end; the last one goes on where it is still at it."""
    until = rank.ready_at
    ends = [at for at in (rank.exited.at if rank.exited else None, job.stopped_at) if at is not None]
    if not job.expects_ready and rank.spawned_at is not None:
        until = rank.spawned_at
    if until is None and ends:
        until = min(ends)
    if until is None and not seen.live:
        until = seen.now
    first = spans[0].at if spans else until  # null: it is still being launched
    begun = job.started_at if rank.member is None else first
    told = [{"what": "launching", "from_s": since(job, begun), "to_s": since(job, first)}]
    for span, after in zip(spans, [*spans[1:], None], strict=False):
        to = after.at if after is not None else until
        if until is not None and (span.at >= until or to is None or to > until):
            to = until
        if until is None or span.at < until:
            told.append({"what": span.what, "from_s": since(job, span.at), "to_s": since(job, to)})
    return told if rank.member is None else told[1:]


def _deaths(seen: Seen, rows: Sequence[Data], own: Mapping[int, int]) -> list[Data]:
    """In the order in which they were seen. `failed_s`: its first failure of its own, such as an exception that it reported;
    `began_s`: until when, at the latest, its exit had begun as the kernel tells, `began_place`: before how many others.

    Of ranks on other nodes, and where a full disk has cut the journal short, the verdict's word is all that there is.
    """
    job = seen.job
    states = {row: job.ranks[rank] for rank, row in own.items()}
    found = []
    for row in rows:
        if row["ended_s"] is None or row["ending"] is None:
            continue
        rank = states.get(row["rank"])
        begun = rank.exited.begun if rank is not None and rank.exited is not None else None
        found.append(
            {
                "rank": row["rank"],
                "name": row["name"],
                "at_s": row["ended_s"],
                "failed_s": since(job, rank.failed_at) if rank is not None else None,
                "began_s": since(job, begun.latest) if begun is not None else None,
                "began_place": begun.place if begun is not None else None,
                "what": what_ended(Ending(**row["ending"])),
                "relation": row["relation"],
                "cause": row["cause"]["kind"] if row["cause"] is not None else None,
            }
        )
    return sorted(found, key=lambda death: (death["at_s"], death["rank"]))


# ── What else ────────────────────────────────────────────────────────────────────────────────────────────────────


def _stacks(job: Job) -> list[Data]:
    """Of the newest look at what all ranks do, the odd ones first."""
    looks = [look for look in (job.examined, job.mustered) if look is not None and look.groups]
    if not looks:
        return []
    newest = max(looks, key=lambda look: look.at)
    most = max(len(group.ranks) for group in newest.groups)
    many = sum(len(group.ranks) == most for group in newest.groups)
    return [_group(job, group, odd=many == 1 and len(group.ranks) < most) for group in newest.groups[:_GROUPS]]


def _group(job: Job, group: Group, *, odd: bool) -> Data:
    stack = group.stack
    frames = own_frames(stack.main.frames)
    told = [
        f"{frame.file or '?'}{'' if frame.line is None else f':{frame.line}'} {frame.function}"
        for frame in frames[:_FRAMES]
    ]
    if len(frames) > _FRAMES:
        told.append(f"and {len(frames) - _FRAMES} more calls")
    told += [] if frames else [f"in the kernel's {stack.main.waits_in}"] if stack.main.waits_in else []
    return {
        "ranks": [rank for rank in group.ranks if rank >= 0],
        "names": list(group.names),
        "title": sentence(group, job.spec.nprocs),
        "odd": odd,
        "frames": told,
        "why": stack.lacks,
    }


def _attempt(attempt: Attempt, started_at: str) -> Data:
    told: Data = to_data(attempt)
    first, this = _instant(attempt.started_at), _instant(started_at)
    told["from_s"] = None if first is None or this is None else round(first - this, 6)
    return told


def _nodes(job: Job) -> list[Data]:
    plan = job.spec.nodes
    if plan is None:
        return [{"name": job.spec.node or None, "state": "joined", "ranks": [0, len(job.ranks) - 1]}]
    found = []
    for number in range(plan.count):
        node = job.nodes.get(number)
        state = "lost" if number in job.lost_nodes else "silent" if number in job.silent_nodes else "joined"
        first = node.first if node is not None else number * plan.nproc
        count = node.count if node is not None else plan.nproc
        lost = job.lost_nodes.get(number)
        name = node.name if node is not None else lost.name if lost is not None else None
        if node is None and state == "joined":
            state = "missing"
        found.append({"name": name or None, "state": state, "ranks": [first, first + count - 1]})
    return found


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _instant(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
