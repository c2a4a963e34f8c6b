"""A collective that timed out, in words: the cause, its evidence and what to do. Pure; who it was is `collectives.py`'s."""

from collections.abc import Iterable, Mapping

from rankguard.case import Case, RankCase
from rankguard.diagnosis.collective_words import Step
from rankguard.diagnosis.collectives import KIND, Choice, View, choose, look, mismatches, waited_at
from rankguard.diagnosis.evidence import ended_by_us, wait_status
from rankguard.diagnosis.kinds import make
from rankguard.diagnosis.stacks import sentence
from rankguard.diagnosis.stall_evidence import last_sign, stack_of
from rankguard.diagnosis.stall_hints import held_hint
from rankguard.diagnosis.words import clip, ranges, who, whose
from rankguard.model import Cause, Confidence, Evidence
from rankguard.stacks import Group, Stack

_QUOTE = 150


def absent(case: Case, rank: RankCase) -> Cause | None:
    """The cause, of the rank that was waited for."""
    judged = case.judged
    if judged is not None and (judged.kind, judged.rank) != (KIND, rank.rank):
        return None
    found = choose(case)
    if found.rank != rank.rank and judged is None:
        return None
    if judged is not None and found.rank != rank.rank:  # more is known since, but it is judged
        found = Choice(rank.rank, judged.either, judged.basis, Confidence.LIKELY)
    view = look(case)
    heard = last_sign(view.case.mustered, rank.rank) if view.case.mustered is not None else ()
    evidence = (*_quotes(view), *_numbers(view), *_stacks(view, rank.rank), *heard)
    if not ended_by_us(rank):
        evidence += wait_status(rank)
    return make(KIND, f"{who(case, rank)} {_did(view, found)}", found.confidence, evidence, rank=rank)


def nobody(case: Case) -> Cause:
    """The cause where it is not known who was waited for."""
    view = look(case)
    statement = (
        f"{_those(view, len(case.ranks))} timed out in a collective, and which rank they waited for is not known"
    )
    evidence = (*_quotes(view), *_numbers(view), *_stacks(view, None))
    return make(KIND, statement, Confidence.UNKNOWN, evidence)


def hints(case: Case, rank: RankCase | None) -> list[str]:
    """The most useful first."""
    found = case.mustered
    stack = stack_of(found, rank.rank) if rank and found else None
    first = held_hint(case, rank, stack) if rank and stack else None
    if first is None and rank:
        first = (
            f"see what {whose(case, rank)} did instead; if it was only slow, raise `timeout=` of `init_process_group`"
        )
    told = [first or "compare the last collective in each rank's log: who is behind, or in another, was waited for"]
    if found and found.saved:
        told.append(f"read what the ranks were doing: {found.saved}")
    view = look(case)
    if not view.recorded and any("WorkNCCL" in (each.told.quote or "") for each in view.stood.values()):
        told.append("set TORCH_FR_BUFFER_SIZE=2000 and TORCH_NCCL_DUMP_ON_TIMEOUT=1: the next verdict compares records")
    return told


# ── Words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _those(view: View, world: int) -> str:
    waited = [n for n, each in view.stood.items() if each.state == "timed out"]
    if len(waited) == world:
        return f"all {world} ranks"
    return (f"rank {waited[0]}" if len(waited) == 1 else f"ranks {ranges(waited)}") + f" of {world}"


def _did(view: View, found: Choice) -> str:
    assert found.rank is not None  # the caller has looked
    each = view.stood[found.rank]
    waited = [n for n in view.stood if view.stood[n].state == "timed out" and n != found.rank]
    others = (f"rank {waited[0]}" if len(waited) == 1 else f"ranks {ranges(waited)}") if waited else "no other rank"
    if found.told_by == "mismatched" and (words := _mismatch(view, found.rank)) is not None:
        return words
    if found.told_by == "elsewhere" and each.place is not None:
        return f"was in `{each.place[0]}` ({_line(each.place[1])}), in another call than the ranks it waited for"
    if each.state == "finished":
        return f"had ended with exit code 0 before a collective in which {others} timed out"
    what = "a collective"
    for of in view.steps.values():
        at, mine = waited_at(of), of.get(found.rank)
        if at is None or mine is None:
            continue
        if found.told_by == "behind" and mine.seq == at:
            return f"waited in {_op(of, at)}, which no other rank had reached"
        if mine.seq != at:
            what = _op(of, at)
            break
    doing = f": it {_alone(found.rank, each.stack)}" if each.stack is not None else ""
    return f"did not join {what} in which {others} timed out{doing}"


def _op(of: Mapping[int, Step], at: int) -> str:
    name = next((step.op for step in of.values() if step.seq == at and step.op), "collective")
    return f"{name} #{at}"


def _mismatch(view: View, rank: int) -> str | None:
    for (_group, seq), ops in mismatches(view).items():
        if rank in ops:
            others = {op for n, op in ops.items() if op != ops[rank]}
            where = next(
                (e.where for own in view.recorded if own.rank == rank for e in own.entries if e.seq == seq), None
            )
            line = f" ({_line(where)})" if where else ""
            return f"was in {ops[rank]}{line} while the others were in {', '.join(sorted(others))} (collective #{seq})"
    return None


def _line(where: str) -> str:
    return where.partition(" ")[0]


def _alone(rank: int, stack: Stack) -> str:
    return sentence(Group((rank,), stack), 2).removeprefix(f"rank {rank} ")


# ── Evidence ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _quotes(view: View) -> tuple[Evidence, ...]:
    """What the first of those that timed out says, and who else did."""
    waited = [n for n, each in view.stood.items() if each.state == "timed out"]
    if not waited:
        return ()
    quote = view.stood[waited[0]].told.quote or ""
    several = f"ranks {ranges(waited)} timed out; rank {waited[0]}" if len(waited) > 1 else f"rank {waited[0]}"
    return (Evidence(source="log", statement=f'{several}: "{clip(quote, _QUOTE)}"'),)


def _numbers(view: View) -> tuple[Evidence, ...]:
    """Where the ranks of a group stood, where that differs."""
    told = []
    for group, of in view.steps.items():
        by: dict[str, list[int]] = {}
        for n, step in of.items():
            if step.seq is not None:
                words = f"waited in {step.op or 'collective'} #{step.seq}"
            else:
                words = f"had enqueued #{step.enqueued} last"
            by.setdefault(words, []).append(n)
        if len(by) > 1:
            name = f" of group {group}" if len(view.steps) > 1 and group else ""
            said = "; ".join(
                f"{_who(ranks)} {words}" for words, ranks in sorted(by.items(), key=lambda i: -len(i[1]))[:4]
            )
            told.append(Evidence(source="sequence numbers", statement=f"{said}{name}"))
    for (_group, seq), ops in mismatches(view).items():
        by = {}
        for n, op in ops.items():
            by.setdefault(op, []).append(n)
        said = "; ".join(f"{_who(ranks)} in {op}" for op, ranks in sorted(by.items(), key=lambda i: -len(i[1]))[:4])
        told.append(Evidence(source="sequence numbers", statement=f"at collective #{seq} {said}"))
    return tuple(told[:3])


def _who(ranks: Iterable[int]) -> str:
    numbers = list(ranks)
    return f"rank {numbers[0]}" if len(numbers) == 1 else f"ranks {ranges(numbers)}"


def _stacks(view: View, rank: int | None) -> tuple[Evidence, ...]:
    found = view.case.mustered
    if found is None:
        return ()
    groups = sorted(found.groups, key=lambda group: (rank not in group.ranks, -len(group.ranks), group.ranks))
    world = len(view.case.ranks)
    told = [Evidence(source="stacks", statement=sentence(group, world)) for group in groups[:3]]
    lacks = sorted({group.stack.lacks for group in groups if group.stack.lacks})
    return (*told, *(Evidence(source="stacks", statement=f"no Python calls are known: {why}") for why in lacks[:1]))
