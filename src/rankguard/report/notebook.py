"""A verdict as HTML, for notebooks (`_repr_html_`): small, self-contained, without a script or a style sheet; and as the
one line of a `repr`.

Colours are the page's own but for one line at the side and the words beside it, in tones that are read on white and on
black. Everything that came from outside is escaped. It never raises: a notebook then shows the plain `repr`. Not the
page of a run (`rankguard report --html`). Read next: `text.py`.
"""

from collections.abc import Iterable
from html import escape

from rankguard.diagnosis import projection
from rankguard.model import Culprit, Family, Memory, RankOutcome, Verdict
from rankguard.report import nodes
from rankguard.report import wording as say
from rankguard.report.text import last_line

ROWS = 16
"""Ranks that are shown, those that matter first; how many more there are is told."""
_SIDES = {"failed": "#d1383d", "interrupted": "#b07800", "succeeded": "#2b8a3e"}
_PLAIN = "#6f7782"
_ORDER = {"culprit": 0, "independent": 1, "collateral": 2, "stopped": 3}
_CELL = "text-align:left;vertical-align:top;padding:1px 12px 1px 0"
_TABLE = "border:0;margin:6px 0;color:inherit;font-size:inherit"
_QUOTED = 6


def verdict_html(verdict: Verdict, note: str = "") -> str | None:
    """The verdict as a piece of a page; None when it has something in it that cannot be shown. `note` is told beside it."""
    try:
        return _page(verdict, note)
    except Exception:  # noqa: BLE001  # contract: whoever looks at a value in a notebook gets at least its repr
        return None


def in_short(verdict: Verdict) -> str:
    """For a `repr`: `7f3a failed, oom-kill proven: rank 5 of 8 was killed …`; one line."""
    kind = f", {_kind(verdict.culprit)}" if verdict.culprit is not None else ""
    return say.printable(f"{verdict.run_id} {verdict.outcome}{kind}: {verdict.statement}", 500)


def block_html(headline: str, lines: Iterable[str] = ()) -> str:
    """What has no verdict yet, in the same frame. Plain text, which is escaped here."""
    return _frame(_PLAIN, [f"<strong>{_text(headline)}</strong>", *(f"<div>{_text(line)}</div>" for line in lines)])


def _page(verdict: Verdict, note: str) -> str:
    side = _SIDES.get(verdict.outcome, _PLAIN)
    culprit = verdict.culprit
    kind = f" <span style='color:{side}'>[{_text(_kind(culprit))}]</span>" if culprit else ""
    label = f" <span style='color:{side}'>({_text(note)})</span>" if note else ""
    parts = [f"<strong>{_text(verdict.statement, 400)}</strong>{kind}{label}"]
    parts += [f"<div>try: {_text(hint, 400)}</div>" for hint in verdict.hints[:3]]
    parts.append(_rows(_facts(verdict)))
    if culprit is not None and (tail := [line for line in culprit.log_tail if line.strip()][-_QUOTED:]):
        lines = "\n".join(escape(line) for line in say.quoted(tail))
        parts.append(f"<pre style='margin:6px 0;white-space:pre-wrap'>{lines}</pre>")
    if verdict.ranks:
        parts.append(_ranks(verdict))
    parts.append(f"<code>{_text(last_line(verdict), 300)}</code>")
    return _frame(side, parts)


def _kind(culprit: Culprit) -> str:
    return f"{culprit.cause.kind} {culprit.cause.confidence}"


def _facts(verdict: Verdict) -> list[tuple[str, str]]:
    """Label and text, as in the terminal's report."""
    culprit = verdict.culprit
    rows = [("when", say.when(verdict.failed_at or verdict.started_at) or "")]
    if culprit is not None:
        rows[0] = ("when", f"{rows[0][1]}, {say.seconds(culprit.elapsed_s)} after launch")
        where = f"{culprit.node}, pid {culprit.pid}; {say.ended(culprit.ending)}" if culprit.pid else culprit.node
        rows.append(("where", nodes.where(verdict, culprit) if nodes.is_node(culprit) else where))
        rows += [("why", culprit.cause.statement)] if culprit.cause.statement != verdict.statement else []
        rows += [(each.source, each.statement) for each in culprit.cause.evidence[:4]]
        exception = culprit.cause.exception
        rows += [("exception", f"{exception.type}: {exception.message}")] if exception else []
    if verdict.either:
        rows.append(
            ("either", f"{say.some([f'rank {rank}' for rank in verdict.either], 6)} may as well have been first")
        )
    if verdict.retry.advice != "unknown":
        rows.append(("retry", f"{verdict.retry.advice}, {verdict.retry.because}"))
    short = culprit is not None and culprit.cause.family is Family.MEMORY  # what was foretold has come
    told = [text for text in verdict.warnings if not (short and text.startswith(projection.BEGINS))]
    rows += [("warning", text) for text in told[:2]]
    return [(label, text) for label, text in rows if text]


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    lines = (
        f"<tr style='background:none'><th scope='row' style='{_CELL};white-space:nowrap'>{_text(label)}</th>"
        f"<td style='{_CELL}'>{_text(text, 400)}</td></tr>"
        for label, text in rows
    )
    return f"<table style='{_TABLE}'>{''.join(lines)}</table>"


def _ranks(verdict: Verdict) -> str:
    """A row a rank: those that failed first, then by number."""
    chosen = sorted(range(len(verdict.ranks)), key=lambda n: (_ORDER.get(verdict.ranks[n].relation, 4), n))[:ROWS]
    head = ("rank", "node", "pid", "relation", "phase", "ending", "ended after", "memory")
    cells = [_outcome(verdict.ranks[n]) for n in chosen]
    lines = [
        f"<tr style='background:none'>{''.join(f'<th scope=col style={_CELL!r}>{_text(h)}</th>' for h in head)}</tr>"
    ]
    lines += [
        f"<tr style='background:none'>{''.join(f'<td style={_CELL!r}>{_text(cell, 60)}</td>' for cell in row)}</tr>"
        for row in cells
    ]
    more = len(verdict.ranks) - len(chosen)
    told = f"<div>and {more} more</div>" if more else ""
    return f"<table style='{_TABLE}'>{''.join(lines)}</table>{told}"


def _outcome(row: RankOutcome) -> tuple[str, ...]:
    return (
        str(row.rank) if row.rank is not None else row.name or "",
        row.node,
        "" if row.pid is None else str(row.pid),
        row.relation,
        say.phase(row.phase),
        say.ending(row.ending),
        "" if row.ended_after_s is None else say.seconds(row.ended_after_s),
        _memory(row.memory),
    )


def _memory(memory: Memory) -> str:
    size = memory.held_bytes or memory.rss_bytes or memory.peak_bytes
    return say.size(size) if size else ""


def _frame(side: str, parts: Iterable[str]) -> str:
    return f"<div class='rankguard' style='border-left:4px solid {side};padding:2px 0 2px 10px'>{''.join(parts)}</div>"


def _text(text: str, limit: int = say.LINE_CHARS) -> str:
    """One line that is neither markup nor obeyed by a terminal."""
    return escape(say.printable(str(text), limit))
