"""One stream's way to its console: as text with a prefix, painted for a terminal, or as JSON objects.

A lane is told the parts that `lines.py` makes. It knows whether the beginning of the current line is out already, and
asks the pane whether that is still the console's last line. Most bytes are plain text, and pass in one go for each read.
"""

import time
from typing import Protocol

from rankguard.report.ansi import Painter, held_back, is_harmless, is_plain, without_colors
from rankguard.report.jsonlines import JsonLines
from rankguard.report.lines import Lines, last_state
from rankguard.report.pane import Pane


class Lane(Protocol):
    """What `Output` tells of one stream."""

    begun: bool
    """The beginning of the current line is out."""

    def take(self, part: bytes, now: float) -> None:
        """Whole lines, or (without a newline at the end) a piece of a line. What is out already is not in it."""

    def again(self) -> None:
        """The current line has been started anew, so what is out is no beginning of it."""

    def waits(self, now: float) -> bool:
        """After `take`: there is something new in the line that waits for its end, to be shown by `show` after a while."""

    def show(self, now: float) -> None:
        """Show what there is of the line that waits for its end."""


class TextLane:
    """`painter` for a terminal, None elsewhere; `color` false takes colours away."""

    def __init__(
        self, lines: Lines, pane: Pane, prefix: bytes, order: int, painter: Painter | None, color: bool
    ) -> None:
        self._lines, self._pane, self._prefix, self.order = lines, pane, prefix, order
        self._painter, self._color = painter, color
        self._between = b"\n" + prefix
        self.begun = self.stale = False

    def rename(self, prefix: bytes) -> None:
        """Another prefix from the next line on."""
        self._prefix, self._between = prefix, b"\n" + prefix

    def take(self, part: bytes, now: float) -> None:
        if not part.endswith(b"\n"):
            self._part(part)
            return
        self._pane.ended(self)
        start = self._prefix
        if self.begun:
            if self._pane.goes_on(self):
                start = b""
            elif part.startswith(b"\n"):  # another's line has ended it already
                part = part[1:]
            self.begun = False
            if not part:
                self._pane.settle(now)
                return
        self._pane.lines(self, start + self._body(part), now)

    def _body(self, part: bytes) -> bytes:
        if self._painter is None:
            text = part if self._color else without_colors(part)
        elif self._painter.idle and (is_plain(part) or (self._color and is_harmless(part))):
            text = part
        else:
            paint = self._painter.paint
            text = b"\n".join([paint(line) for line in part.split(b"\n")])
        return text.replace(b"\n", self._between, text.count(b"\n") - 1) if self._prefix else text

    def _part(self, part: bytes) -> None:
        start = b"" if self._pane.goes_on(self) else self._prefix
        if self._painter is not None:
            part = self._painter.paint(part)
        elif not self._color:
            part = without_colors(part)
        self._pane.ended(self)
        self._pane.part(self, start + part)
        self.begun = True

    def again(self) -> None:
        if self.begun:
            self.begun, self.stale = False, True

    # ── The line that waits for its end ──────────────────────────────────────────────────────────────────────────

    def waits(self, now: float) -> bool:
        lines = self._lines
        if lines.bar:
            if self._pane.bars and last_state(lines.partial).strip():
                self._pane.moved(self, now)
            else:
                self._pane.ended(self)
            return False
        if len(lines.partial) == lines.shown:
            return False
        if self._pane.goes_on(self):
            self.show(now)
            return False
        return True

    def show(self, now: float) -> None:
        lines = self._lines
        text = lines.partial[lines.shown :]
        text = text[: len(text) - held_back(text)]
        if text and not lines.bar:
            self._part(text)
            lines.shown += len(text)

    def bar(self) -> bytes:
        return self._prefix + Painter(self._color).paint(last_state(self._lines.partial))


class JsonLane:
    """As objects. Whole lines only, and the pieces of one that is too long."""

    def __init__(self, made: JsonLines, pane: Pane, order: int) -> None:
        self.made, self._pane, self.order = made, pane, order
        self.begun = self.stale = False

    def take(self, part: bytes, now: float) -> None:
        self._pane.lines(self, self.made.lines(part, time.time()), now)
        self.begun = not part.endswith(b"\n")

    def again(self) -> None:
        """What is out was a part of its own."""

    def waits(self, now: float) -> bool:
        return False

    def show(self, now: float) -> None:
        """Half a line is no object."""

    def bar(self) -> bytes:
        return b""
