"""The exit status of a failed job: the contract's "Exit status" as two tables.

With `--exit-codes culprit` the culprit's own code as a shell would give it; with `class` the class of the cause, for
controllers that retry. Codes can collide with a program's own: `outcome` and `cause.kind` are the exact answer.
Read next: `culprit.py`.
"""

import errno

from rankguard.case import Case, RankCase
from rankguard.diagnosis.evidence import code_of, ended_by_us, leaving_code, report_of, signal_of

OURS = 125
"""A fault of rankguard itself, or a limit of the machine met by it."""
CANNOT_EXECUTE, NOT_FOUND = 126, 127
TIMED_OUT = 124
NO_CODE_OF_ITS_OWN = 1

LIMITS = frozenset((errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT))
"""What a full machine answers to fork and exec: no fault of the program."""

_WITHOUT_CODE = frozenset(("exit-before-ready", "reported-failure", "protocol-error", "node-lost"))
_MEMORY = frozenset(("oom-kill", "memory-limit", "cuda-oom"))
_MACHINE = frozenset(("gpu-error", "disk-full"))
_TIME = frozenset(("ready-timeout", "stall", "collective-timeout"))


def exit_code(case: Case, rank: RankCase | None, kind: str) -> int:
    """The exit status when `rank` (null: none of them) is the culprit by a cause of this kind. Never 0."""
    if kind in ("supervisor-lost", "bug"):
        return OURS
    return _of_class(case, kind) if case.spec.exit_codes == "class" else _of_culprit(rank, kind)


def _of_culprit(rank: RankCase | None, kind: str) -> int:
    if kind in ("ready-timeout", "stall"):
        return TIMED_OUT
    if rank is None or (kind in _WITHOUT_CODE and not _only_complained(rank)):
        return NO_CODE_OF_ITS_OWN
    if rank.not_spawned:
        return _of_errno(rank.not_spawned.errno, rank.not_spawned.stage)
    if kind == "oom-kill" and (not rank.exited or (code_of(rank) is None and signal_of(rank) is None)):
        return 128 + 9  # the kernel log was faster than the exit, or is the only one to tell
    if ended_by_us(rank) or not rank.exited:
        return (
            leaving_code(rank) or NO_CODE_OF_ITS_OWN
        )  # it failed by its own word and lived on until we ended it: that ending is ours
    number = signal_of(rank)
    return 128 + number if number else code_of(rank) or NO_CODE_OF_ITS_OWN


def _only_complained(rank: RankCase) -> bool:
    """It said that it failed by a signal to its parent and no more: then the code it ends with is its own word."""
    return rank.complained is not None and report_of(rank) is None


def _of_errno(number: int, stage: str) -> int:
    if number in LIMITS:
        return OURS
    return NOT_FOUND if number == errno.ENOENT and stage != "chdir" else CANNOT_EXECUTE


def _of_class(case: Case, kind: str) -> int:
    """80 / 81: the program failed before / after all were ready.

    Also when somebody killed it, which says nothing against the machine, and when the cause is unknown. A job of which
    nobody expects readiness has never been ready: 80.
    """
    if kind in _MEMORY:
        return 82
    if kind in _MACHINE:
        return 83
    if kind in _TIME:
        return 84
    if kind == "cannot-start":
        return 85
    if kind == "node-lost":
        return 86
    failed_at = case.now if case.failed_at is None else case.failed_at
    return 81 if case.all_ready_at is not None and case.all_ready_at <= failed_at else 80
