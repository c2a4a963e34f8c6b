"""The verdict told in time and in five lines: the timeline and the summary. Words only; all judgement is made already.

Not the final report (`report/`) nor the journal (`core/story.py`). Read next: `verdict.py`.
"""

from rankguard.case import Case, RankCase
from rankguard.diagnosis.words import clip, ended_by, ranges, seconds, signal_name, whose
from rankguard.model import Culprit, Moment, RankOutcome

_LINE = 200


def failed_summary(case: Case, culprit: Culprit, ranks: tuple[RankOutcome, ...], hints: tuple[str, ...]) -> str:
    """At most five lines: what, when and where, what shows it, what happened to the others, what to do."""
    cause = culprit.cause
    lines = [f"{cause.statement} [{cause.kind}, {cause.confidence.value}]"]
    place = [f"{seconds(culprit.elapsed_s)} after launch"]
    place += [f"on {culprit.node}"] if culprit.node else []
    place += [f"pid {culprit.pid}"] if culprit.pid is not None else []
    place += [ended_by(culprit.ending)] if culprit.rank is not None and cause.kind != "cannot-start" else []
    if case.expects_ready and case.spec.watch is None:
        place.append(f"{ready_count(case)} of {len(case.ranks)} ready")
    lines.append(", ".join(place))
    if cause.evidence:
        lines.append("; ".join(f"{each.source}: {each.statement}" for each in cause.evidence[:2]))
    others = [
        f"{relation}: {ranges(row.rank for row in ranks if row.relation == relation and row.rank is not None)}"
        for relation in ("collateral", "independent", "stopped", "finished")
        if any(row.relation == relation for row in ranks)
    ]
    if others:
        lines.append("; ".join(others))
    if hints:
        lines.append(f"try: {hints[0]}")
    return "\n".join(clip(line, _LINE) for line in lines)


def ready_count(case: Case) -> int:
    """How many ranks had reported ready."""
    return sum(rank.ready_at is not None for rank in case.ranks)


def timeline(case: Case, culprit: RankCase | None) -> tuple[Moment, ...]:
    """What happened when, in order: the core's own moments and those that the case tells by itself."""
    count = len(case.ranks)
    noun = "processes" if case.spec.adopted else "ranks"
    moments = [(case.started_at, f"watching {count} {noun}" if case.spec.adopted else f"launched {count} {noun}")]
    if case.all_ready_at is not None:
        moments.append((case.all_ready_at, f"all {count} {noun} ready"))
    if case.stop:
        moments.append(
            (
                case.stop.at,
                f"{signal_name(case.stop.signal)} from outside" if case.stop.by == "signal" else "asked to end",
            )
        )
    if case.failed_at is not None:
        moments.append((case.failed_at, _failure(case, culprit)))
    if case.stopped_at is not None:
        moments.append((case.stopped_at, "told the ranks to end"))
    if case.ended_at is not None:
        moments.append((case.ended_at, "the last rank had ended"))
    known = {moment.at_s for moment in case.timeline}  # the core's words for the same moment are the better ones
    told = [Moment(at_s=at_s, what=what) for at, what in moments if (at_s := after(case, at)) not in known]
    return tuple(sorted((*told, *case.timeline), key=lambda moment: moment.at_s))


def after(case: Case, at: float) -> float:
    """Seconds since launch."""
    return round(at - case.started_at, 6)


def _failure(case: Case, culprit: RankCase | None) -> str:
    if culprit is None:
        return "first failure"
    if culprit.failed_at is not None and culprit.failed_at != case.failed_at:
        return f"first failure seen; {whose(case, culprit)} is the culprit"
    return f"{whose(case, culprit)} failed"
