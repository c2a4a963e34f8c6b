"""The cells for the tree of a watched engine (`rankguard watch`): its root is rank 0, every rank-like process a member.

A member may not end while the others go on. When one does, everybody is looked at, and then the engine has `settle`
seconds for its own handling; what is left of it is told to end, its root first (`stopping.py`). Whatever else ends in
the tree is told, and left to the engine. When the root ends by itself the job is over, as one whose last rank has ended.

Not here: who is rank-like (`diagnosis/roles.py`), how processes are found (`launchers/treewatch.py`).
"""

from collections.abc import Iterator

from rankguard.core.clocks import Orders, wake, wake_in_time
from rankguard.core.job import Job, RankState
from rankguard.core.policy import PERISHED_TOLD, SUSPECTS
from rankguard.core.stopping import go_on_holding, judge_when_resolved, stop_for_failure, suspect
from rankguard.facts import Exited, Joined, Perished
from rankguard.jobspec import WatchPlan
from rankguard.model import Ending
from rankguard.orders import Look, Tell

ROOT = 0
ASKED = (1, 2, 15)
"""SIGHUP, SIGINT, SIGTERM: by these an engine tells its own processes to end."""
TOGETHER_S = 1.0
"""An engine that kills all its processes at once, and then ends, has ended this soon after."""
SIGKILL = 9


def joined(job: Job, fact: Joined) -> Orders:
    """A new member, or one of those that are there has another name now."""
    if fact.rank < len(job.ranks):
        job.ranks[fact.rank].member = fact
        return ()
    rank = RankState(fact.rank)
    rank.pid, rank.spawned_at, rank.member = fact.pid, fact.at, fact
    job.ranks.append(rank)
    job.remember(fact.at, f"{fact.name} (pid {fact.pid}) is watched: {fact.rule}")
    return ()


def perished(job: Job, fact: Perished) -> Orders:
    """No failure of the engine by our rules. In an end that was ordered all end, one way or another."""
    if not fact.loud or job.stopped_at is not None:
        return ()
    job.perished.append(fact)
    job.perished_told += 1
    because = (
        f"{fact.name} (pid {fact.pid}) {_how(fact.ending, killed_for_memory(job, fact))}; it is left to its engine"
    )
    job.remember(fact.at, because)
    if job.perished_told > PERISHED_TOLD:
        return ()
    if job.perished_told == PERISHED_TOLD:
        because += "; further ones are in the journal alone"
    return (Tell(because, "note"),)


def killed_for_memory(job: Job, fact: Perished) -> bool:
    """The kernel log names it, or a counter of OOM kills rose with its end."""
    return fact.ending.number == SIGKILL and (
        bool(fact.oom) or any(each.record.pid == fact.pid for each in (*job.other_ooms, *job.ranks[ROOT].ooms))
    )


def exited(job: Job, rank: RankState, fact: Exited, failure: str | None) -> Orders:
    """A process of the tree has ended, and nothing of ours has asked for it. `failure`: why that is one of the root's."""
    if rank.rank == ROOT:
        return _root_ended(job, rank, fact, failure)
    if rank.suspect or job.ended:  # it was dying when we looked, or the root was before it
        return go_on_holding(job, fact.at) if rank.suspect else judge_when_resolved(job)
    if job.announced:
        return ()
    if _as_told(fact.ending):
        return _left(job, rank, fact)
    return _fail(job, rank, fact.at, f"{_named(rank)} {_how(fact.ending, bool(fact.oom) or bool(rank.ooms))}")


def settled(job: Job, at: float) -> Orders:
    """The engine has not ended by itself."""
    if not job.holding:
        return judge_when_resolved(job)
    return stop_for_failure(job, at, f"the engine had not ended by itself {plan(job).settle:g} s after the failure")


def left_passed(job: Job, at: float) -> Orders:
    """Who ended well while the others went on: they still do."""
    if job.failed_at is not None or job.stopped_at is not None or job.ended:
        return ()
    gone = [rank for rank in job.ranks if rank.left and rank.exited is not None]
    late = [rank for rank in gone if _end(rank) + plan(job).settle <= at]
    if not late:
        soonest = min((_end(rank) + plan(job).settle for rank in gone), default=None)
        return () if soonest is None else (wake(job, "left", soonest, "another one ended while the others went on"),)
    for rank in late:
        suspect(job, rank, _end(rank))
    job.failed_at, job.failed_by = _end(late[0]), "exit"
    assert late[0].exited is not None  # it is among those that are gone
    because = f"{_named(late[0])} {_how(late[0].exited.ending, False)} while the others go on"
    job.remember(at, because)
    return (*stop_for_failure(job, at, because), Tell(because, "note"))


def plan(job: Job) -> WatchPlan:
    assert job.spec.watch is not None  # nobody else comes here
    return job.spec.watch


def _fail(job: Job, rank: RankState, at: float, because: str) -> Orders:
    suspect(job, rank, at)
    job.remember(at, because)
    if job.failed_at is not None:
        return go_on_holding(job, at)
    job.failed_at, job.failed_by = at, "exit"
    if not plan(job).settle:
        return (*stop_for_failure(job, at, because), Tell(because, "note"))
    job.holding = True
    said = f"{because}; the engine has {plan(job).settle:g} s to handle it (--settle)"
    return (Look(because), wake(job, "engine", at + plan(job).settle, "the engine's own handling"), Tell(said, "note"))


def _left(job: Job, rank: RankState, fact: Exited) -> Orders:
    """With 0, as one that was told to end, or nobody knows how: the engine may be ending itself."""
    assert rank.member is not None  # the root does not come here
    if rank.member.may_end and fact.ending.code == 0:
        return ()
    rank.left = True
    if job.failed_at is not None or "left" in job.due:
        return ()
    because = f"{_named(rank)} {_how(fact.ending, False)}; the others may be about to end, too"
    told = (Tell(because, "note"),) if fact.ending.code is None and fact.ending.number is None else ()
    return (*wake_in_time(job, "left", fact.at + plan(job).settle, because), *told)


def _root_ended(job: Job, root: RankState, fact: Exited, failure: str | None) -> Orders:
    if job.failed_at is not None and failure is None and _by_itself(job, fact.at):
        _withdraw(job, fact.at)
        return ()
    if job.failed_at is not None and failure is not None and _at_once(job.failed_at, fact):
        suspect(job, root, fact.at)
    if job.failed_at is not None or failure is None:
        return ()
    suspect(job, root, fact.at)
    job.failed_at, job.failed_by = fact.at, "exit"
    because = f"the engine {failure}"
    job.remember(fact.at, because)
    return (
        Look(because),
        wake(job, "suspects", fact.at + SUSPECTS, "the endings of others that were dying are awaited"),
    )


def _at_once(failed_at: float, fact: Exited) -> bool:
    """It was killed no later than the first of its processes was seen to have been: perhaps they died of its death (the
    parent-death signal of prctl(2)), perhaps it had killed all of them and then itself.
    """
    begun = fact.begun is not None and fact.begun.latest <= failed_at
    return fact.ending.number == SIGKILL and (begun or fact.at <= failed_at)


def _by_itself(job: Job, at: float) -> bool:
    """So engines shut down, and their root ends with 0: they tell their processes to end and kill those that do not, or
    kill all of them at once (SGLang's `kill_process_tree`). One that was killed before the others is something else.
    """
    ended = (rank.exited for rank in _members(job) if rank.exited is not None)
    # Of those that were seen at once one that was killed counts as the first: the others may have ended because of it.
    ends = sorted(ended, key=lambda each: (each.at, _as_told(each.ending)))
    if any(rank.ooms for rank in _members(job)) or any(each.oom for each in ends):
        return False
    if not all(_as_told(each.ending) or each.ending.number == SIGKILL for each in ends):
        return False
    together = len(ends) > 1 and at - ends[0].at <= TOGETHER_S and all(each.ending.number == SIGKILL for each in ends)
    return together or _as_told(ends[0].ending)


def _withdraw(job: Job, at: float) -> None:
    job.remember(at, "the engine ended with 0, and had ended its own processes: no failure")
    for number in job.suspects:
        job.ranks[number].suspect, job.ranks[number].failed_at = False, None
    job.suspects.clear()
    job.unresolved.clear()
    job.failed_at = job.failed_by = job.looked = job.noticed_at = None
    job.holding = False


def _members(job: Job) -> Iterator[RankState]:
    return (rank for rank in job.ranks if rank.member is not None)


def _end(rank: RankState) -> float:
    return 0.0 if rank.exited is None else rank.exited.at


def _as_told(ending: Ending) -> bool:
    """Also of one whose status went with the parent that reaped it (kernels before 6.15)."""
    return not ending.code and (ending.number is None or ending.number in ASKED)


def _named(rank: RankState) -> str:
    return f"{rank.member.name if rank.member else 'the engine'} (pid {rank.pid})"


def _how(ending: Ending, for_memory: bool) -> str:
    if for_memory and ending.number == SIGKILL:
        return "was killed by the kernel's OOM killer"
    if ending.kind == "signal":
        return f"was ended by {ending.signal}"
    return "ended, nobody can say how" if ending.code is None else f"ended with exit code {ending.code}"
