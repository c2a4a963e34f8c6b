"""A node of the job was lost: whether that came first, and why, and what to do. Of jobs on several machines alone.

Who lost a peer is a victim of a node that was lost, whenever either of the two was known: silence takes its time to be a
loss. A rank's own failure beats the node if it came before, by clocks that are off by so much and no more; where these
cannot tell, the one whose news came first is named, and the other is in `either` (of a node: its ranks).

Not here: how it is noticed (`core/nodes.py`), ranks among themselves (`culprit.py`).
"""

from collections.abc import Callable, Sequence

from rankguard.case import Case, RankCase
from rankguard.diagnosis.exit_status import exit_code
from rankguard.diagnosis.failure_class import FailureClass, failure_class
from rankguard.diagnosis.instants import CLOCK_GAP_S, seen_at, stamp
from rankguard.diagnosis.kinds import make
from rankguard.diagnosis.words import clip, ranges, seconds
from rankguard.facts import UNJOINED, Judged, NodeLost
from rankguard.model import Cause, Confidence, Evidence, Phase, Retry

KIND = "node-lost"
NOT_JOINED = (*UNJOINED, "refused")
FREE = 400
"""Characters of what the nodes of a cluster have."""
TOGETHER_S = 1.5
"""Who lost a peer by the loss of a node says so no sooner than this before the node falls silent."""


def choose(case: Case, of_ranks: Callable[[Case], Judged]) -> Judged:
    """The culprit where nodes were lost. `of_ranks`: the choice among ranks alone."""
    lost = _first(case)
    if lost is None or (case.failed_by in ("ready-timeout", "stall") and any(rank.late for rank in case.ranks)):
        return of_ranks(case)
    suspects = [rank for rank in case.ranks if rank.suspect]
    own = [rank for rank in suspects if failure_class(case, rank) < FailureClass.TIMED_OUT]
    if not own:
        basis = "those that failed had only lost a peer" if suspects else "only suspect"
        return _judged(case, lost, (), basis)
    when = {rank.rank: _against(case, rank, lost) for rank in own}
    if all(each > 0 for each in when.values()):
        return _judged(case, lost, (), "was lost before any rank failed")
    undecided = tuple(number for number, each in sorted(when.items()) if each == 0)
    if case.failed_by == KIND and not any(each < 0 for each in when.values()):
        return _judged(case, lost, undecided, "was known first")
    judged = of_ranks(case)
    if judged.rank is None or when.get(judged.rank, 0) < 0:
        return judged
    return judged.replace(either=tuple(sorted({*judged.either, *_ranks(case, lost)})))


def cause(case: Case, rank: RankCase | None = None) -> Cause:
    """Why the job failed, or why nothing is known of the end of this rank."""
    if rank is not None:
        lost = rank.lost
        assert lost is not None  # the caller has looked
        with_ = f"rank {rank.rank} of {len(case.ranks)} was lost with its node {lost.name}"
        if lost.how in UNJOINED:
            with_ = f"rank {rank.rank} of {len(case.ranks)} was not started: its node did not join"
        elif _has_engines(case):
            with_ = f"the engine of node {lost.node} was lost with its node {lost.name}"
        return make(KIND, with_, Confidence.PROVEN, (_evidence(case, lost),))
    lost = _named(case)
    assert lost is not None  # the caller has looked
    if case.spec.share is not None:
        return make(KIND, _coordinator(lost), Confidence.PROVEN, (_evidence(case, lost),))
    if lost.how == "never":
        return make(KIND, _missing(case), Confidence.PROVEN, (_evidence(case, lost),))
    if lost.how == "unplaced":
        what, _, free = lost.statement.partition(": alive nodes have ")
        proof = (
            Evidence(source="ray", statement=clip(f"alive nodes have {free}", FREE)) if free else _evidence(case, lost)
        )
        return make(KIND, what, Confidence.PROVEN, (proof,))
    named = lost.name
    which = f" (rank{_s(_ranks(case, lost))} {ranges(_ranks(case, lost))} of {len(case.ranks)})"
    if _has_engines(case):
        named, which = f"{lost.node}", f" ({lost.name})"
    others = [each.name for each in _counted(case) if each is not lost]
    too = (
        f"; so was {' and '.join(others)}"
        if 0 < len(others) < 3
        else f"; so were {len(others)} others"
        if others
        else ""
    )
    sure = (
        Confidence.PROVEN if case.failed_by == KIND else Confidence.LIKELY
    )  # it was lost; that it was the first is inferred
    evidence = tuple(_evidence(case, each) for each in (lost, *(each for each in _counted(case) if each is not lost)))
    return make(KIND, f"node {named}{which} was lost: {lost.statement}{too}", sure, evidence[:4])


def is_of_node(case: Case) -> bool:
    """The culprit is a node."""
    return case.judged is not None and case.judged.node is not None


def name_of(case: Case) -> str:
    """The name of the node that is the culprit; empty for one that never came."""
    lost = _named(case)
    return "" if lost is None else lost.name


def phase_of(case: Case) -> tuple[Phase, bool] | None:
    """Where the ranks of that node were, the one that was the least far: and whether all were ready."""
    lost = _named(case)
    ranks = (
        [] if lost is None else [rank for rank in case.ranks if rank.lost is not None and rank.lost.node == lost.node]
    )
    if not ranks:
        return None
    order = list(Phase)
    return min((rank.phase for rank in ranks), key=order.index), all(rank.ready_at is not None for rank in ranks)


def retry(case: Case) -> Retry:
    """Another attempt needs another machine, or all that were asked for."""
    lost = _named(case)
    if lost is not None and lost.how in NOT_JOINED:
        return Retry(advice="elsewhere", because="not all nodes came, and nothing was started")
    return Retry(advice="elsewhere", because="the machine was lost, not the program")


def hints(case: Case) -> tuple[str, ...]:
    """What to do, the most useful first."""
    lost = _named(case)
    if lost is None:
        return ()
    if case.spec.share is not None:
        if lost.how in NOT_JOINED:
            return (f"see whether the same command was started on node 0, and whether {lost.name} is its address",)
        return (f"the verdict on the whole job is on node {lost.name}, if it still runs there",)
    if lost.how == "unplaced":
        return (lost.hint,) if lost.hint else ()
    if lost.how == "never":
        first = case.node(0)
        where = f"node 0 ({first.name})" if first is not None else "node 0"
        see = f"see whether the same command was started on each node, and whether each can reach {where}"
        return (f"{see}; `--join-timeout` is how long they are waited for",)
    name, ranks = lost.name, _ranks(case, lost)
    what = f"`rankguard report` on {name} has the verdict of its agent"
    if lost.how == "silent":
        what = f"see whether {name} is up and can be reached (ping, its console, its kernel log)"
        what += "; if it was only slow, raise `--node-timeout`"
    elif lost.how == "closed":
        what = (
            f"see who ended rankguard on {name}: the kernel log (OOM), the scheduler; `rankguard report` there has more"
        )
    if not case.spec.run_dir or not ranks:
        return (what,)
    logs = f"{case.spec.run_dir}/rank-{ranks[0]}/"
    return (
        what,
        f"what rank{_s(ranks)} {ranges(ranks)} had printed until then is in {logs}{' …' if len(ranks) > 1 else ''}",
    )


# ── Which node, and when ─────────────────────────────────────────────────────────────────────────────────────────


def _counted(case: Case) -> list[NodeLost]:
    """Losses that ended ranks, or a job: not those after all ranks of a node had ended."""
    hit = {rank.lost.node for rank in case.ranks if rank.lost is not None}
    return [each for each in case.lost_nodes if each.node in hit or case.spec.share is not None]


def _first(case: Case) -> NodeLost | None:
    """The first loss that may have been the first failure: not one that began long after it."""
    failed_at = case.now if case.failed_at is None else case.failed_at
    found = [each for each in _counted(case) if _since(each) <= failed_at + TOGETHER_S]
    return min(found, key=_since, default=None)


def _named(case: Case) -> NodeLost | None:
    """The one that was judged; before that, the one that would be."""
    if case.judged is not None and case.judged.node is not None:
        return next((each for each in case.lost_nodes if each.node == case.judged.node), None)
    return _first(case)


def _since(lost: NodeLost) -> float:
    """It was there until then."""
    return lost.at - lost.silent_s


def _against(case: Case, rank: RankCase, lost: NodeLost) -> int:
    """Whether the rank failed before the node was lost (-1), after (1), or nobody can tell (0)."""
    told = stamp(rank)
    at = seen_at(case, rank) if told is None else min(told, seen_at(case, rank))
    apart = CLOCK_GAP_S + case.uncertainty(rank.rank)
    if at + apart <= _since(lost):
        return -1
    return 1 if at >= lost.at + apart else 0


def _judged(case: Case, lost: NodeLost, either: tuple[int, ...], basis: str) -> Judged:
    return Judged(
        at=case.now,
        rank=None,
        kind=KIND,
        exit_code=exit_code(case, None, KIND),
        either=either,
        basis=basis,
        node=lost.node,
    )


# ── Words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ranks(case: Case, lost: NodeLost) -> tuple[int, ...]:
    return case.ranks_of_node(lost.node) if case.spec.nodes is not None else ()


def _evidence(case: Case, lost: NodeLost) -> Evidence:
    """What shows it, not what it is called."""
    if lost.how == "never":
        here = len(case.nodes)
        said = f"{here} of {case.spec.nodes.count} nodes have joined" if case.spec.nodes is not None else lost.statement
        return Evidence(source="clock", statement=clip(said))
    if lost.how == "unplaced":
        return Evidence(source="ray", statement=clip(lost.statement))
    joined = case.node(lost.node) if case.spec.nodes is not None else None
    address = f", {joined.address}" if joined is not None and joined.address not in ("", lost.name) else ""
    who = f"node {lost.node} ({lost.name}{address})"
    if lost.how == "silent":
        return Evidence(
            source="clock", statement=clip(f"{who} was last heard {seconds(_last_heard(case, lost))} after launch")
        )
    if lost.how == "closed":
        return Evidence(source="link", statement=clip(f"{who} closed the connection and had not said that it is done"))
    return Evidence(source="agent", statement=clip(f"{who}: {lost.statement}"))


def _last_heard(case: Case, lost: NodeLost) -> float:
    return max(0.0, _since(lost) - case.started_at)


def _missing(case: Case) -> str:
    """`node 2 and node 3 of 4 have not joined within 600 s; joined: host-a, host-b`."""
    plan = case.spec.nodes
    assert plan is not None  # only a coordinator waits for nodes
    here = {node.node for node in case.nodes}
    missing = [number for number in range(plan.count) if number not in here]
    which = " and ".join(f"node {number}" for number in missing) if len(missing) < 3 else f"nodes {ranges(missing)}"
    have = "has" if len(missing) == 1 else "have"
    names = [node.name for node in case.nodes]
    joined = ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")
    return f"{which} of {plan.count} {have} not joined within {seconds(plan.join_timeout)}; joined: {joined or 'none'}"


def _coordinator(lost: NodeLost) -> str:
    """Of an agent's own verdict."""
    if lost.how == "never":
        return f"node 0 at {lost.name} {lost.statement.removeprefix('it ')}"
    if lost.how == "refused":
        return f"the coordinator at {lost.name} refused this node: {lost.statement}"
    return f"the coordinator's node {lost.name} was lost: {lost.statement}"


def _has_engines(case: Case) -> bool:
    """Each node watches an engine of its own: their numbers are those of the nodes, and nobody knows them as ranks."""
    return case.spec.nodes is not None and case.spec.nodes.watch is not None


def _s(ranks: Sequence[int]) -> str:
    return "" if len(ranks) == 1 else "s"
