"""What to do about a failure: whom to page, whether to try again, what to change.

Owner and advice follow from the kind of the cause, unless a hint that applies knows better (`hints/`). Hints are plain
strings for people; each has its reason in the case, and each inferred number in it says `about`. Not here: layout
(`report/`). Read next: `hints/__init__.py`.
"""

from typing import TYPE_CHECKING

from rankguard.case import Case, RankCase
from rankguard.diagnosis.alike import all_raised_alike, attempts_alike
from rankguard.diagnosis.evidence import peer_death_of
from rankguard.diagnosis.exit_status import LIMITS
from rankguard.diagnosis.memory_story import oom_kill
from rankguard.diagnosis.words import several
from rankguard.facts import Judged
from rankguard.model import Cause, Family, Retry

if TYPE_CHECKING:
    from rankguard.diagnosis.hints import Row

LATE = ("stall", "ready-timeout")
"""Kinds of which an examination may tell more (`facts.Examined`)."""

_ENOUGH = 3

OWNERS = {
    Family.MEMORY: "limits",
    Family.PROGRAM: "program",
    Family.TIME: "program",
    Family.OPERATOR: "outside",
    Family.MACHINE: "machine",
    Family.RANKGUARD: "rankguard",
    Family.UNKNOWN: None,
}
"""Whose matter a failure is, by the family of its cause; null when nobody can be named."""

RETRY = {
    "oom-kill": ("no", "the same memory limit would be met again"),
    "memory-limit": ("no", "the same memory limit would be met again"),
    "cuda-oom": ("no", "the same program needs the same GPU memory"),
    "cannot-start": ("no", "the program cannot be executed as it is"),
    "killed": ("yes", "somebody ended it; nothing shows that the program failed"),
    "gpu-error": ("elsewhere", "the GPU or its driver failed, not the program"),
    "disk-full": ("elsewhere", "this machine's disk is full"),
    "supervisor-lost": ("yes", "the job was ended because its launcher was gone, not because it failed"),
    "bug": ("yes", "a fault of rankguard ended the job, not the program"),
    "exception": ("unknown", "an exception may come from the data, the program or the machine"),
    "crash": ("unknown", "a crash may come from the program or the machine"),
    "ready-timeout": ("unknown", "slow and stuck look alike"),
    "stall": ("unknown", "slow and stuck look alike"),
    "collective-timeout": ("unknown", "why a rank did not come to the collective is not known"),
    "exit-code": ("unknown", "an exit code says that it failed, not why"),
    "exit-before-ready": ("unknown", "it ended with exit code 0, and why is not known"),
    "reported-failure": ("unknown", "the rank's own words must tell whether it would fail again"),
    "protocol-error": ("unknown", "the program or what it sends through may be at fault"),
    "node-lost": ("elsewhere", "the machine was lost, not the program"),
    "unknown": ("unknown", "nothing in the case tells whether it would fail again"),
}
"""`Verdict.retry` by the kind of the cause."""


def owner(case: Case, rank: RankCase | None, cause: Cause) -> str | None:
    """Who can do something about it; null when nobody can be named."""
    if cause.kind == "cannot-start" and rank and rank.not_spawned and rank.not_spawned.errno in LIMITS:
        return "limits"
    if rank and peer_death_of(rank) and not oom_kill(case, rank) and cause.kind != "collective-timeout":
        return None  # a victim is all that we have: whose fault it was is not known
    if rank and cause.kind in LATE and case.examined is not None:
        from rankguard.diagnosis.stall_hints import holder  # no start waits for it

        return holder(rank, case.examined) or OWNERS[Family.TIME]
    if rank and cause.kind == "collective-timeout" and case.mustered is not None:
        from rankguard.diagnosis.stall_hints import holder

        return holder(rank, case.mustered) or OWNERS[Family.TIME]
    row = _row(case, rank, cause)
    return row.owner if row is not None and row.owner else OWNERS[cause.family]


def retry(case: Case, rank: RankCase | None, cause: Cause) -> Retry:
    """Whether the same job has a chance if it is started again."""
    if cause.kind == "cannot-start" and rank and rank.not_spawned and rank.not_spawned.errno in LIMITS:
        return Retry(advice="elsewhere", because="this machine met a limit when the rank was started")
    if cause.kind == "oom-kill" and any(k.record.of_whole_machine for r in case.ranks for k in r.ooms):
        return Retry(advice="elsewhere", because="the machine itself ran out of memory, not a limit of the job")
    if case.lost is not None and case.spec.watch is not None and case.spec.watch.attaches:
        return Retry(advice="no", because="the engine goes on: it was only watched")
    if cause.kind == "node-lost":
        from rankguard.diagnosis.nodes import retry as retry_of_node  # of a job on several machines alone

        return retry_of_node(case)
    row = _row(case, rank, cause)
    advice, because = row.retry if row is not None and row.retry else RETRY.get(cause.kind, RETRY["unknown"])
    return Retry(advice=advice, because=because)


def after_so_many(case: Case, fingerprint: str, told: Retry) -> Retry:
    """What the attempts before tell, where the failure itself does not: one that was tried `_ENOUGH` times is no accident."""
    alike = attempts_alike(case, fingerprint)
    if told.advice != "unknown" or alike < _ENOUGH:
        return told
    which = "all" if alike == len(case.attempts) + 1 else "the last"
    return Retry(advice="no", because=f"{which} {alike} attempts failed alike")


def _row(case: Case, rank: RankCase | None, cause: Cause) -> "Row | None":
    """The hint that knows better than the kind, if there is one."""
    if rank is None:
        return None
    from rankguard.diagnosis.hints import row_of  # no start waits for it

    return row_of(case, rank, cause)


def hints(case: Case, rank: RankCase | None, cause: Cause, judged: Judged) -> tuple[str, ...]:
    """What to do, the most useful first."""
    found = []
    if rank:
        from rankguard.diagnosis.hints import hints_of  # no start waits for it

        found += hints_of(case, rank, cause)
    if cause.kind == "node-lost":
        from rankguard.diagnosis.nodes import hints as node_hints  # of a job on several machines alone

        found += node_hints(case)
    if cause.kind in LATE and case.examined is not None:
        from rankguard.diagnosis.stall_hints import stall_hints

        found += stall_hints(case, rank, case.examined)
    elif all_raised_alike(case, rank):
        found.append("look for what all ranks share (arguments, configuration, data): each of them raised the same")
    elif cause.kind == "collective-timeout":
        from rankguard.diagnosis.collective_causes import hints as collective_hints  # no start waits for it

        found += collective_hints(case, rank)
    elif judged.either:
        one = len(judged.either) == 1
        whose_logs = f"the log{'' if one else 's'} of {several(case, judged.either)}"
        if case.spec.watch is not None:  # they share one
            whose_logs = f"what the engine says of {several(case, judged.either)}"
        found.append(f"read {whose_logs} too: {'it' if one else 'each'} may as well have been first")
    return tuple(found)
