"""A glimpse of the ranks → the lines of a frame, drawn with rich. No terminal is touched here.

A line is never wider than `WIDEST`: a window that is made narrower wraps what is wider, and a frame that was wrapped
cannot be taken away without a trace. Everything can be read without its colours.
Read next: `view.py` (when there is a frame), `../../report/screen.py` (how it gets onto the screen).
"""

from __future__ import annotations

import io
import math
import unicodedata
from typing import TYPE_CHECKING, Any

from rankguard.report.wording import Unit, plural, printable, size, whole_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

WIDEST = 79
SILENT_S, LONG_S = 10.0, 30.0
"""From when on a rank's silence is told, and marked."""
FULL, NEARLY = 0.92, 0.8
"""Of the memory limit: from here on it is marked."""
_STYLES = {"ready": "green", "stopping": "yellow", "ended": "dim", "lost": "red"}


class Painter:
    """Draws frames. `unicode`: the terminal shows more than ASCII."""

    def __init__(self, *, unicode: bool = True) -> None:
        self._unicode = unicode
        self._dot = " · " if unicode else ", "

    def table(self, seen: dict[str, Any], columns: int) -> list[str]:
        """A row for each rank that is told, what the others do, and the sum of it."""
        from rich.console import Group

        width = min(columns - 1, WIDEST)
        parts: list[RenderableType] = []
        if seen["rows"]:
            parts.append(self._ranks(seen["rows"], width))
        if seen["rows"] and (rest := _rest(seen)):
            parts.append(self._cut(rest, width, "dim"))
        parts.append(self._sum(seen, width))
        return self._drawn(Group(*parts), width)

    def line(self, seen: dict[str, Any], columns: int) -> list[str]:
        """One line, for ranks of which nobody says how far it is."""
        width = min(columns - 1, WIDEST)
        ranks = plural(seen["n"], "rank")
        started = seen["executing"]
        head = f"{ranks} running, no output yet" if started >= seen["n"] else f"{ranks}, {started} started"
        return self._drawn(self._cut(self._joined(head, seen), width), width)

    def _drawn(self, what: RenderableType, width: int) -> list[str]:
        from rich.console import Console

        raw = io.BytesIO()
        file = io.TextIOWrapper(raw, encoding="utf-8" if self._unicode else "ascii", errors="replace", newline="\n")
        console = Console(
            file=file, force_terminal=True, force_interactive=False, color_system="standard", width=width, height=100,
            legacy_windows=False, no_color=False, highlight=False, markup=False, emoji=False, _environ={},
        )  # fmt: skip
        console.print(what, no_wrap=True, crop=True)
        file.flush()
        return [line.rstrip() for line in raw.getvalue().decode().rstrip("\n").split("\n")]

    def _cut(self, text: str | Text, width: int, style: str = "") -> Text:
        from rich.text import Text

        cut = text.copy() if isinstance(text, Text) else Text(text, style)
        cut.truncate(width, overflow="ellipsis" if self._unicode else "crop")
        cut.no_wrap = True
        return cut

    def _safe(self, text: str, width: int) -> str:
        """A rank's own words: one line that no terminal obeys, without piles of accents, in the terminal's letters."""
        safe, marks = [], 0
        for char in printable(text, 4 * width).strip():
            marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
            if marks <= 2:
                safe.append(char)
        told = "".join(safe).replace("\ufe0f", "")  # a letter told to be wide: terminals do not agree on that
        return told if self._unicode else told.encode("ascii", "replace").decode()

    # ── Rows ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _ranks(self, rows: list[list[Any]], width: int) -> Table:
        from rich.table import Table
        from rich.text import Text

        quiet = any(_silence(row) for row in rows)
        told = any(_fraction(row) is not None for row in rows)
        digits = max(4, *(len(str(row[0])) for row in rows))
        unit = Unit(max(row[7] or 0 for row in rows))
        wide = {"rank": digits, "phase": 8, "status": 0, "bar": 10 * told, "done": 5 * told, "memory": 6, "silent": 6}
        if not quiet or width < 40:
            del wide["silent"]
        for name, least in (("bar", 60), ("memory", 50), ("phase", 44), ("done", 30)):
            if width < least or not wide[name]:
                del wide[name]
        wide["status"] = max(1, width - sum(wide.values()) - 2 * (len(wide) - 1))
        headings = {"bar": "", "done": "", "memory": unit.name}
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name, cells in wide.items():
            table.add_column(
                headings.get(name, name),
                width=cells,
                no_wrap=True,
                overflow="ellipsis" if self._unicode else "crop",
                justify="right" if name in ("rank", "done", "memory", "silent") else "left",
            )
        for row in rows:
            told_cells = {
                "rank": Text(str(row[0])),
                "phase": Text(row[1], _STYLES.get(row[1], "")),
                "status": Text(self._safe(_status(row), wide["status"])),
                "bar": self._bar(_fraction(row), 10),
                "done": Text(_percent(_fraction(row))),
                "memory": Text(unit.of(row[7]) if row[7] else ""),
                "silent": _silence(row) or Text(),
            }
            table.add_row(*(told_cells[name] for name in wide))
        return table

    def _sum(self, seen: dict[str, Any], width: int) -> RenderableType:
        from rich.table import Table

        n, ready = seen["n"], seen["ready"]
        if not seen["expects"]:
            return self._cut(self._joined(plural(n, "rank") + " running", seen), width)
        text = self._cut(self._joined(f"{ready} of {n} ready", seen), width)
        room = width - text.cell_len - 2
        if room < 8:
            return text
        both = Table.grid(padding=(0, 2, 0, 0))
        both.add_column(width=text.cell_len, no_wrap=True)
        both.add_column(width=min(room, 24), no_wrap=True)
        both.add_row(text, self._bar(ready / n, min(room, 24)))
        return both

    def _bar(self, fraction: float | None, width: int) -> Text:
        """Rounded down; its two parts differ without colour, too."""
        from rich.text import Text

        if fraction is None:
            return Text()
        full, rest = "━─" if self._unicode else "#-"
        done = math.floor(fraction * width + 1e-9)
        return Text(full * done, "green" if done == width else "cyan").append(rest * (width - done), "dim")

    def _joined(self, head: str, seen: dict[str, Any]) -> Text:
        from rich.text import Text

        text = Text(f"{head}{self._dot}{whole_seconds(seen['elapsed'])}")
        used, limit = seen["memory"]
        if used is not None and limit:
            unit, full = Unit(limit), used / limit
            style = "bold red" if full >= FULL else "yellow" if full >= NEARLY else ""
            text.append(f"{self._dot}memory ")
            text.append(f"{unit.of(used)} of {unit.of(limit)} {unit.name}", style)
        elif used is not None:
            text.append(f"{self._dot}memory {size(used)}")
        return text


def _rest(seen: dict[str, Any]) -> str:
    """`and 497 more: 200 starting, 297 ready`; nothing when every rank has its row."""
    rest = dict(seen["counts"])
    for row in seen["rows"]:
        rest[row[1]] = rest.get(row[1], 0) - 1
    more = sum(rest.values())
    told = ", ".join(f"{count} {phase}" for phase, count in sorted(rest.items()) if count > 0)
    return f"and {more} more: {told}" if more > 0 and told else ""


def _status(row: list[Any]) -> str:
    """What the rank says, or how many it has done; of a rank that is ready, when it was."""
    _rank, _phase, text, done, total, unit, _silent, _rss, ready = row
    if ready is not None:
        return f"after {ready:.1f} s"
    count = ""
    if done is not None:
        of = f" of {total:g}" if total else ""
        count = f"{done:g}{of}{' ' + unit if unit else ''}"
    said = f"{text} ({count})" if text and count and not total else text or count
    return said or ""


def _fraction(row: list[Any]) -> float | None:
    """How much is done, 0 to 1; None when nobody said, or when it makes no sense."""
    done, total, ready = row[3], row[4], row[8]
    if ready is not None or done is None or not total or not math.isfinite(done / total):
        return None
    return float(min(1.0, max(0.0, done / total)))


def _percent(fraction: float | None) -> str:
    """Rounded down: 100 % is said when all is done."""
    return "" if fraction is None else f"{math.floor(fraction * 100 + 1e-9)} %"


def _silence(row: list[Any]) -> Text | None:
    """Of a rank that somebody waits for, and that has not been heard for a while."""
    from rich.text import Text

    _rank, phase, _text, _done, _total, _unit, silent, _rss, ready = row
    if ready is not None or phase in ("ended", "lost") or silent is None or silent < SILENT_S:
        return None
    told = whole_seconds(silent) if silent < 600 else f"{silent / 60:.0f} min"
    return Text(told, "yellow" if silent >= LONG_S else "")
