"""Ranks that failed in the same way: the same exception at the same place, or the same exit code without a word.

What all share is no single rank's fault, and of many that end alike the one that does not is the more likely culprit.
Not here: who is named (`culprit.py`), and what became of the others (`relation.py`), which both ask.
"""

from collections import Counter
from collections.abc import Sequence

from rankguard.case import Case, RankCase
from rankguard.diagnosis.evidence import code_of, peer_death_of, report_of
from rankguard.model import ExceptionInfo

TOP = 3
"""Frames that have to be equal, the innermost ones: above them a program may be started in different ways."""


def raised_alike(ranks: Sequence[RankCase], rank: RankCase) -> tuple[int, ...]:
    """The other ranks that reported the same exception as `rank`: its type, raised at the same place."""
    own = _place(rank)
    return tuple(r.rank for r in ranks if r is not rank and own is not None and _place(r) == own)


def all_raised_alike(case: Case, rank: RankCase | None) -> bool:
    """Every rank of the job, and there are several, raised the same."""
    return rank is not None and len(case.ranks) > 1 and len(raised_alike(case.ranks, rank)) == len(case.ranks) - 1


def attempts_alike(case: Case, fingerprint: str) -> int:
    """How many attempts in a row have failed in the same way, this one among them."""
    count = 1
    for attempt in reversed(case.attempts):
        if attempt.fingerprint != fingerprint:
            break
        count += 1
    return count


def odd_code(ranks: Sequence[RankCase]) -> RankCase | None:
    """The only one of three or more that ended with another exit code than all others; none of them said why."""
    codes = Counter(map(wordless_code, ranks))
    if len(ranks) < 3 or len(codes) != 2 or None in codes or min(codes.values()) != 1:
        return None
    return next(rank for rank in ranks if codes[wordless_code(rank)] == 1)


def wordless_code(rank: RankCase) -> int | None:
    """The exit code of a rank that did not say why it ended; null for any other."""
    return None if report_of(rank) or peer_death_of(rank) else code_of(rank)


def _place(rank: RankCase) -> tuple[str, tuple[str, ...]] | None:
    report = report_of(rank)
    raised: ExceptionInfo | None = report.exception if report else None
    return (raised.type, raised.frames[-TOP:]) if raised and raised.frames else None
