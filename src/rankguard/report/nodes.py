"""What the final report says of nodes that were lost: where that was, what became of their ranks, what is not known.

Of jobs on several machines alone; everything else of them is told as of one. Read next: `text.py`.
"""

from collections.abc import Iterable

from rankguard.model import Culprit, RankOutcome, Verdict
from rankguard.report import wording as say

LOST = "lost"
NOTHING = "nothing was started"


def is_node(culprit: Culprit | None) -> bool:
    """The culprit is a node, and no rank."""
    return culprit is not None and culprit.cause.kind == "node-lost" and culprit.rank is None


def subject(culprit: Culprit) -> str:
    """`node host-c`; empty for one that never came."""
    return f"node {say.printable(culprit.node, 60)}" if culprit.node else ""


def where(verdict: Verdict, culprit: Culprit) -> str:
    """`host-c: ranks 4, 5 were running there`; nothing for a node that never came."""
    there = [row for row in _lost(verdict) if row.node == culprit.node]
    if not there or not culprit.node:
        return culprit.node
    return f"{culprit.node}: {_many(there)} {_was(there)} {say.phase(culprit.phase)} there"


def became(verdict: Verdict) -> list[str]:
    """What became of ranks whose node was lost."""
    lost, culprit = _lost(verdict), verdict.culprit
    if is_node(culprit) and all(row.pid is None for row in verdict.ranks):
        return [NOTHING]
    told = []
    for name in dict.fromkeys(row.node for row in lost):
        there = [row for row in lost if row.node == name]
        if all(row.pid is None for row in there):
            told.append(f"{_many(there)} {_was(there)} never started")
        else:
            with_ = "it" if is_node(culprit) and culprit is not None and culprit.node == name else name
            told.append(f"{_many(there)} {_was(there)} lost with {with_}")
    return told


def unknown(verdict: Verdict) -> str:
    """Where nobody could look: `what is left on host-c is not known`."""
    names = list(dict.fromkeys(row.node for row in _lost(verdict) if row.pid is not None))
    return f"what is left on {say.some(names, 3)} is not known" if names else ""


def _lost(verdict: Verdict) -> list[RankOutcome]:
    return [row for row in verdict.ranks if row.ending.kind == LOST]


def _many(rows: Iterable[RankOutcome]) -> str:
    return say.many([(row.rank, row.name) for row in rows])


def _was(rows: list[RankOutcome]) -> str:
    return "was" if len(rows) == 1 else "were"
