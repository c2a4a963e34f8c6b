"""What became of each rank: culprit, collateral, independent, stopped or finished. One row of the verdict a rank.

Not a judgement of its own: it follows from who is the culprit and how strong a suspect each was (`failure_class.py`).
Read next: `verdict.py`.
"""

from rankguard.case import Case, RankCase
from rankguard.diagnosis.alike import wordless_code
from rankguard.diagnosis.causes import cause_of
from rankguard.diagnosis.evidence import code_of, ended_by_itself, ending, report_of, sigkilled_by_others
from rankguard.diagnosis.failure_class import VICTIMS, FailureClass, failure_class
from rankguard.diagnosis.memory_story import memory_of
from rankguard.diagnosis.story import after
from rankguard.diagnosis.words import shown
from rankguard.model import RankOutcome


def outcome_of(case: Case, rank: RankCase, culprit: RankCase | None, *, failed: bool) -> RankOutcome:
    """The row of one rank. Only ranks that failed by themselves have a cause."""
    related = relation(case, rank, culprit, failed=failed)
    return RankOutcome(
        rank=number_of(case, rank),
        name=name_of(case, rank),
        node=case.node_of(rank.rank),
        pid=rank.pid,
        relation=related,
        phase=shown(rank.phase),
        ending=ending(rank, case.tree),
        cause=cause_of(case, rank) if related in ("culprit", "collateral", "independent") else None,
        ready_after_s=None if rank.ready_at is None else after(case, rank.ready_at),
        ended_after_s=after(case, rank.exited.at) if rank.exited else None,
        memory=memory_of(case, rank),
        log_path=log_path(case, rank),
        role=rank.role,
    )


def relation(case: Case, rank: RankCase, culprit: RankCase | None, *, failed: bool) -> str:
    """Its relation to the failure.

    `collateral`: it failed before we told it to end, by what a peer's death does, or it gave no reason and the culprit's
    failure is the stronger one, or several ended with the same code and the culprit with another. `independent`: its
    failure is of no peer's making: a signal, an exception of its own kind, or something as strong as the culprit's. Ranks
    of a node that was lost are collateral of the node. What is `stopped` and alive is being stopped, or (of a process that
    somebody else started) not our business: the contract has no word for it.
    """
    if culprit is not None and rank.rank == culprit.rank:
        return "culprit"
    if rank.lost is not None and failure_class(case, rank) in (FailureClass.NONE, FailureClass.UNRESOLVED):
        return _of_lost(case, rank, failed=failed)
    if case.spec.watch is not None and failed and _before_we_stopped(rank):
        from rankguard.diagnosis.engine_words import asked_to_end, complaint  # of a watched engine alone

        if asked_to_end(rank):
            return "finished"
        if complaint(case) is not None:
            return "collateral"  # it was killed by its engine, because of the culprit
    own = failure_class(case, rank)
    if failed and own is not FailureClass.NONE and _before_we_stopped(rank):
        of_peer = own in (*VICTIMS, FailureClass.UNRESOLVED)
        weaker = culprit is not None and own > failure_class(case, culprit)
        gave_no_reason = own is FailureClass.ABORTED or (own is FailureClass.FAILED and report_of(rank) is None)
        gave_no_reason &= case.judged is None or rank.rank not in case.judged.either
        in_a_crowd = culprit is not None and _one_of_many(case, rank, culprit)
        return "collateral" if of_peer or (weaker and gave_no_reason) or in_a_crowd else "independent"
    if ended_by_itself(rank) and (code_of(rank) == 0 or case.spec.watch is not None):
        return "finished"  # a watched engine ends its own processes as it likes
    return "stopped"


def _of_lost(case: Case, rank: RankCase, *, failed: bool) -> str:
    """Its node was lost: that was the failure, or another one, or it came when all was to end anyway."""
    if failed and case.judged is not None and case.judged.node is not None:
        return "collateral"
    before = rank.lost is not None and (case.stopped_at is None or rank.lost.at <= case.stopped_at)
    return "independent" if failed and before else "stopped"


def number_of(case: Case, rank: RankCase) -> int | None:
    """A rank's number; the processes of a watched engine are no ranks of ours, and have names."""
    return rank.rank if case.spec.watch is None else None


def name_of(case: Case, rank: RankCase) -> str | None:
    """The name that the owner of the process gave it."""
    if case.spec.watch is not None and rank.name is None:
        return "the engine"
    given = case.spec.names[rank.rank] if 0 <= rank.rank < len(case.spec.names) else None
    return rank.name or given


def log_path(case: Case, rank: RankCase) -> str | None:
    """Where its stderr is kept, or its stdout if it has said nothing there; null when nothing is kept."""
    if not case.spec.run_dir or case.spec.adopted or rank.not_spawned:
        return None
    if case.spec.watch is not None:  # what any of its processes prints is the engine's output
        if case.spec.watch.attaches:
            return None
        rank = case.ranks[0]
    stream = rank.exited.log if rank.exited else "stderr"
    return f"{case.spec.run_dir}/rank-{rank.rank}/attempt-{case.spec.attempt}/{stream}.log" if stream else None


def _one_of_many(case: Case, rank: RankCase, culprit: RankCase) -> bool:
    """Several ended with one code and without a word, as a program's ranks do at a peer's death; the culprit did not."""
    code = wordless_code(rank)
    if not code or code == code_of(culprit):
        return False
    return sum(wordless_code(each) == code for each in case.ranks) > 1


def _before_we_stopped(rank: RankCase) -> bool:
    if rank.suspect:
        return True
    if rank.failed_at is None:
        return False
    return rank.signalled_at is None or rank.failed_at <= rank.signalled_at or sigkilled_by_others(rank)
