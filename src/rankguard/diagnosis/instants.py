"""When did it fail, by whose clock, and which of two was first: instants, and how sure they are.

A rank's own stamp is an instant; what we saw is a latest. Instants of two nodes compare only up to the sum of what their
clocks may be off (`Case.uncertainty`); what the kernel tells of an order (its log, `Begun.place`) holds on one node only.
Read next: `culprit.py`, `nodes.py`.
"""

from collections.abc import Sequence

from rankguard.case import Case, RankCase
from rankguard.diagnosis.evidence import report_of

CLOCK_GAP_S = 200e-6
"""Two instants stamped in different processes are told apart from here on: a process may be off its CPU in between."""

RUNNABLE_S = 5e-3
"""How long a process that was sent a signal may wait for a processor to die of it. (Longer where many want one.)"""

Span = tuple[float, float]
"""At the earliest, and at the latest."""


def span(case: Case, rank: RankCase) -> Span:
    """When it failed. Its own stamp is an instant; what we saw is only a latest."""
    seen = seen_at(case, rank)
    told = stamp(rank)
    return (float("-inf"), seen) if told is None else (min(told, seen), min(told, seen))


def span_of_exit(rank: RankCase) -> Span:
    """When a signal reached it: no later than its exit began, and no earlier than it may have waited for a processor."""
    assert rank.exited is not None
    assert rank.exited.begun is not None
    return (rank.exited.begun.earliest - RUNNABLE_S, rank.exited.begun.latest)


def span_of_signal(rank: RankCase, known: Span) -> Span:
    """When a signal reached it: after the last look that showed it alive, and not dying.

    A look has nothing to say of one that had ended by then, though its end is told after it.
    """
    if rank.alive_at is None or rank.alive_at > known[1]:
        return known
    return max(known[0], rank.alive_at), known[1]


def proven_before(case: Case, a: tuple[int, Span], b: tuple[int, Span]) -> bool:
    """Whether rank a's span lies before rank b's for sure."""
    return a[1][1] + gap(case, a[0], b[0]) <= b[1][0]


def gap(case: Case, a: int, b: int) -> float:
    """From here on two instants of these ranks are told apart."""
    if case.number_of_node(a) == case.number_of_node(b):
        return CLOCK_GAP_S
    return CLOCK_GAP_S + case.uncertainty(a) + case.uncertainty(b)


def stamp(rank: RankCase) -> float | None:
    """Its own clock's word on when it failed."""
    report = rank.report.report if rank.report else report_of(rank)
    return report.raised_at if report else None


def seen_at(case: Case, rank: RankCase) -> float:
    """The first instant at which we saw that it was failing, or had failed."""
    seen = [fact.at for fact in (rank.not_spawned, rank.report, rank.broken, rank.exited) if fact]
    if rank.dying and case.looked:
        seen.append(case.looked.at)
    if rank.failed_at is not None:
        seen.append(rank.failed_at)
    return min(seen, default=case.now)


def one_node(case: Case, ranks: Sequence[RankCase]) -> bool:
    """All of them have one kernel."""
    return len({case.number_of_node(rank.rank) for rank in ranks}) <= 1
