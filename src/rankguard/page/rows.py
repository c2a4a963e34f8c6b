"""A row of the page for each rank: who it is, where it stands, what it said last, how it ended. Pure.

The rows are the verdict's; the journal at hand adds what it knows of its own ranks. Read next: `data.py`.
"""

from collections.abc import Mapping

from rankguard.core.job import Job, RankState
from rankguard.model import Ending, Phase, RankOutcome
from rankguard.page.course import last_heard, rows_of
from rankguard.page.seen import Data, Seen, since

LOOK_S = 2.0
"""A look notices a sign that late; one so near to a fact is that fact."""


def rows_of_page(seen: Seen) -> list[Data]:
    """One for each rank of the verdict, in its order, with what the journal at hand knows of it."""
    job = seen.job
    states = job.ranks
    mine = {row: states[rank] for rank, row in rows_of(job, seen.verdict).items()}
    pairs = [(row, mine.get(number)) for number, row in enumerate(seen.verdict.ranks)]
    noticed = last_heard(seen.course, job)
    return [_row(seen, number, row, rank, noticed) for number, (row, rank) in enumerate(pairs)]


def _row(seen: Seen, number: int, row: RankOutcome, rank: RankState | None, noticed: Mapping[int, float]) -> Data:
    job = seen.job
    said = rank.status if rank is not None else None
    last = _last_sign(seen, rank.rank, noticed) if rank is not None else None
    held = seen.held.get(rank.rank) if rank is not None and seen.live else None
    gone = rank is None or rank.gone or rank.not_spawned is not None or not seen.live
    member = rank.member if rank is not None else None
    return {
        "rank": number,
        "name": row.name,
        "role": row.role or (member.role if member is not None else job.spec.role),
        "index": member.index if member is not None else None,
        "node": row.node or None,
        "local_rank": None if rank is None or job.spec.watch is not None else _local(job, rank.rank),
        "pid": row.pid,
        "phase": _phase(seen, row, rank),
        "relation": row.relation if gone and row.ending.kind != "alive" else None,
        "either": number in seen.verdict.either,
        "status": said.text if said is not None else None,
        "done": said.done if said is not None else None,
        "total": said.total if said is not None else None,
        "unit": said.unit if said is not None else None,
        "spawned_s": since(job, rank.spawned_at) if rank is not None else None,
        "ready_s": since(job, rank.ready_at) if rank is not None else row.ready_after_s,
        "stopping_s": since(job, job.signalled_at(rank)) if rank is not None else None,
        "ended_s": since(job, rank.exited.at) if rank is not None and rank.exited is not None else row.ended_after_s,
        "ending": _ending(row.ending),
        "cause": None
        if row.cause is None
        else {
            "kind": row.cause.kind,
            "family": str(row.cause.family),
            "confidence": str(row.cause.confidence),
            "statement": row.cause.statement,
        },
        "last_sign_s": since(job, last[0]) if last is not None else None,
        "last_sign_by": last[1] if last is not None else None,
        "held_bytes": row.memory.held_bytes if held is None else held,
        "peak_bytes": row.memory.peak_bytes,
        "growth_bytes_s": row.memory.growth_bytes_s,
        "log_path": row.log_path,
    }


def _last_sign(seen: Seen, rank: int, noticed: Mapping[int, float]) -> tuple[float, str] | None:
    """The newest of what a fact told and what a look noticed: most output is in no fact."""
    told, looked = seen.chronicle.last.get(rank), noticed.get(rank)
    if looked is not None and (told is None or looked > told[0] + LOOK_S):
        return looked, "output"
    return told


def _local(job: Job, rank: int) -> int:
    if job.spec.nodes is None:
        return rank
    found = job.nodes.get(job.node_of(rank))
    return rank - found.first if found is not None else rank % job.spec.nodes.nproc


def _phase(seen: Seen, row: RankOutcome, rank: RankState | None) -> str:
    job = seen.job
    if rank is None or (not seen.live and (job.attached or row.ending.kind != "alive")):  # an engine of others goes on
        return {"alive": str(row.phase), "lost": "lost"}.get(row.ending.kind, "ended")
    phase = job.phase(rank)
    if phase is Phase.STOPPING and rank.pid is None:
        return "ended"  # it was never started, and is not any more
    return "waiting" if phase is Phase.LAUNCHING else str(phase)


def _ending(ending: Ending) -> Data | None:
    if ending.kind in ("alive", "lost"):
        return None
    return {"kind": ending.kind, "code": ending.code, "signal": ending.signal, "number": ending.number}


def what_ended(ending: Ending) -> str:
    """`SIGKILL`, `exit 3`, `status unknown`."""
    if ending.kind == "signal":
        return ending.signal or f"signal {ending.number}"
    return "status unknown" if ending.code is None else f"exit {ending.code}"
