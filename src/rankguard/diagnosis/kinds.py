"""The kinds of causes and their families: the contract's table, and the making of a `Cause` from it.

Not how a cause is found (`causes.py`). To add a kind: its family here; families are never added.
"""

from rankguard.case import RankCase
from rankguard.diagnosis.evidence import exception_of
from rankguard.diagnosis.words import clip
from rankguard.model import Cause, Confidence, Evidence, Family

FAMILIES = {
    "oom-kill": Family.MEMORY,
    "memory-limit": Family.MEMORY,
    "cuda-oom": Family.MEMORY,
    "exception": Family.PROGRAM,
    "exit-code": Family.PROGRAM,
    "exit-before-ready": Family.PROGRAM,
    "crash": Family.PROGRAM,
    "reported-failure": Family.PROGRAM,
    "protocol-error": Family.PROGRAM,
    "cannot-start": Family.PROGRAM,
    "ready-timeout": Family.TIME,
    "stall": Family.TIME,
    "collective-timeout": Family.TIME,
    "killed": Family.OPERATOR,
    "gpu-error": Family.MACHINE,
    "disk-full": Family.MACHINE,
    "node-lost": Family.MACHINE,
    "supervisor-lost": Family.RANKGUARD,
    "bug": Family.RANKGUARD,
    "unknown": Family.UNKNOWN,
}
"""Every kind."""


def make(
    kind: str,
    statement: str,
    confidence: Confidence,
    evidence: tuple[Evidence, ...],
    *,
    rank: RankCase | None = None,
    subject_pid: int | None = None,
) -> Cause:
    """A cause of this kind; with the rank's exception and, unless another is named, its pid."""
    found = exception_of(rank) if rank else None
    return Cause(
        kind=kind,
        family=FAMILIES[kind],
        confidence=confidence,
        statement=clip(statement),
        exception=found[0] if found else None,
        subject_pid=subject_pid if subject_pid is not None else rank.pid if rank else None,
        evidence=evidence,
    )
