"""What a watched engine's verdict has beside that of ranks: who its processes are, and those that were left to it.

Not who is rank-like (`roles.py`), nor what is done about it (`core/members.py`). Read next: `verdict.py`.
"""

from rankguard.case import Case, RankCase
from rankguard.diagnosis.causes import cause_of
from rankguard.diagnosis.words import ended_by, seconds
from rankguard.facts import Exited, Perished
from rankguard.model import Confidence, Phase, Reported, Responsible

LED_TO_S = 30.0
"""What an engine ends of happened no longer before."""
TOLD_LATE_S = 0.2
"""How a process ended that is not our child may be known only after the end of the engine, which followed from it."""


def reported(case: Case) -> tuple[Reported, ...]:
    """The processes that ended abnormally and were left to the engine, with what is known of why, the oldest first."""
    return tuple(
        Reported(
            name=each.name,
            role=each.role,
            index=each.index,
            pid=each.pid,
            parent=each.parent,
            ending=each.ending,
            cause=cause_of(case, _as_rank(case, each)),
            at_s=round(each.at - case.started_at, 6),
        )
        for each in case.perished
    )


def led_to(case: Case, root: RankCase) -> tuple[Responsible, ...]:
    """When the engine itself ended: what of its tree had died shortly before, of a signal."""
    at = root.exited.at if root.exited else case.now
    return tuple(
        Responsible(
            rank=None,
            because=f"{each.name} (pid {each.pid}) {ended_by(each.ending)} {seconds(max(0.0, at - each.at))} before"
            + (", killed by the OOM killer" if cause_of(case, _as_rank(case, each)).kind == "oom-kill" else ""),
            confidence=Confidence.LIKELY,
        )
        for each in case.perished
        if each.ending.kind == "signal" and -TOLD_LATE_S <= at - each.at <= LED_TO_S
    )[-4:]


def _as_rank(case: Case, each: Perished) -> RankCase:
    logged = (*case.other_ooms, *(case.ranks[0].ooms if case.ranks else ()))  # in the tree's group: the root's child
    return RankCase(
        rank=-1,
        name=each.name,
        role=each.role,
        pid=each.pid,
        phase=Phase.RUNNING,
        failed_at=each.at,
        exited=Exited(each.at, -1, each.ending, each.oom, each.oom_readable),
        ooms=tuple(kill.replace(is_child=False) for kill in logged if kill.record.pid == each.pid),
    )
