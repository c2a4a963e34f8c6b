"""Who failed first: one rank among the suspects, and how that is known.

Order of news is no proof: a pidfd becomes readable when an exit is complete, so that a large culprit is seen after its
small victims (facts/spikes.md 1), and a report comes after all `finally` blocks (2). So: class first
(`failure_class.py`); within a class what instants of one clock prove; the order in which we saw them only to name one
of those that are left, with the others in `either`. Not here: why (`causes.py`). Read next: `exit_status.py`.
"""

from collections.abc import Sequence

from rankguard.case import Case, RankCase
from rankguard.diagnosis.alike import all_raised_alike, odd_code, raised_alike, wordless_code
from rankguard.diagnosis.causes import cause_of
from rankguard.diagnosis.evidence import SIGKILL, ended_by_us, report_of, signal_of
from rankguard.diagnosis.exit_status import exit_code
from rankguard.diagnosis.failure_class import VICTIMS, FailureClass, failure_class
from rankguard.diagnosis.instants import (
    gap,
    one_node,
    proven_before,
    seen_at,
    span,
    span_of_exit,
    span_of_signal,
    stamp,
)
from rankguard.diagnosis.memory_story import oom_kill
from rankguard.diagnosis.words import several
from rankguard.facts import Examined, Judged
from rankguard.record import Record


def choose(case: Case) -> Judged:
    """The culprit of a failed job. `rank` is null when it was none of the ranks, or nothing is known of any; `node` is the
    node whose loss came first.
    """
    if case.lost and case.failed_by in ("front-lost", "warden-lost", "supervisor-lost"):
        return _judged(case, None, _Choice(basis="one of rankguard's own processes was gone"))
    if case.lost_nodes:
        from rankguard.diagnosis.nodes import choose as choose_node  # of a job on several machines alone

        return choose_node(case, _of_ranks)
    return _of_ranks(case)


def _of_ranks(case: Case) -> Judged:
    if case.spec.watch is not None:
        from rankguard.diagnosis.engine_words import BASIS, asked_to_end, complaint  # of a watched engine alone

        if told := complaint(case):
            return _judged(case, next(rank for rank in case.ranks if rank.rank == told.rank), _Choice(basis=BASIS))
    suspects = [rank for rank in case.ranks if rank.suspect] or [
        rank for rank in case.ranks if rank.failed_at is not None
    ]
    if case.spec.watch is not None:
        suspects = [rank for rank in suspects if not asked_to_end(rank)] or suspects
    classes = {rank.rank: failure_class(case, rank) for rank in suspects}
    late = [rank for rank in case.ranks if rank.late]
    if (
        case.failed_by in ("ready-timeout", "stall")
        and late
        and min(classes.values(), default=FailureClass.NONE) > FailureClass.FAILED
    ):
        return _of_late(case, late) if case.examined is None else _of_examined(case, late, case.examined)
    if min(classes.values(), default=FailureClass.NONE) is FailureClass.TIMED_OUT and len(case.ranks) > 1:
        return _of_collective(case)
    for best in FailureClass:
        candidates = [rank for rank in suspects if classes[rank.rank] is best]
        unresolved = [rank for rank in suspects if classes[rank.rank] is FailureClass.UNRESOLVED]
        if best is FailureClass.NONE or not candidates:
            continue
        if best in VICTIMS and unresolved:
            continue  # somebody must have died first, and these were dying
        choice = _first(case, candidates, best)
        if best is FailureClass.PEER_LOST:
            choice = _beside_the_unheard(case, choice, len(candidates))
        if best in (FailureClass.KILLED, FailureClass.ABORTED):
            choice = _beside_the_earlier(case, choice, [rank for rank in suspects if classes[rank.rank] > best])
        alone = len(suspects) == 1 and not choice.either
        others = (
            choice.either
            if best in (FailureClass.REPORTED, FailureClass.UNRESOLVED)
            else choice.either + _numbers(unresolved)
        )
        basis = "only suspect" if alone else choice.basis
        return _judged(case, choice.first, choice.replace(basis=basis, either=tuple(sorted(others))))
    return _judged(case, None, _Choice(basis="nothing is known of any suspect"))


class _Choice(Record):
    first: RankCase | None = None
    either: tuple[int, ...] = ()
    basis: str = ""
    gap_us: int | None = None


_BASIS = {
    FailureClass.REPORTED: "own failure report",
    FailureClass.KILLED: "killed by a signal",
    FailureClass.ABORTED: "aborted",
    FailureClass.FAILED: "own failure, not a peer's",
    FailureClass.TIMED_OUT: "timed out before others lost a peer",
    FailureClass.PEER_LOST: "all suspects lost a peer",
    FailureClass.UNRESOLVED: "was dying when the others lost a peer",
}


def _judged(case: Case, rank: RankCase | None, choice: _Choice) -> Judged:
    kind = cause_of(case, rank).kind
    return Judged(
        at=case.now,
        rank=rank.rank if rank else None,
        kind=kind,
        exit_code=exit_code(case, rank, kind),
        either=choice.either,
        basis=choice.basis,
        gap_us=choice.gap_us,
    )


def _of_late(case: Case, late: Sequence[RankCase]) -> Judged:
    """Nobody failed, some are late: the one whose last sign of life is the oldest."""

    def last_sign(rank: RankCase) -> tuple[float, int]:
        sign = rank.status.at if rank.status else rank.spawned_at
        return (case.started_at if sign is None else sign, rank.rank)

    first, *others = sorted(late, key=last_sign)
    basis = "longest without a sign of life" if others else "only one late"
    return _judged(case, first, _Choice(first=first, either=tuple(sorted(_numbers(others))), basis=basis))


def _of_examined(case: Case, late: Sequence[RankCase], examined: Examined) -> Judged:
    """Nobody failed, some are late: the one that holds the others up, if it can be told. Of those that are not ready in
    time each is late for sure, so one is named in any case.
    """
    from rankguard.diagnosis.stalls import choose as choose_late  # no start waits for it

    found = choose_late(case, examined)
    rank = next((rank for rank in case.ranks if rank.rank == found.rank), None)
    if rank is None and case.failed_by == "ready-timeout":
        return _of_late(case, late)
    return _judged(case, rank, _Choice(first=rank, either=found.either, basis=found.basis))


def _of_collective(case: Case) -> Judged:
    """All that failed had waited in vain for another rank: that one, if it can be told."""
    from rankguard.diagnosis.collectives import choose as choose_absent  # no start waits for it

    found = choose_absent(case)
    rank = next((rank for rank in case.ranks if rank.rank == found.rank), None)
    return _judged(case, rank, _Choice(first=rank, either=found.either, basis=found.basis))


def _first(case: Case, candidates: Sequence[RankCase], best: FailureClass) -> _Choice:
    """The first among equals. Who cannot have been first leaves; of the rest one is named, the others are `either`."""
    if len(candidates) == 1:
        return _Choice(first=candidates[0], basis=_basis(case, candidates[0], best))
    if all(rank.not_spawned for rank in candidates):
        return _Choice(first=min(candidates, key=lambda rank: rank.rank), basis="none of them could be started")
    together = one_node(case, candidates)  # a kernel knows only its own
    if together and (logged := _by_kernel_log(candidates)):
        return _Choice(first=logged, basis="kernel log order")
    if len(candidates) == len(case.ranks) and all_raised_alike(case, candidates[0]):
        first = min(candidates, key=lambda rank: (span(case, rank), rank.rank))
        others = tuple(r for r in _numbers(candidates) if r != first.rank)
        return _Choice(first=first, either=others, basis=f"all {len(candidates)} ranks raised the same")
    begun = _by_exits(candidates) if together else []
    if begun and best is FailureClass.FAILED:
        return _of_wordless(begun)
    spans = {rank.rank: span(case, rank) for rank in candidates}
    if begun or (not together and best is not FailureClass.FAILED):
        spans |= {rank.rank: span_of_exit(rank) for rank in _exits_known(candidates)}
    if together and best in (FailureClass.KILLED, FailureClass.ABORTED):
        spans = {rank.rank: span_of_signal(rank, spans[rank.rank]) for rank in candidates}
    left = [
        r
        for r in candidates
        if not any(
            proven_before(case, (o.rank, spans[o.rank]), (r.rank, spans[r.rank])) for o in candidates if o is not r
        )
    ]
    first = min(
        left,
        key=begun.index
        if begun
        else lambda rank: (seen_at(case, rank) if together else spans[rank.rank][1], rank.rank),
    )
    if len(left) > 1:
        odd, basis = odd_code(left), "seen first"
        if odd is not None:
            first, basis = odd, "the others ended alike, without a word"
        elif above := _above(case, left):
            first, basis = above, "the others are below it, and its end may be theirs"
        return _Choice(first=first, either=tuple(r for r in _numbers(left) if r != first.rank), basis=basis)
    end = spans[first.rank][1]
    apart = min(spans[rank.rank][0] - end for rank in candidates if rank is not first)
    stamped = all(stamp(rank) is not None for rank in candidates)
    basis = "raised first" if stamped else "ended before the others failed"
    if same := len(raised_alike(candidates, first)):
        basis += f"; {same} other{'s' if same > 1 else ''} raised the same"
    return _Choice(first=first, basis=basis, gap_us=round(apart * 1e6))


def _above(case: Case, killed: Sequence[RankCase]) -> RankCase | None:
    """Of processes of one engine that were killed at once: the one that started all the others, directly or not."""
    parents = {each.pid: each.parent for each in case.looked.processes} if case.looked else {}
    if not parents or any(signal_of(rank) != SIGKILL for rank in killed):
        return None
    from rankguard.diagnosis.engine_words import heard_of  # of a watched engine alone

    if heard_of(case):
        return None  # it was the engine that killed them, because another one had failed

    def lines(rank: RankCase) -> set[int]:
        found, pid = set[int](), rank.pid
        while pid is not None and pid not in found:
            found.add(pid)
            pid = parents.get(pid)
        return found

    common = set.intersection(*map(lines, killed))
    return next((rank for rank in killed if rank.pid in common), None)


def _beside_the_unheard(case: Case, choice: _Choice, victims: int) -> _Choice:
    """All that were heard lost a peer, and a few were not heard before they were stopped: whose peer that was, perhaps."""
    unheard = [
        rank.rank
        for rank in case.ranks
        if not rank.suspect and not report_of(rank) and rank.pid is not None and (not rank.exited or ended_by_us(rank))
    ]
    if not unheard or len(unheard) > victims:
        return choice
    some = several(case, unheard)
    return choice.replace(
        either=(*choice.either, *unheard), basis=f"all but {some} lost a peer, and {some} did not say why"
    )


def _of_wordless(begun: Sequence[RankCase]) -> _Choice:
    """Whose exit began first cannot have lost anybody by another's. But whoever closes its connections long before it
    exits lets others exit first: it is sure only if it is the odd one as well.
    """
    first = begun[0]
    sure = odd_code(begun) is first
    others = () if sure else tuple(sorted(_numbers(begun[1:])))
    return _Choice(first=first, either=others, basis="began to exit first")


def _beside_the_earlier(case: Case, choice: _Choice, weaker: Sequence[RankCase]) -> _Choice:
    """A signal is stronger than an exit without a word, but does not explain one that had begun before."""
    if choice.first is None:
        return choice
    earlier = [rank for rank in weaker if wordless_code(rank) and _exit_began_before(case, rank, choice.first)]
    return choice.replace(either=(*choice.either, *_numbers(earlier)))


def _by_exits(candidates: Sequence[RankCase]) -> list[RankCase]:
    """In the order in which they began to exit; empty when that is not known of all, or is not when they failed: one
    told its failure before, or dumped its core first.
    """
    known = _exits_known(candidates)
    return sorted(known, key=_place) if len(known) == len(candidates) else []


def _exits_known(candidates: Sequence[RankCase]) -> list[RankCase]:
    """Those of which the kernel told when they began to exit, and that is when they failed."""
    return [
        rank
        for rank in candidates
        if rank.exited and rank.exited.begun and not rank.exited.ending.core_dumped and not report_of(rank)
    ]


def _place(rank: RankCase) -> int:
    return rank.exited.begun.place if rank.exited and rank.exited.begun else 0


def _exit_began_before(case: Case, rank: RankCase, other: RankCase) -> bool:
    """By the order of their kernel, or by the clocks of two."""
    if one_node(case, [rank, other]):
        return _by_exits([other, rank])[:1] == [rank]
    begun = [each.exited.begun for each in _exits_known([rank, other]) if each.exited]
    return (
        len(begun) == 2
        and begun[0] is not None
        and begun[1] is not None
        and begun[0].latest + gap(case, rank.rank, other.rank) <= begun[1].earliest
    )


def _basis(case: Case, rank: RankCase, best: FailureClass) -> str:
    if rank.not_spawned:
        return "was not started"
    if rank.broken and not report_of(rank) and best is FailureClass.REPORTED:
        return "broke the protocol"
    return "killed by the OOM killer" if oom_kill(case, rank) else _BASIS[best]


def _by_kernel_log(candidates: Sequence[RankCase]) -> RankCase | None:
    """The first in the kernel's log, where it tells of all of them: its order is that of the kills."""
    told = {(rank.ooms[0].at, rank.ooms[0].record.logged_us): rank for rank in candidates if rank.ooms}
    return told[min(told)] if len(told) == len(candidates) else None


def _numbers(ranks: Sequence[RankCase]) -> tuple[int, ...]:
    return tuple(rank.rank for rank in ranks)
