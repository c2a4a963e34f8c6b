"""A job that stands still: which rank holds the others up, and what shows it. Pure; rests on the examination
(`facts.Examined`). For ranks that are silent (a stall) and for those that were not ready in time.

When one rank hangs, its peers soon wait for it and are as silent as it is, so the first whose time is over need not be
the culprit. What tells them apart, the strongest first:

1. something holds it from outside: it is stopped (SIGSTOP), traced, in a system call that cannot be interrupted
2. it does something else than most, who wait; if it uses the CPU there, the more so. One that waits for a peer (in a
   collective, a receive, for a lock that another rank has) is the last to be blamed
3. it has been silent for much longer than all others like it
4. it still talks, and is the only one that is not where all silent ranks wait

If none of these singles one out, `either` names those that are left, and nobody is the culprit if that is everybody.
Not here: stacks and their groups (`stacks.py`), when a rank is stalled (`core/stalls.py`).
"""

from collections.abc import Mapping

from rankguard.case import Case, RankCase
from rankguard.diagnosis.evidence import ended_by_us
from rankguard.diagnosis.kinds import make
from rankguard.diagnosis.stacks import WAITS_FOR_PEERS, gil_holder, held, is_own, own_frames, waits
from rankguard.diagnosis.stall_evidence import BUSY, cpu_of, does, evidence_of, stacks_evidence
from rankguard.diagnosis.words import ranges, seconds, who
from rankguard.facts import Examined
from rankguard.model import Cause, Confidence
from rankguard.record import Record
from rankguard.stacks import UNREAD, Stack

MUCH_LONGER = 0.5
"""To be silent for so much of the timeout longer than others means something: peers that come to wait for a rank say
their last word up to one step after it."""

_PEERS = ("/torch/distributed/", "/mpi4py/", "/multiprocessing/connection.py", "/horovod/", "/deepspeed/comm/")


class Choice(Record):
    """Who holds the others up: null for nobody that is known. `either`: who may as well be the one."""

    rank: int | None
    either: tuple[int, ...]
    basis: str
    confidence: Confidence


def choose(case: Case, found: Examined) -> Choice:
    """Of a job that failed by a stall, or because ranks were not ready in time."""
    silent = _silences(case, found)
    suspects = _suspects(case, silent)
    if len(case.ranks) == 1 or len(suspects) == 0:
        return Choice(suspects[0] if suspects else None, (), "the only rank", Confidence.PROVEN)
    stacks = {number: group.stack for group in found.groups for number in group.ranks}
    most = _most(found, suspects)
    scores = {number: _score(stacks.get(number), number in most, cpu_of(found, number)) for number in suspects}
    _score_locks(case, stacks, scores)
    best = min(scores.values())
    left = [number for number in suspects if scores[number] == best]
    if best == _HELD and len(left) == 1:
        return Choice(left[0], (), "held from outside", Confidence.PROVEN)
    talking = [number for number in silent if number not in suspects]
    if len(suspects) == 1:
        return _only_one(case, suspects[0], best, talking)
    if len(left) == 1:
        basis = "has the lock that another rank waits for" if best == _HAS_LOCK else ""
        return Choice(left[0], (), basis or "does something else than the ranks that wait", Confidence.LIKELY)
    if len(left) < len(suspects) and not most:
        longest = _longest(case, silent, left)
        return longest or Choice(None, tuple(left), "several do not wait for the others", Confidence.UNKNOWN)
    return _longest(case, silent, left) or _of_equals(case, silent, suspects, left, most, stacks)


def _suspects(case: Case, silent: Mapping[int, float]) -> list[int]:
    """Those that are late; in a stall whoever has been silent for half as long, too."""
    late = sorted(rank.rank for rank in case.ranks if rank.late)
    if case.failed_by != "stall":
        return late
    return sorted(n for n, quiet in silent.items() if n in late or quiet >= _limit(case) / 2) or late


def _longest(case: Case, silent: Mapping[int, float], left: list[int]) -> Choice | None:
    """The one that has been silent for much longer than the others that are equally suspect."""
    first, second, *_rest = sorted(left, key=lambda number: (-silent.get(number, 0.0), number))
    if silent.get(first, 0.0) - silent.get(second, 0.0) < MUCH_LONGER * _limit(case):
        return None
    return Choice(first, (), "silent for longest", Confidence.LIKELY)


def _of_equals(
    case: Case,
    silent: Mapping[int, float],
    suspects: list[int],
    left: list[int],
    most: set[int],
    stacks: Mapping[int, Stack],
) -> Choice:
    first = min(left, key=lambda number: (-silent.get(number, 0.0), number))
    if len(left) < len(suspects):
        others = tuple(number for number in left if number != first)
        return Choice(first, others, "silent for longest of those that do not wait for others", Confidence.LIKELY)
    away = [number for number in silent if number not in suspects and number not in most]
    if case.failed_by == "stall" and len(away) == 1 and most.issuperset(suspects) and waits(stacks[first]):
        return Choice(away[0], (), "goes on, and is not where all others wait", Confidence.LIKELY)
    return Choice(None, tuple(suspects), "nothing tells the silent ranks apart", Confidence.UNKNOWN)


def _limit(case: Case) -> float:
    """The clock that has run out."""
    if case.failed_by == "stall":
        return case.spec.stall_timeout or 0.0
    return case.spec.ready_timeout or max(0.0, (case.failed_at or case.now) - case.started_at)


def stalled(case: Case, rank: RankCase) -> Cause | None:
    """The cause, of the rank that holds the others up."""
    found = case.examined
    if case.failed_by != "stall" or found is None or _failed_before(case, rank):
        return None
    chosen = choose(case, found)
    if chosen.rank != rank.rank:
        return None
    doing = does(found, rank)
    limit = seconds(case.spec.stall_timeout or 0.0)
    what = f"has shown no sign of progress for {limit}" if rank.late else "holds the silent ranks up"
    statement = f"{who(case, rank)} {what}{doing}"
    return make("stall", statement, chosen.confidence, evidence_of(case, found, rank), rank=rank)


def _failed_before(case: Case, rank: RankCase) -> bool:
    """It failed in its own way before the job was called stalled. What it says when it is told to end is no failure."""
    if rank.dying or rank.broken or (rank.exited and not ended_by_us(rank)):
        return True
    raised_at = rank.report.report.raised_at or rank.report.at if rank.report else None
    return raised_at is not None and case.failed_at is not None and raised_at < case.failed_at


def nobody(case: Case) -> Cause:
    """The cause where it is not known who holds the others up."""
    found = case.examined
    assert found is not None  # the caller has looked
    late = [rank.rank for rank in case.ranks if rank.late]
    many = f"ranks {ranges(late)} of {len(case.ranks)}" if len(late) < len(case.ranks) else f"all {len(late)} ranks"
    limit = seconds(case.spec.stall_timeout or 0.0)
    statement = f"{many} have shown no sign of progress for {limit}, and which holds the others up is not known"
    return make("stall", statement, Confidence.UNKNOWN, stacks_evidence(case, found, None))


_HELD, _HAS_LOCK, _ODD_AND_BUSY, _ODD, _WAITS_FOR_LOCK, _AS_MOST, _ODD_WAITS_FOR_PEER, _WAITS_FOR_PEER = range(8)


def _score_locks(case: Case, stacks: Mapping[int, Stack], scores: dict[int, int]) -> None:
    """The kernel tells which rank waits for a lock on a file that another one has."""
    pids = {rank.pid: rank.rank for rank in case.ranks if rank.pid is not None}
    held_by = {number: pids.get(stack.main.locked_by or 0) for number, stack in stacks.items()}
    for number, holder in held_by.items():
        if holder is None or holder == number:
            continue
        if number in scores and scores[number] != _HELD:
            scores[number] = _WAITS_FOR_LOCK
        if holder in scores and scores[holder] != _HELD and held_by.get(holder) is None:
            scores[holder] = _HAS_LOCK


def _only_one(case: Case, number: int, score: int, talking: list[int]) -> Choice:
    """One late rank: it is that, unless it waits for the only one that is not."""
    if case.failed_by != "stall":
        return Choice(number, (), "only one late", Confidence.PROVEN)
    if score >= _ODD_WAITS_FOR_PEER and len(talking) == 1:
        return Choice(number, tuple(talking), "the only silent rank, and waits for a peer", Confidence.LIKELY)
    return Choice(number, (), "the only silent rank", Confidence.PROVEN)


def _score(stack: Stack | None, as_most: bool, cpu: float | None) -> int:
    if stack is None:
        return _AS_MOST if as_most else _ODD
    if held(stack) is not None:
        return _HELD
    if stack.lacks == UNREAD:
        return _AS_MOST
    if gil_holder(stack) is not None:
        return _ODD
    if waits_for_peer(stack):
        return _WAITS_FOR_PEER if as_most else _ODD_WAITS_FOR_PEER
    if as_most:
        return _AS_MOST
    busy = stack.main.state == "R" or (cpu is not None and cpu >= BUSY)
    return _ODD_AND_BUSY if busy else _ODD


def _most(found: Examined, suspects: list[int]) -> set[int]:
    """Those that do the same, if they are two or more, and more than half of the suspects."""
    for group in found.groups:
        same = set(group.ranks) & set(suspects)
        if group.stack.lacks == UNREAD or held(group.stack) is not None:
            continue
        if len(same) >= 2 and 2 * len(same) > len(suspects):
            return set(group.ranks)
    return set()


def waits_for_peer(stack: Stack) -> bool:
    """It stands in a collective or a receive: by the calls from the program's innermost line on.

    Whether it spins there says nothing: a rank that waits in NCCL uses all of a CPU.
    """
    frames = own_frames(stack.main.frames)
    own = next((n for n, frame in enumerate(frames) if is_own(frame)), len(frames) - 1)
    inner = frames[: own + 1]
    return any(
        frame.function in WAITS_FOR_PEERS or any(mark in (frame.file or "") for mark in _PEERS) for frame in inner
    )


def _silences(case: Case, found: Examined) -> dict[int, float]:
    """For how long each rank alive has been silent."""
    started = {rank.rank: rank.spawned_at for rank in case.ranks}
    told = {}
    for sign in found.signs:
        last = max((at for at in (sign.at, started.get(sign.rank)) if at is not None), default=None)
        if last is not None:
            told[sign.rank] = max(0.0, found.at - last)
    return told
