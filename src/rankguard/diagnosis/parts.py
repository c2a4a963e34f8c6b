"""The verdict of an engine that is watched over several nodes, from those that each node has come to by itself. Pure.

That of the node which failed first is the verdict of all. Instants are compared on one clock, within its uncertainty;
among failures that came together the stronger one is first, as among ranks (`failure_class.py`): who says that it lost a
peer is a victim of whoever did not. A node that was lost was there until it fell silent. Where nobody failed: who asked.

Not here: what happened on a node (`verdict.py`), what is done about it (`../supervisor/nodes/council.py`).
"""

from rankguard.case import Case, RankCase
from rankguard.diagnosis.failure_class import VICTIMS, FailureClass
from rankguard.diagnosis.instants import CLOCK_GAP_S
from rankguard.diagnosis.verdict import verdict
from rankguard.diagnosis.words import clip
from rankguard.facts import Judged, NodeJoined, NodeLost
from rankguard.jobspec import JobSpec
from rankguard.model import OrderBasis, Phase, RankOutcome, Teardown, Verdict
from rankguard.record import Record

TOGETHER_S = 1.0
"""Failures of several nodes within so long may be one: the kernel tells of a large process late (`culprit.py`)."""
_WARNINGS = 20


class Part(Record):
    """One node. Instants are of the coordinator's clock."""

    node: NodeJoined
    verdict: Verdict | None = None
    """Its own; null when it was lost before it had one."""
    at: float | None = None
    """When its engine failed by itself; null: it did not."""
    strength: int = FailureClass.FAILED
    uncertainty: float = 0.0
    lost: NodeLost | None = None

    @property
    def name(self) -> str:
        return self.node.name


def verdict_of_all(
    spec: JobSpec,
    parts: tuple[Part, ...],
    never: tuple[NodeLost, ...],
    asked: int | None,
    times: tuple[float, float, float],
    version: str,
    *,
    reports: bool = False,
) -> Verdict:
    """`never`: nodes whose absence is a failure. `asked`: the node that was first asked to end. `times`: when the
    coordinator began, the time of day then, and now. `reports`: a node that was lost is none (`--on-failure report`).
    """
    gone = () if reports else (*(part.lost for part in parts if part.lost is not None), *never)
    failed = [part for part in parts if part.at is not None and part.verdict is not None]
    first, either, basis = _first(failed)
    losing = min(gone, key=_since, default=None)
    if losing is not None and (first is None or first.strength in VICTIMS or _since(losing) < (first.at or 0.0)):
        found = _of_lost(spec, parts, gone, losing, times, version)
        return _whole(found, None, parts, ())
    if first is not None and first.verdict is not None:
        found = first.verdict.replace(
            statement=clip(f"node {first.node.node} ({first.name}): {first.verdict.statement}"),
            summary=f"node {first.node.node} ({first.name}): {first.verdict.summary}",
        )
        if len(failed) > 1 and basis:
            found = found.replace(order=OrderBasis(basis=basis))
        return _whole(found, first, parts, either)
    with_word = [part for part in parts if part.verdict is not None]
    if not with_word:
        return _of_lost(spec, parts, (*gone, *(p.lost for p in parts if p.lost is not None)), None, times, version)
    stopped = [part for part in with_word if part.verdict is not None and part.verdict.outcome == "interrupted"]
    base = next((part for part in stopped if part.node.node == asked), stopped[0] if stopped else with_word[0])
    assert base.verdict is not None  # it was chosen among those that have one
    codes = [part.verdict.exit_code for part in with_word if part.verdict is not None]
    said = base.verdict.statement
    if not stopped:
        count = len(with_word)
        said = f"the engines of all {count} nodes ended with exit code 0" if count > 1 else said
    else:
        said = f"{said}, on node {base.node.node} ({base.name})"
    found = base.verdict.replace(
        statement=clip(said),
        summary="\n".join((clip(said), *base.verdict.summary.splitlines()[1:])),
        exit_code=next((code for code in (base.verdict.exit_code, *codes) if code), 0),
    )
    return _whole(found, base, parts, ())


def _first(failed: list[Part]) -> tuple[Part | None, tuple[Part, ...], str]:
    """Who failed first, who may as well have, and how that is known."""
    own = [part for part in failed if part.strength not in VICTIMS] or failed
    if not own:
        return None, (), ""
    earliest = min(own, key=_at)
    together = [part for part in own if _at(part) - _at(earliest) <= TOGETHER_S + _apart(part, earliest)]
    best = min(part.strength for part in together)
    candidates = sorted((part for part in together if part.strength == best), key=_at)
    first = candidates[0]
    either = tuple(part for part in candidates[1:] if _at(part) - _at(first) <= _apart(part, first))
    if len(own) < len(failed) and len(own) == 1:
        return first, (), "the other nodes lost a peer"
    if len(candidates) < len(together):
        return first, either, "the stronger of failures that came together"
    return first, either, "cannot be told: the clocks are not known so well" if either else "its engine failed first"


def _at(part: Part) -> float:
    return 0.0 if part.at is None else part.at


def _since(lost: NodeLost) -> float:
    return lost.at - lost.silent_s


def _apart(one: Part, other: Part) -> float:
    return CLOCK_GAP_S + one.uncertainty + other.uncertainty


def _of_lost(
    spec: JobSpec,
    parts: tuple[Part, ...],
    gone: tuple[NodeLost, ...],
    first: NodeLost | None,
    times: tuple[float, float, float],
    version: str,
) -> Verdict:
    began, wall, now = times
    lost = {each.node: each for each in gone}
    count = 0 if spec.nodes is None else spec.nodes.count
    here = {part.node.node for part in parts}
    ranks = tuple(
        RankCase(rank=n, lost=lost.get(n), phase=Phase.RUNNING if n in here else Phase.LAUNCHING) for n in range(count)
    )
    case = Case(
        spec=spec,
        started_at=began,
        started_wall=wall,
        now=now,
        ranks=ranks,
        nodes=tuple(part.node for part in parts),
        lost_nodes=gone,
        failed_at=now if first is None else first.at,
        failed_by="node-lost",
        ended_at=now,
    )
    if first is not None:
        case = case.replace(
            judged=Judged(now, None, "node-lost", 1, basis="no engine had failed before", node=first.node)
        )
    found = verdict(case, version)
    return found.replace(exit_code=found.exit_code or 1, timeline=())


def _whole(found: Verdict, base: Part | None, parts: tuple[Part, ...], either: tuple[Part, ...]) -> Verdict:
    """With what is known of all nodes."""
    rows: list[RankOutcome] = []
    positions: list[int] = []
    for part in parts:
        if part is base and part.verdict is not None:
            positions += [len(rows) + each for each in part.verdict.either]
        rows_here = _rows(found, base, part)
        if part in either:
            culprit = part.verdict.culprit if part.verdict is not None else None
            positions += [
                len(rows) + n for n, row in enumerate(rows_here) if culprit is not None and row.pid == culprit.pid
            ]
        rows += rows_here
    told = [part.verdict for part in parts if part.verdict is not None]
    downs = [each.teardown for each in told]
    warnings = list(found.warnings)
    for part in parts:
        if part is not base and part.verdict is not None:
            warnings += [f"{part.name}: {each}" for each in part.verdict.warnings]
        if part.lost is not None and (found.culprit is None or found.culprit.cause.kind != "node-lost"):
            warnings.append(f"node {part.node.node} ({part.name}) was lost: {part.lost.statement}")
    culprit = found.culprit
    if culprit is not None and culprit.log_path is not None:
        found = found.replace(culprit=culprit.replace(log_path=_there(culprit.node, culprit.log_path)))
    return found.replace(
        nodes=tuple(part.name for part in parts),
        world_size=max(1, sum(each.world_size for each in told)),
        ranks=tuple(rows),
        either=tuple(dict.fromkeys(positions)),
        teardown=Teardown(
            took_s=max((each.took_s for each in downs if each.took_s is not None), default=None),
            killed=tuple(pid for each in downs for pid in each.killed),
            survivors=tuple(one for each in downs for one in each.survivors),
            left=tuple(
                left.replace(path=_there(part.name, left.path))
                for part in parts
                if part.verdict is not None
                for left in part.verdict.teardown.left
            ),
        ),
        warnings=tuple(dict.fromkeys(warnings))[:_WARNINGS],
        degraded=sum(each.degraded for each in told),
        ended_at=max((each.ended_at for each in told if each.ended_at is not None), default=found.ended_at),
    )


def _rows(found: Verdict, base: Part | None, part: Part) -> list[RankOutcome]:
    """Of one node's processes: what became of them is not their node's culprit's doing, but that of all."""
    if part.verdict is None:
        lost = next((row for row in found.ranks if row.rank == part.node.node), None)
        return [] if lost is None else [lost.replace(rank=None, name=f"the engine on {part.name}", node=part.name)]
    rows = []
    for row in part.verdict.ranks:
        relation = row.relation
        if part is not base and relation == "culprit":
            weaker = part.strength in VICTIMS or (base is not None and part.strength > base.strength)
            relation = "collateral" if weaker else "independent"
        path = None if row.log_path is None else _there(part.name, row.log_path)
        name = f"{row.name} on {part.name}" if part is not base and row.role is None else row.name  # each has a root
        rows.append(row.replace(relation=relation, name=name, node=part.name, log_path=path))
    return rows


def _there(node: str, path: str) -> str:
    return f"{node}:{path}"
