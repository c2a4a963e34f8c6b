"""A verdict as text: the block on stderr, its last line, `str(RankFailed)`, and the two lines told while one waits.

Written for the person who is paged: what failed and why first, then what to do, then what it rests on. A log collector
may keep no more than the last 2,048 bytes (Kubernetes does), so the block fits in that and ends with one stable line.
It decides nothing: every word comes from the verdict. It hides no secrets either: the verdict holds none by then
(`redact.py`). Layout and colour live here and nowhere else.

Read next: `wording.py` (how things are said), `schema/verdict-1.json` (the same facts for machines).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from shlex import quote

from rankguard.diagnosis import projection
from rankguard.model import Cause, Confidence, Culprit, Family, MemoryState, RankOutcome, Verdict
from rankguard.report import nodes, watched
from rankguard.report import wording as say
from rankguard.report.attempts import earlier, succeeded_line
from rankguard.report.wording import Block, Room

SILENT_AFTER_S = 25.0
"""A rank that has said nothing for this long is called silent."""


def final_report(
    verdict: Verdict, color: bool = False, width: int = 100, saved: bool | str = True, home: str | None = None
) -> str:
    """What is shown on stderr when a job has ended; no final newline.

    `saved` says that the run has a folder, which `rankguard report` and `explain` need, or by which name they find it
    (else its id). `home`: the reader's home, which is told as `~`. Colour does not count as bytes.
    """
    width = max(60, min(width, 160))
    last = last_line(verdict)
    if verdict.outcome == "succeeded":
        left = "; ".join(_leftovers(verdict, 2))
        notes = [line for line in (succeeded_line(verdict),) if line is not None]
        notes += [f"ended meanwhile, and left to the engine: {told}" for _label, told in watched.reported(verdict)]
        notes += ([f"left behind: {left}"] if left else []) + list(verdict.warnings[:2])
        return (say.printable(f"note: {'; '.join(notes)}", 300) + "\n" if notes else "") + last
    rows = _failed_rows if verdict.outcome == "failed" else _other_rows
    lines = say.fitted(lambda room: rows(verdict, saved, home, Block(width, room)), ["", last])
    return "\n".join([*(map(_painted, lines[:-1]) if color else lines[:-1]), lines[-1]])


def last_line(verdict: Verdict) -> str:
    """`rankguard: exit 137 oom-kill proven rank=5 node=host-a phase=starting run=7f3a`: stable, below 200 bytes."""
    words = ["rankguard:"] + (["exit", str(verdict.exit_code)] if verdict.outcome != "running" else [])
    culprit = verdict.culprit
    if verdict.outcome == "interrupted":
        signal = verdict.stopped_by.signal if verdict.stopped_by else None
        words += ["interrupted"] + ([f"signal={say.word(signal, 12)}"] if signal else [])
    elif verdict.outcome != "failed":
        words.append(say.word(verdict.outcome, 24))
    elif culprit is None:
        words += ["failed", Confidence.UNKNOWN]
    else:
        words += [say.word(culprit.cause.kind, 24), culprit.cause.confidence]
        words += [f"rank={culprit.rank}"] if culprit.rank is not None else []
        words += [f"name={say.word(culprit.name, 28)}"] if culprit.rank is None and culprit.name else []
        words += [f"node={say.word(culprit.node)}", f"phase={say.phase(culprit.phase)}"]
    return " ".join([*words, f"run={say.word(verdict.run_id)}"])


def error_block(verdict: Verdict) -> str:
    """`str(RankFailed)`: the cause first, then who, what it rests on, and the last lines of the rank."""
    return "\n".join(say.fitted(lambda room: _error_rows(verdict, Block(100, room)), []))


def progress_line(
    elapsed_s: float,
    ready: int,
    total: int,
    waiting: Sequence[tuple[int, str | None, float | None, float | None, float]],
) -> str:
    """`62 s: 6 of 8 ready; waiting for rank 3 (loading 41 %), rank 5 (silent for 42 s, last: allocating host cache)`.

    `waiting`: rank, status, done, total, seconds since the last sign of life.
    """
    line = f"{say.whole_seconds(elapsed_s)}: {ready} of {total} ready"
    named = [f"rank {rank}{_doing(status, done, of, quiet)}" for rank, status, done, of, quiet in waiting]
    return f"{line}; waiting for {say.some(named, 6)}" if named else line


def engine_line(
    elapsed_s: float,
    status: str | None,
    done: float | None,
    total: float | None,
    quiet_s: float,
    *,
    probe: str | None,
) -> str:
    """`62 s: the engine is not ready (loading 41 %): http://127.0.0.1:8000/health answered 503: loading`."""
    waited = say.printable(probe, 200) if probe else "it has not said READY=1 (sd_notify)"
    return f"{say.whole_seconds(elapsed_s)}: the engine is not ready{_doing(status, done, total, quiet_s)}: {waited}"


def all_ready_line(n: int, seconds: float, slowest_rank: int | None = None, lead_s: float | None = None) -> str:
    """`all 8 ranks ready in 47.1 s (rank 6 last, +4.1 s)`; `lead_s` is how long after the last but one."""
    subject = "the only rank is" if n == 1 else f"all {n} ranks"
    line = f"{subject} ready in {say.seconds(seconds)}"
    if n == 1 or slowest_rank is None:
        return line
    return f"{line} (rank {slowest_rank} last" + (f", +{say.seconds(lead_s)})" if lead_s is not None else ")")


# ── The blocks ───────────────────────────────────────────────────────────────────────────────────────────────────


def _failed_rows(verdict: Verdict, saved: bool | str, home: str | None, block: Block) -> list[str]:
    culprit, room = verdict.culprit, block.room
    hints = [say.cut_bytes(say.printable(hint, max(room.cell, 200)), 300) for hint in verdict.hints[: room.groups]]
    block.lines.append(f"error: {_headline(verdict)}")
    block.lines += [f"{'or:' if n else 'try:':<6} {hint}" for n, hint in enumerate(hints)] + [""]
    block.cell("retry", _retry(verdict))
    block.cell("when", _when(verdict))
    if culprit is None:
        block.cell("where", say.some(verdict.nodes, 3))
    else:
        block.cell("where", nodes.where(verdict, culprit) if nodes.is_node(culprit) else _where(culprit))
        block.cells(_proofs(culprit, room))
        _memory(verdict, culprit, block)
        block.cells(_reasons(verdict, culprit))
    block.cells(_consequences(verdict, culprit, room))
    for n, line in enumerate(watched.tree(verdict, room.table - 3)):
        block.lines.append(f"  {'' if n else 'tree':<6}  {line}")
    block.cells(watched.reported(verdict))
    block.cells(earlier(verdict))
    if culprit is not None:
        block.lines += _own_words(culprit, room)
    block.cell("more", _more(verdict, culprit, saved, home, block.room))
    return block.lines


def _error_rows(verdict: Verdict, block: Block) -> list[str]:
    culprit = verdict.culprit
    block.lines.append(_headline(verdict))
    if culprit is not None:
        subject = ", ".join(filter(None, [_subject(culprit), say.phase(culprit.phase)]))
        where = nodes.where(verdict, culprit) if nodes.is_node(culprit) else f"{subject}, on {_where(culprit)}"
        block.cell("where", where)
        block.cells(_proofs(culprit, block.room))
        block.cells(_reasons(verdict, culprit))
        block.cells(("try", hint) for hint in verdict.hints[:1])
        block.lines += _own_words(culprit, block.room)
    return block.lines


def _other_rows(verdict: Verdict, saved: bool | str, home: str | None, block: Block) -> list[str]:
    """Interrupted, or (`state.json`) still running: nobody is called a failure."""
    block.lines += [f"{say.word(verdict.outcome)}: {_headline(verdict)}", ""]
    by = say.stopper(verdict.stopped_by) if verdict.stopped_by and verdict.stopped_by.pid is not None else None
    block.cell("when", "; ".join(filter(None, [say.when(verdict.ended_at), by])))
    block.cells(_consequences(verdict, None, block.room))
    block.cells(watched.reported(verdict))
    block.cells(earlier(verdict))
    block.cell("more", _more(verdict, None, saved, home, block.room))
    return block.lines


# ── The cells ────────────────────────────────────────────────────────────────────────────────────────────────────


def _headline(verdict: Verdict) -> str:
    statement = say.cut_bytes(say.printable(verdict.statement, 300), 400)
    cause = verdict.culprit.cause if verdict.culprit else None
    return f"{statement}  [{say.word(cause.kind, 24)}, {cause.confidence}]" if cause else statement


def _when(verdict: Verdict) -> str:
    culprit = verdict.culprit
    parts = [say.when(verdict.failed_at or (culprit.at if culprit else verdict.ended_at)) or "time unknown"]
    if culprit is not None:
        parts[0] += f", {say.seconds(culprit.elapsed_s)} after launch"
        reports = [r.ready_after_s for r in verdict.ranks if r.ready_after_s is not None]
        waited = culprit.phase in ("launching", "starting", "ready") and culprit.cause.kind != "cannot-start"
        if (reports or waited) and culprit.rank is not None:
            ready = sum(after <= culprit.elapsed_s for after in reports)
            parts.append(f"{ready} of {verdict.world_size} ranks {'was' if ready == 1 else 'were'} ready")
        parts += [f"attempt {culprit.attempt + 1}"] if culprit.attempt else []
    return "; ".join(parts)


def _retry(verdict: Verdict) -> str:
    retry = verdict.retry
    return "" if retry.advice == "unknown" else f"{retry.advice}, {retry.because}" if retry.because else retry.advice


def _where(culprit: Culprit) -> str:
    parts = [culprit.node or "node unknown", "no process" if culprit.pid is None else f"pid {culprit.pid}"]
    parts += [culprit.name] if culprit.name and culprit.rank is not None else []
    parts += [f"local rank {culprit.local_rank}"] if culprit.local_rank not in (None, culprit.rank) else []
    text = ", ".join(parts) + (f"; {say.ended(culprit.ending)}" if culprit.pid is not None else "")
    if culprit.cause.subject_pid not in (None, culprit.pid):
        text += f"; it was its child pid {culprit.cause.subject_pid}"
    told = [f'"{say.printable(culprit.status, 80)}"'] if culprit.status else []
    told += [say.progress(culprit.progress)] if culprit.progress else []
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
    if culprit.cause.family is not Family.MEMORY:
        return
    state = verdict.memory or MemoryState()
    sizes = {n: r.memory.held_bytes or r.memory.rss_bytes or r.memory.peak_bytes for n, r in enumerate(verdict.ranks)}
    known = {n: size for n, size in sizes.items() if size}
    unit = say.Unit(state.limit_bytes or max([*known.values(), state.used_bytes or 0]))
    cells = [_domain(state, unit)] if state.used_bytes is not None else []
    if not cells and not known and culprit.memory.peak_bytes:
        cells = [f"{say.who(culprit.rank, culprit.name)} had {say.size(culprit.memory.peak_bytes)} at most"]
    block.cells(("memory", text) for text in cells)
    if block.room.table and len(known) > 1:
        for most in range(block.room.table, 1, -1):
            lines = _memory_table(verdict.ranks, known, unit, culprit, most)
            if say.INDENT + max(map(len, lines)) <= block.width:
                break
        age = culprit.memory.age_s
        lines += [f"† {say.seconds(age)} before its end was seen"] if age is not None and age >= _AGE_S else []
        block.lines += [f"  {'' if n or cells else 'memory':<6}  {line}" for n, line in enumerate(lines)]


_AGE_S = 0.05
"""What is older than this is told with its age."""
_FULL = 0.97
"""Of a limit."""


def _domain(state: MemoryState, unit: say.Unit) -> str:
    used = state.used_bytes or 0
    text = f"{unit.of(used)} of {unit.of(state.limit_bytes)}" if state.limit_bytes else unit.of(used)
    text += f" {unit.name}" + (f" ({say.cut_path(state.limit_from, 48)})" if state.limit_from else "")
    if state.age_s is None and used < _FULL * (state.limit_bytes or 0):
        text += ", just after"  # else one would ask why there was a kill
    elif state.age_s is not None and state.age_s >= _AGE_S:
        text += f", {say.seconds(state.age_s)} before"
    firm = state.firm_bytes
    cache = state.cache_bytes if firm is None else used - firm  # all file pages; the kubelet counts inactive ones alone
    # The parts are not read in one instant: those of the ranks may be more than all, and the rest below zero.
    ranks = state.ranks_bytes if (state.ranks_bytes or 0) <= used else None
    split = [("ranks", ranks), ("shared", state.shared_bytes or None), ("cache", cache)]
    if ranks is not None and cache is not None:
        split.append(("other", used - ranks - cache - (state.shared_bytes or 0)))
    told = [f"{name} {unit.of(size)}" for name, size in split if size is not None and size >= 0]
    return f"{text}: {', '.join(told)}" if told else text


def _memory_table(
    ranks: Sequence[RankOutcome], known: dict[int, int], unit: say.Unit, culprit: Culprit, most: int
) -> list[str]:
    """The culprit (†), those responsible (*), and the largest; the others as a range."""
    blamed = {r.rank for r in culprit.cause.responsible if r.rank is not None}

    largest = max(known.values(), default=0)

    def cell(n: int) -> str:
        growth = ranks[n].memory.growth_bytes_s or 0
        grows = growth * 10 > largest / 20 and unit.of(int(growth)) != unit.of(0)
        return unit.of(known[n]) + mark(ranks[n]) + (f" +{unit.of(int(growth))}/s" if grows else "")

    def mark(outcome: RankOutcome) -> str:
        return "†" if outcome.relation == "culprit" else "*" if outcome.rank in blamed else ""

    order = sorted(known, key=lambda n: (not mark(ranks[n]), -known[n]))
    shown, rest = sorted(order[:most]), [known[n] for n in order[most:]]
    heads = [str(r.rank) if r.rank is not None else say.printable(r.name or "?", 12) for r in (ranks[n] for n in shown)]
    title = "rank" if all(r.rank is not None for r in ranks) else "name"
    cells = [[title, unit.name]] + [[h, cell(n)] for h, n in zip(heads, shown, strict=True)]
    if rest:
        cells.append([f"{len(rest)} others", f"{unit.of(min(rest))}-{unit.of(max(rest))}"])
    return say.columns(list(zip(*cells, strict=True)))


def _reasons(verdict: Verdict, culprit: Culprit) -> list[tuple[str, str]]:
    cells = []
    if verdict.either:
        both, neither = ("both", "neither was") if len(verdict.either) == 1 else ("all", "none of them was")
        why = {
            "ready-timeout": f"{neither} ready in time",
            "collective-timeout": f"{both} may be the one that was waited for",
            "stall": f"what {'it does' if len(verdict.either) == 1 else 'they do'} does not tell who waits for whom",
        }.get(culprit.cause.kind, f"{both} were already failing when first seen")
        cells.append(("or", f"{say.many([_either(verdict, number) for number in verdict.either])}: {why}"))
    elif (
        verdict.order
        and verdict.order.basis
        and not (nodes.is_node(culprit) and verdict.order.basis == "only suspect")
        and any(r.relation in ("collateral", "independent") for r in verdict.ranks)
    ):
        gap = verdict.order.gap_us
        cells.append(
            (
                "chosen",
                _chosen(verdict.order.basis)
                + (f", {say.seconds(gap / 1e6)} before the next" if gap is not None else ""),
            )
        )
    # An exception's statement is the last line of its traceback, which is shown.
    told_already = f"{verdict.statement}\n{_trace(culprit) or ''}".casefold()
    if culprit.cause.statement.casefold() not in told_already:
        cells.append(("why", culprit.cause.statement))
    for confidence, label in (
        (Confidence.PROVEN, "cause"),
        (Confidence.LIKELY, "likely"),
        (Confidence.UNKNOWN, "maybe"),
    ):
        told = [
            f"{say.who(r.rank, None)} {r.because}" if r.rank is not None else r.because
            for r in culprit.cause.responsible
            if r.confidence is confidence
        ]
        cells.append((label, say.some(told, 4)))
    return cells


def _chosen(basis: str) -> str:
    """`the only suspect`: what decided, as it reads behind its label."""
    return f"the {basis}" if basis.startswith("only ") else basis


def _consequences(verdict: Verdict, culprit: Culprit | None, room: Room) -> list[tuple[str, str]]:
    """What became of all others, and what it took to end them."""
    others = [r for r in verdict.ranks if r.relation != "culprit"]
    never = [r for r in others if r.cause is not None and r.cause.kind == "cannot-start"]
    others = [r for r in others if r not in never and r.ending.kind != nodes.LOST]
    alive = [r for r in others if r.ending.kind == "alive"]
    parts = [f"{_many(never)} {'was' if len(never) == 1 else 'were'} not started either"] if never else []
    parts += nodes.became(verdict)
    if parts == [nodes.NOTHING]:
        return [("then", nodes.NOTHING)]
    for relation, verb in (("collateral", "failed because of it"), ("independent", "failed too, on its own")):
        told = _grouped(
            (r for r in others if r.relation == relation and r.rank not in verdict.either),
            lambda r: _short(r.cause, say.ending(r.ending)),
        )
        parts += [say.some([f"{ranks} {verb} ({detail})" for detail, ranks in told], room.groups)] if told else []
    stopped = [r for r in others if r.relation == "stopped" and r not in alive]
    finished = [r for r in others if r.relation == "finished" and r not in alive]
    if culprit is None:
        parts += [
            say.some(
                [f"{ranks}: {how}" for how, ranks in _grouped(stopped + finished, lambda r: say.ending(r.ending))], 4
            )
        ]
    else:
        ended = "had finished" if culprit.rank is not None or culprit.name is None else "ended without us"
        parts += [f"{_many(finished)} {ended}"] if finished else []
        fell = "was lost" if nodes.is_node(culprit) else "failed"
        because = f" because {_subject(culprit)} {fell}" if _subject(culprit) else ""
        parts += [f"stopped {_many(stopped)}{because}"] if stopped else []
    parts += [f"{_many(alive)} still alive"] if alive else []
    down = verdict.teardown
    if down.took_s is not None and not down.survivors and not alive:
        after = f" after {say.seconds(down.took_s)}" if down.took_s >= 0.0005 else ""
        unknown = nodes.unknown(verdict)
        parts += [
            f"all {'others ' if unknown else ''}gone{after}"
            + (f", {len(down.killed)} by SIGKILL" if down.killed else "")
        ]
        parts += [unknown] if unknown else [] if down.left else ["nothing left behind"]
    left = [("" if n else "left", text) for n, text in enumerate(_leftovers(verdict, room.groups))]
    warnings = verdict.warnings
    if culprit is not None and culprit.cause.family is Family.MEMORY:
        warnings = tuple(text for text in warnings if not text.startswith(projection.BEGINS))  # it has been reached
    notes = [("" if n else "note", text) for n, text in enumerate(warnings[: room.groups])]
    return [("then", "; ".join(filter(None, parts))), *left, *notes]


def _leftovers(verdict: Verdict, most: int) -> list[str]:
    """Processes that refused to die, then things that outlive the job, the largest first."""
    down = verdict.teardown
    told = [say.survivor(process) for process in down.survivors[:most]]
    told += [f"and {n} more such processes"] if (n := len(down.survivors) - most) > 0 else []
    left = sorted(down.left, key=lambda thing: -(thing.bytes or 0))
    told += [say.left(thing) for thing in left[:most]]
    total = sum(thing.bytes or 0 for thing in left)
    return told + ([f"and {n} more, {say.size(total)} in all"] if (n := len(left) - most) > 0 else [])


def _own_words(culprit: Culprit, room: Room) -> list[str]:
    """The end of the traceback (or of the stack where it hangs), then the log without what has just been shown."""
    subject, lines = _subject(culprit) or "it", []
    speaker = subject if culprit.rank is not None else "the engine"  # its processes share one output
    trace = _trace(culprit)
    if trace and (shown := say.last_frames(trace, room.trace)):
        lines += [f"  {subject} raised", *say.quoted(shown)]
    elif culprit.stacks and (shown := say.top_of_stack(culprit.stacks, room.trace)):
        lines += [f"  {subject} was here", *say.quoted(shown)]
    seen = {line.strip() for line in (trace or "").splitlines()}
    tail = [
        line for line in culprit.log_tail if line.strip() and re.sub(r"^\[rank\d+\]:", "", line).strip() not in seen
    ]
    if tail and room.tail:
        lines += [f"  {speaker} said last", *say.quoted(tail[-room.tail :])]
    return lines


def _trace(culprit: Culprit) -> str | None:
    exception = culprit.cause.exception
    return culprit.traceback or (exception.traceback if exception else None)


def _more(verdict: Verdict, culprit: Culprit | None, saved: bool | str, home: str | None, room: Room) -> str:
    """Where to read on. Only what exists is named, and a path is whole or left out."""
    if not saved:
        return ""
    run = say.printable(verdict.run_id if saved is True else _as_typed(str(saved), home), 200)
    text = f"rankguard report {run} · rankguard explain {run}"
    path = _as_typed(culprit.log_path, home) if culprit and culprit.log_path else None
    return f"{text} · {path}" if path and len(text) + len(path) + 3 <= room.cell else text


def _as_typed(path: str, home: str | None) -> str:
    """In quotes where a shell would make two words of it, or something else."""
    quoted = quote(path)
    return say.from_home(path, home) if quoted == path else quoted


# ── Small ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _subject(culprit: Culprit) -> str | None:
    """`rank 5`, or a process's name; nothing for a failure that was of none of the ranks."""
    if nodes.is_node(culprit):
        return nodes.subject(culprit) or None
    return say.who(culprit.rank, culprit.name) if culprit.rank is not None or culprit.name else None


def _either(verdict: Verdict, number: int) -> tuple[int | None, str | None]:
    """A rank; of a watched engine its place among the rows, which has a name."""
    if number < len(verdict.ranks) and verdict.ranks[number].rank is None:
        return None, verdict.ranks[number].name
    return number, None


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
    if done is not None:
        far = f"{100 * done / total:.0f} %" if total else say.number(done)
        what = f"{what} {far}".strip()
    if quiet_s >= SILENT_AFTER_S:
        return f" (silent for {say.whole_seconds(quiet_s)}{f', last: {what}' if what else ''})"
    return f" ({what})" if what else ""


_PAINT = {"error:": "31;1", "try:": "32;1", "or:": "32;1", "interrupted:": "33;1"}


def _painted(line: str) -> str:
    if found := re.match(r"[a-z]+:", line):
        return f"\x1b[{_PAINT.get(found[0], '1')}m{found[0]}\x1b[0m{line[found.end() :]}"
    if found := re.match(r"  [a-z]+(?=  )|  \S.* (said last|raised|was here)$", line):
        return f"\x1b[1m{found[0]}\x1b[0m{line[found.end() :]}"
    return line
