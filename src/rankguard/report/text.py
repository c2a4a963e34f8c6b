"""A verdict as text: the block on stderr, its last line, `str(RankFailed)`, and the two lines told while one waits.

Written for the person who is paged: what failed and why first, then what to do, then what it rests on. A log collector
may keep no more than the last 2,048 bytes (Kubernetes does), so the block fits in that and ends with one stable line.
It decides nothing: every word comes from the verdict. It hides no secrets either: the verdict holds none by then
(`redact.py`). Layout and colour live here and nowhere else.

Read next: `wording.py` (how things are said), `schema/verdict-1.json` (the same facts for machines).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rankguard.model import Cause, Confidence, Culprit, Family, RankOutcome, Verdict
from rankguard.report import wording as say

MAX_BYTES, MAX_LINES = 2048, 25
SILENT_AFTER_S = 30.0
"""A rank that has said nothing for this long is called silent."""


def final_report(verdict: Verdict, color: bool = False, width: int = 100, saved: bool = True) -> str:
    """What is shown on stderr when a job has ended; no final newline.

    `saved` says that the run has a folder, which `rankguard report` and `explain` need. Colour does not count as bytes.
    """
    width = max(60, min(width, 160))
    last = last_line(verdict)
    if verdict.outcome == "succeeded":
        notes = _leftovers(verdict, 2) + list(verdict.warnings)
        return (say.printable(f"note: {say.some(notes, 2, '; ')}", 400) + "\n" if notes else "") + last
    rows = _failed_rows if verdict.outcome == "failed" else _interrupted_rows
    lines = _fitted(lambda room: rows(verdict, saved, Block(width, room)), ["", last])
    return "\n".join([*(map(_painted, lines[:-1]) if color else lines[:-1]), lines[-1]])


def last_line(verdict: Verdict) -> str:
    """`rankguard: exit 137 oom-kill proven rank=5 node=host-a phase=starting run=7f3a`: stable, below 200 bytes."""
    words = ["rankguard:", "exit", str(verdict.exit_code)]
    culprit = verdict.culprit
    if verdict.outcome == "interrupted":
        signal = verdict.stopped_by.signal if verdict.stopped_by else None
        words += ["interrupted"] + ([f"signal={say.word(signal, 12)}"] if signal else [])
    elif verdict.outcome != "failed":
        words.append(say.word(verdict.outcome, 24))
    elif culprit is None:
        words += ["failed", Confidence.UNKNOWN]
    else:
        subject = f"rank={culprit.rank}" if culprit.rank is not None else f"name={say.word(culprit.name or '', 28)}"
        words += [say.word(culprit.cause.kind, 24), culprit.cause.confidence, subject]
        words += [f"node={say.word(culprit.node)}", f"phase={say.phase(culprit.phase)}"]
    return " ".join([*words, f"run={say.word(verdict.run_id)}"])


def error_block(verdict: Verdict) -> str:
    """`str(RankFailed)`: the cause first, then who, what it rests on, and the last lines of the rank."""
    return "\n".join(_fitted(lambda room: _error_rows(verdict, Block(100, room)), []))


def progress_line(
    elapsed_s: float, ready: int, total: int, waiting: Sequence[tuple[int, str | None, float | None, float | None, float]]
) -> str:
    """`62 s: 6 of 8 ready; waiting for rank 3 (loading 41 %), rank 5 (silent for 42 s, last: allocating host cache)`.

    `waiting`: rank, status, done, total, seconds since the last sign of life.
    """
    line = f"{say.whole_seconds(elapsed_s)}: {ready} of {total} ready"
    named = [f"rank {rank}{_doing(status, done, of, quiet)}" for rank, status, done, of, quiet in waiting]
    return f"{line}; waiting for {say.some(named, 6)}" if named else line


def all_ready_line(n: int, seconds: float, slowest_rank: int | None = None, lead_s: float | None = None) -> str:
    """`all 8 ranks ready in 47.1 s (rank 6 last, +4.1 s)`; `lead_s` is how long after the last but one."""
    subject = "the only rank is" if n == 1 else f"all {n} ranks"
    line = f"{subject} ready in {say.seconds(seconds)}"
    if n == 1 or slowest_rank is None:
        return line
    return f"{line} (rank {slowest_rank} last" + (f", +{say.seconds(lead_s)})" if lead_s is not None else ")")


# ── Room: what has to give way when the block is too long ────────────────────────────────────────────────────────


class Room(NamedTuple):
    """How much of each part may be shown."""

    tail: int
    """Lines of the rank's log."""
    trace: int
    """Lines of its traceback or stack."""
    proofs: int
    cell: int
    """Characters of a labelled cell."""
    table: int
    """Ranks in the memory table."""
    groups: int
    """Consequences, hints and leftovers."""


ROOMS = (
    Room(tail=10, trace=8, proofs=4, cell=480, table=10, groups=3),
    Room(tail=6, trace=8, proofs=4, cell=480, table=10, groups=3),
    Room(tail=4, trace=8, proofs=4, cell=480, table=10, groups=3),
    Room(tail=2, trace=8, proofs=4, cell=480, table=10, groups=3),
    Room(tail=1, trace=6, proofs=3, cell=320, table=8, groups=2),
    Room(tail=1, trace=4, proofs=3, cell=240, table=8, groups=2),
    Room(tail=1, trace=3, proofs=2, cell=160, table=0, groups=1),
    Room(tail=1, trace=2, proofs=1, cell=110, table=0, groups=1),
    Room(tail=0, trace=1, proofs=1, cell=70, table=0, groups=1),
)
"""From all to the least. The log goes first, then the rest of the cells; the cause and the last line never do."""


def _fitted(rows: Callable[[Room], list[str]], end: list[str]) -> list[str]:
    """The rows in the largest room that fits. When none does (wide letters everywhere), rows give way from the end."""
    for room in ROOMS:
        lines = rows(room)
        if _fits(lines + end):
            return lines + end
    while len(lines) > 1 and not _fits(lines + end):
        lines.pop()
    return lines + end


def _fits(lines: Sequence[str]) -> bool:
    # One byte is kept for the newline that ends the block.
    return len(lines) <= MAX_LINES and sum(len(line.encode("utf-8", "replace")) + 1 for line in lines) <= MAX_BYTES


_PAINT = {"error:": "31;1", "try:": "32;1", "or:": "32;1", "stopped:": "33;1"}


def _painted(line: str) -> str:
    if found := re.match(r"(error|try|or|stopped):", line):
        return f"\x1b[{_PAINT[found[0]]}m{found[0]}\x1b[0m{line[found.end() :]}"
    if found := re.match(r"  \S[^|]{7}|  .* (said last|raised|was here)$", line):
        return f"\x1b[1m{found[0]}\x1b[0m{line[found.end() :]}"
    return line


class Block:
    """The lines so far, and the room for the next."""

    def __init__(self, width: int, room: Room) -> None:
        self.width, self.room, self.lines = width, room, list[str]()

    def cell(self, label: str, text: str) -> None:
        """A labelled cell, cut to the room and wrapped; nothing for an empty text."""
        if text:
            self.lines += say.row(label, say.printable(text, self.room.cell), self.width)

    def cells(self, pairs: Iterable[tuple[str, str]]) -> None:
        for label, text in pairs:
            self.cell(label, text)


# ── The blocks ───────────────────────────────────────────────────────────────────────────────────────────────────


def _failed_rows(verdict: Verdict, saved: bool, block: Block) -> list[str]:
    culprit, room = verdict.culprit, block.room
    hints = [say.cut_bytes(say.printable(hint, max(room.cell, 200)), 300) for hint in verdict.hints[: room.groups]]
    block.lines.append(f"error: {_headline(verdict)}")
    block.lines += [f"{'or:' if n else 'try:':<6} {hint}" for n, hint in enumerate(hints)] + [""]
    block.cell("when", _when(verdict))
    if culprit is None:
        block.cell("where", say.some(verdict.nodes, 3))
    else:
        block.cell("where", _where(culprit))
        block.cells(_proofs(culprit, room))
        _memory(verdict, culprit, block)
        block.cells(_reasons(verdict, culprit))
    block.cells(_consequences(verdict, culprit, room))
    if culprit is not None:
        block.lines += _own_words(culprit, room)
    block.cell("more", _more(verdict, culprit, saved))
    return block.lines


def _error_rows(verdict: Verdict, block: Block) -> list[str]:
    culprit = verdict.culprit
    block.lines.append(_headline(verdict))
    if culprit is not None:
        block.cell("where", f"{say.who(culprit.rank, culprit.name)}, {say.phase(culprit.phase)}, {_where(culprit)}")
        block.cells(_proofs(culprit, block.room))
        block.cells(_reasons(verdict, culprit))
        block.cells(("try", hint) for hint in verdict.hints[:1])
        block.lines += _own_words(culprit, block.room)
    return block.lines


def _interrupted_rows(verdict: Verdict, saved: bool, block: Block) -> list[str]:
    block.lines += [f"stopped: {_headline(verdict)}", ""]
    parts, by = [say.when(verdict.ended_at) or "", ""], verdict.stopped_by
    if by is not None:
        parts[1] = f"by {by.signal}" if by.signal else ""
        sender = [f"pid {by.pid}"] if by.pid is not None else []
        sender += [by.comm] if by.comm else []
        sender += [f"uid {by.uid}"] if by.uid is not None else []
        parts[1] += f" from {', '.join(sender)}" if sender else ""
    block.cell("when", "; ".join(filter(None, parts)))
    block.cells(_consequences(verdict, None, block.room))
    block.cell("more", _more(verdict, None, saved))
    return block.lines


# ── The cells ────────────────────────────────────────────────────────────────────────────────────────────────────


def _headline(verdict: Verdict) -> str:
    statement = say.cut_bytes(say.printable(verdict.statement, 300), 400)
    cause = verdict.culprit.cause if verdict.culprit else None
    return f"{statement}  [{say.word(cause.kind, 24)}, {cause.confidence}]" if cause else statement


def _when(verdict: Verdict) -> str:
    culprit, retry = verdict.culprit, verdict.retry
    parts = [say.when(verdict.failed_at or (culprit.at if culprit else verdict.ended_at)) or "time unknown"]
    if culprit is not None:
        parts[0] += f", {say.seconds(culprit.elapsed_s)} after launch"
        reports = [r.ready_after_s for r in verdict.ranks if r.ready_after_s is not None]
        if reports or culprit.phase in ("launching", "starting", "ready"):
            ready = sum(after <= culprit.elapsed_s for after in reports)
            parts.append(f"{ready} of {verdict.world_size} ranks {'was' if ready == 1 else 'were'} ready")
        if culprit.attempt:
            parts.append(f"attempt {culprit.attempt + 1}")
    if verdict.attempts:
        before = verdict.attempts[-1]
        parts.append(f"the attempt before ended with {before.cause} after {say.seconds(before.lasted_s)}")
    if retry.advice in ("yes", "no", "elsewhere"):
        parts.append(f"retry: {retry.advice}" + (f", {retry.because}" if retry.because else ""))
    return "; ".join(parts)


def _where(culprit: Culprit) -> str:
    parts = [culprit.node or "node unknown", "no process" if culprit.pid is None else f"pid {culprit.pid}"]
    parts += [culprit.name] if culprit.name and culprit.rank is not None else []
    parts += [f"local rank {culprit.local_rank}"] if culprit.local_rank not in (None, culprit.rank) else []
    verb = {"exit": "ended with ", "signal": "ended by "}.get(culprit.ending.kind, "")
    text = ", ".join(parts) + (f"; {verb}{say.ending(culprit.ending)}" if culprit.pid is not None else "")
    if culprit.cause.subject_pid not in (None, culprit.pid):
        text += f"; it was its child pid {culprit.cause.subject_pid}"
    told = [f'"{say.printable(culprit.status, 80)}"'] if culprit.status else []
    if done := culprit.progress:
        of = f" of {say.number(done.total)}" if done.total is not None else ""
        told.append(f"{say.number(done.done)}{of} {done.unit or ''}".rstrip())
    return text + (f"; last status {', '.join(told)}" if told else "")


def _proofs(culprit: Culprit, room: Room) -> list[tuple[str, str]]:
    """Only what is proven is called proof."""
    confidence, found = culprit.cause.confidence, culprit.cause.evidence[: room.proofs]
    width = max((len(e.source) for e in found), default=0)
    texts = [f"{e.source:<{width}}  {e.statement}" for e in found]
    label = {Confidence.PROVEN: "proof", Confidence.LIKELY: "signs"}.get(confidence, "seen")
    return [("" if n else label, text) for n, text in enumerate(texts)]


def _memory(verdict: Verdict, culprit: Culprit, block: Block) -> None:
    """Of the job's memory domain, and of each rank: a sum explains an OOM kill, one rank's size does not."""
    state = verdict.memory
    if culprit.cause.family is not Family.MEMORY:
        return
    sizes = {n: r.memory.rss_bytes or r.memory.peak_bytes for n, r in enumerate(verdict.ranks)}
    known = {n: size for n, size in sizes.items() if size}
    limit = state.limit_bytes if state else None
    unit = say.Unit(limit or max([*known.values(), (state and state.used_bytes) or 0]))
    label = "memory"
    if state and state.used_bytes is not None:
        text = f"{unit.of(state.used_bytes)} of {unit.of(limit)} {unit.name}" if limit else f"{unit.of(state.used_bytes)} {unit.name} used"
        text += f" ({say.cut_middle(state.limit_from, 60)})" if state.limit_from else ""
        split = [("ranks", state.ranks_bytes), ("cache", state.cache_bytes)]
        if state.ranks_bytes is not None and state.cache_bytes is not None:
            split.append(("other", state.used_bytes - state.ranks_bytes - state.cache_bytes))
        # Shared pages are counted once for each rank that maps them, so the rest may come out below zero.
        told = [f"{name} {unit.of(size)}" for name, size in split if size is not None and size >= 0]
        block.cell(label, f"{text}: {', '.join(told)}" if told else text)
        label = ""
    if block.room.table and len(known) > 1:
        for line in _memory_table(verdict.ranks, known, unit, culprit, block.room.table):
            block.lines.append(f"  {label:<6}  {line}"[: block.width])
            label = ""


def _memory_table(ranks: Sequence[RankOutcome], known: dict[int, int], unit: say.Unit, culprit: Culprit, most: int) -> list[str]:
    """The culprit (†), those responsible (*), and the largest; the others as a range."""
    blamed = {r.rank for r in culprit.cause.responsible if r.rank is not None}

    def mark(outcome: RankOutcome) -> str:
        return "†" if outcome.relation == "culprit" else "*" if outcome.rank in blamed else ""

    order = sorted(known, key=lambda n: (not mark(ranks[n]), -known[n]))
    shown, rest = sorted(order[:most]), [known[n] for n in order[most:]]
    heads = [str(r.rank) if r.rank is not None else say.printable(r.name or "?", 12) for r in (ranks[n] for n in shown)]
    title = "rank" if all(r.rank is not None for r in ranks) else "name"
    cells = [[title, unit.name]] + [[h, unit.of(known[n]) + mark(ranks[n])] for h, n in zip(heads, shown, strict=True)]
    if rest:
        cells.append([f"{len(rest)} others", f"{unit.of(min(rest))}-{unit.of(max(rest))}"])
    return say.columns(list(zip(*cells, strict=True)))


def _reasons(verdict: Verdict, culprit: Culprit) -> list[tuple[str, str]]:
    cells = []
    if verdict.either:
        both = "both" if len(verdict.either) == 1 else "all"
        late = culprit.cause.kind == "ready-timeout"
        why = f"{both} were not ready in time" if late else f"{both} were already failing when first seen"
        cells.append(("or", f"{say.many([(rank, None) for rank in verdict.either])}: {why}"))
    elif verdict.order and verdict.order.basis and any(r.relation in ("collateral", "independent") for r in verdict.ranks):
        gap = verdict.order.gap_us
        cells.append(("first", verdict.order.basis + (f", {say.seconds(gap / 1e6)} before the next" if gap is not None else "")))
    if culprit.cause.statement.casefold() not in verdict.statement.casefold():
        cells.append(("why", culprit.cause.statement))
    for confidence, label in ((Confidence.PROVEN, "cause"), (Confidence.LIKELY, "likely"), (Confidence.UNKNOWN, "maybe")):
        told = [f"{say.who(r.rank, None)} {r.because}" for r in culprit.cause.responsible if r.confidence is confidence]
        cells.append((label, say.some(told, 4)))
    return cells


def _consequences(verdict: Verdict, culprit: Culprit | None, room: Room) -> list[tuple[str, str]]:
    """What became of all others, and what it took to end them."""
    others = [r for r in verdict.ranks if r.relation != "culprit"]
    alive = [r for r in others if r.ending.kind == "alive"]
    parts = []
    for relation, verb in (("collateral", "failed because of it"), ("independent", "failed too, on its own")):
        told = _grouped((r for r in others if r.relation == relation), lambda r: _short(r.cause, say.ending(r.ending)))
        parts += [say.some([f"{ranks} {verb} ({detail})" for detail, ranks in told], room.groups)] if told else []
    stopped = [r for r in others if r.relation == "stopped" and r not in alive]
    finished = [r for r in others if r.relation == "finished" and r not in alive]
    if culprit is None:
        parts += [say.some([f"{ranks}: {how}" for how, ranks in _grouped(stopped + finished, lambda r: say.ending(r.ending))], 4)]
    else:
        parts += [f"{_many(finished)} had finished"] if finished else []
        parts += [f"stopped {_many(stopped)} because {say.who(culprit.rank, culprit.name)} failed"] if stopped else []
    parts += [f"{_many(alive)} not ended by us"] if alive else []
    down = verdict.teardown
    if down.took_s is not None and not down.survivors and not alive:
        parts += [f"all gone after {say.seconds(down.took_s)}" + (f" ({len(down.killed)} by SIGKILL)" if down.killed else "")]
        parts += [] if down.left else ["nothing left behind"]
    left = _leftovers(verdict, room.groups)
    warnings = [("note", warning) for warning in verdict.warnings[: room.groups]]
    return [("then", "; ".join(filter(None, parts))), *(("left", text) for text in left), *warnings]


def _leftovers(verdict: Verdict, most: int) -> list[str]:
    """Processes that refused to die, then things that outlive the job, the largest first."""
    down, names = verdict.teardown, {"shm": "shared memory", "sysv-shm": "System V shared memory"}
    told = [f"pid {s.pid} ({s.comm}) could not be ended, state {s.state}" for s in down.survivors[:most]]
    told += [f"and {n} more such processes"] if (n := len(down.survivors) - most) > 0 else []
    left = sorted(down.left, key=lambda thing: -(thing.bytes or 0))
    told += [
        f"{names.get(x.kind, x.kind)} {say.cut_middle(x.path, 70)}" + (f" ({say.size(x.bytes)})" if x.bytes is not None else "")
        for x in left[:most]
    ]
    total = sum(thing.bytes or 0 for thing in left)
    told += [f"and {n} more, {say.size(total)} in all"] if (n := len(left) - most) > 0 else []
    return told


def _own_words(culprit: Culprit, room: Room) -> list[str]:
    """The end of the traceback (or of the stack where it hangs), then the log without what has just been shown."""
    subject, lines = say.who(culprit.rank, culprit.name), []
    exception = culprit.cause.exception
    trace = culprit.traceback or (exception.traceback if exception else None)
    if trace and (shown := say.last_frames(trace, room.trace)):
        lines += [f"  {subject} raised", *say.quoted(shown)]
    elif culprit.stacks and (shown := say.top_of_stack(culprit.stacks, room.trace)):
        lines += [f"  {subject} was here", *say.quoted(shown)]
    seen = {line.strip() for line in (trace or "").splitlines()}
    tail = [line for line in culprit.log_tail if line.strip() and re.sub(r"^\[rank\d+\]:", "", line).strip() not in seen]
    if tail and room.tail:
        lines += [f"  {subject} said last", *say.quoted(tail[-room.tail :])]
    return lines


def _more(verdict: Verdict, culprit: Culprit | None, saved: bool) -> str:
    if not saved:
        return ""
    run = say.printable(verdict.run_id, 60)
    path = [say.printable(culprit.log_path, 300)] if culprit and culprit.log_path else []
    return " · ".join([f"rankguard report {run}", f"rankguard explain {run}", *path])


# ── Small ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _many(outcomes: Iterable[RankOutcome]) -> str:
    return say.many([(r.rank, r.name) for r in outcomes])


def _grouped(outcomes: Iterable[RankOutcome], key: Callable[[RankOutcome], str]) -> list[tuple[str, str]]:
    groups: dict[str, list[RankOutcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    return [(name, _many(members)) for name, members in groups.items()]


def _short(cause: Cause | None, how: str) -> str:
    if cause is None:
        return how
    said = f"{cause.exception.type}: {cause.exception.message}" if cause.exception else cause.statement
    return f"{how}: {say.printable(said, 70)}" if said else how


def _doing(status: str | None, done: float | None, total: float | None, quiet_s: float) -> str:
    what = say.printable(status, 60) if status else ""
    if quiet_s >= SILENT_AFTER_S:
        return f" (silent for {say.whole_seconds(quiet_s)}{f', last: {what}' if what else ''})"
    if done is not None:
        far = f"{100 * done / total:.0f} %" if total else say.number(done)
        what = f"{what} {far}".strip()
    return f" ({what})" if what else ""
