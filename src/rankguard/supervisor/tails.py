"""The ends of what the ranks printed that failed (`tails.json`), without secrets, for a page that is made later.

Written once, when a job has failed and its front has the verdict: the run's secrets are known now and never again. Bounded:
the culprit's lines first, then those of whoever may as well have been first, or failed, too. Of all others the journal has
the last lines (`Exited.log_tail`). Not the log files themselves, which hide nothing. Read next: `../page/logs.py`.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from rankguard.core.job import Job
from rankguard.model import RankOutcome, Verdict
from rankguard.report.files import RunFiles

SCHEMA = "rankguard.tails/1"
RANKS = 24
OTHERS = 8 << 10
"""Bytes of each stream of all ranks but the first."""
_WITHIN_S = 0.1
_RELATIONS = ("culprit", "independent", "collateral")


def keep_tails(files: RunFiles, job: Job, final: Verdict, redact: Callable[[str], str]) -> None:
    """Read them from the files of the ranks, which are complete by now. What takes too long is left out."""
    spec = job.spec
    if files.folder is None or not spec.log_max or final.outcome != "failed":
        return
    from rankguard.page.logs import LINES, NAME, READ, log  # no start waits for it

    until = time.monotonic() + _WITHIN_S
    told: list[dict[str, Any]] = []
    for rank in _chosen(job, final)[:RANKS]:
        many = (LINES, READ) if not told else (LINES // 4, OTHERS)
        found = log(files.folder, rank, spec.attempt, spec.log_max, redact, *many)
        if found["streams"]:
            told.append(found)
        if time.monotonic() > until:
            break
    if told:
        files.replace(NAME, json.dumps({"schema": SCHEMA, "logs": told}) + "\n")


def _chosen(job: Job, final: Verdict) -> list[int]:
    """Numbers of our own ranks, the culprit's first. Of a watched engine all output is the root's."""
    if job.spec.watch is not None:
        return [0]
    if job.spec.share is None:
        rows = [(row, number) for number, row in enumerate(final.ranks) if number < job.spec.nprocs]
    else:  # the verdict is of all nodes
        mine = {rank.pid: rank.rank for rank in job.ranks if rank.pid is not None}
        rows = [(row, mine[row.pid]) for row in final.ranks if row.node == job.spec.node and row.pid in mine]
    return [number for row, number in sorted(rows, key=lambda each: _weight(each[0], final)) if _weight(row, final) < 4]


def _weight(row: RankOutcome, final: Verdict) -> int:
    if row.relation == "culprit":
        return 0
    if row.rank in final.either:
        return 1
    return _RELATIONS.index(row.relation) + 1 if row.relation in _RELATIONS else 4
