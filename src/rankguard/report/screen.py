r"""One terminal and who shares it: the ranks' lines, our own, and below them a frame of the live view.

A frame is a few lines that give way: they are erased, the ranks' lines are written, the frame is drawn again, all in one
write. The supervisor is the only writer (docs/decisions/0005), so nothing is torn. While there is no frame, bytes pass
through as they are. Erase-line and cursor-up are all that is used: no hidden cursor, no other screen, no scroll region.
Whoever is killed leaves a terminal that works, with the cursor at the beginning of a line.

A line without its end is part of what is put back: it stands above the frame and is written again when the frame goes.
Two such lines keep the frame away: one that is wider than the terminal, and a prompt of the rank that reads stdin,
behind which the user types. Who ends a line, and whose bar is drawn, is decided before: `pane.py`.

Not who decides what a frame shows: that is the front (`cli/front/view.py`). Not who queues: `linux/console.py`.
"""

import os
import re
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from rankguard.report.pane import ERASE

REDRAW_S = 0.02
"""A frame that gives way to many lines comes back at most so often."""
_UP = b"\x1b[1A"
_LONGEST = 4096
"""Bytes of an open line that are kept to be written again."""
_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")


class Queue(Protocol):
    """A terminal that is written to without blocking (`linux/console.py`)."""

    @property
    def pending(self) -> bool:
        """It has not taken everything yet."""

    def fileno(self) -> int: ...

    def columns(self) -> int: ...

    def write(self, data: bytes, *, whole: bool = False) -> None: ...


class Screen:
    """Of one terminal; a `Sink` for the ranks' lines. `prompting`: the open line is one that a user may be answering."""

    def __init__(
        self, console: Queue, prompting: Callable[[], bool] = lambda: False, clock: Callable[[], float] = monotonic
    ) -> None:
        self._console, self._prompting, self._clock = console, prompting, clock
        self._frame: tuple[bytes, ...] = ()
        """What is to be seen."""
        self._width = 0
        self._shown: tuple[bytes, ...] = ()
        """What is to be seen at this moment: nothing, while the frame gives way."""
        self._parted = False
        """The frame stands below an open line, which we ended."""
        self._line: bytes = b""
        """The open line: what was written since the last newline, or since it was last erased (a progress bar)."""
        self._drawn_at = 0.0
        self._closed = False

    def columns(self) -> int:
        """Of the terminal."""
        return self._console.columns()

    # ── Lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, data: bytes) -> None:
        """Lines of the ranks, whole or not: they go above the frame."""
        if not self._shown:
            self._note(data)
            self._console.write(data)
        elif self._console.pending:  # a slow reader gets the lines first
            self._take_away()
            self._note(data)
            self._console.write(data)
        else:
            gone = self._erasure()
            self._note(data)
            late = self._clock() < self._drawn_at + REDRAW_S
            self._console.write(gone + data + (b"" if late else self._drawing()))

    def say(self, text: str) -> None:
        """Lines of ours, above an open line: that one is written again below them."""
        data = text.encode(errors="replace") + b"\n"
        gone = self._erasure()
        if self._line and self._prompting():
            data = b"\n" + data + self._line
        elif self._line and self._fits(self._size()[0]):
            data = ERASE + data + self._line
        elif self._line:
            data, self._line = b"\n" + data, b""
        drawn = b"" if self._console.pending else self._drawing()
        self._console.write(gone + data + drawn, whole=True)

    def _note(self, data: bytes) -> None:
        at = data.rfind(b"\n") + 1
        line = data[at:] if at else self._line + data
        self._line = line.rpartition(ERASE)[2]  # a bar erases its line and draws it anew
        if len(self._line) > _LONGEST:
            self._line = self._line[: _LONGEST + 1]  # too long to be put back, whatever comes

    # ── The frame ────────────────────────────────────────────────────────────────────────────────────────────────

    def show(self, lines: Sequence[str], width: int) -> None:
        """What stands below the ranks' lines from now on; no lines: nothing. None is wider than `width` cells."""
        if self._closed:
            return
        self._frame, self._width = tuple(line.encode(errors="replace") for line in lines), width
        if not self._frame:
            self._take_away()
        elif not self._console.pending and (changes := self._update()):
            self._console.write(changes)

    def due_at(self) -> float | None:
        """When a frame that gave way wants to be drawn again, if one did."""
        waits = self._frame and not self._shown and not self._console.pending and self._may_stand()
        return self._drawn_at + REDRAW_S if waits else None

    def redraw(self) -> None:
        """Draw a frame that gave way."""
        if not self._shown and not self._console.pending and (drawn := self._drawing()):
            self._console.write(drawn)

    def close(self) -> None:
        """No frame any more, and none from here on."""
        self._frame, self._closed = (), True
        self._take_away()

    def _take_away(self) -> None:
        gone = self._erasure()
        if gone:
            self._console.write(gone, whole=True)  # never dropped: what follows stands where the frame was

    def _update(self) -> bytes:
        """From what is on the screen to the frame that is wanted; lines that stay are left alone."""
        if len(self._frame) != len(self._shown) or not self._may_stand():
            return self._erasure() + self._drawing()
        if self._frame == self._shown:
            return b""
        lines = [b"" if new == old else ERASE + new for new, old in zip(self._frame, self._shown, strict=True)]
        self._shown, self._drawn_at = self._frame, self._clock()
        return _UP * len(lines) + b"".join(line + b"\n" for line in lines)

    def _erasure(self) -> bytes:
        """Back to where the ranks' lines end."""
        if not self._shown:
            return b""
        gone = ERASE + (_UP + b"\x1b[2K") * len(self._shown)
        if self._parted:
            gone += _UP + ERASE + self._line
        self._shown, self._parted = (), False
        return gone

    def _drawing(self) -> bytes:
        if not self._frame or not self._may_stand():
            return b""
        self._shown, self._parted, self._drawn_at = self._frame, bool(self._line), self._clock()
        lines = b"".join(ERASE + line + b"\n" for line in self._frame)
        return (b"\x1b[0m\n" if self._parted else b"\x1b[0m") + lines

    def _may_stand(self) -> bool:
        """There is room for it, and the open line can be put back."""
        columns, rows = self._size()
        if self._width > columns or len(self._frame) >= rows:
            return False  # the terminal has shrunk: the front will send another
        return not self._line or (not self._prompting() and self._fits(columns))

    def _fits(self, columns: int) -> bool:
        return len(self._line) <= _LONGEST and 0 <= cells(self._line) < columns

    def _size(self) -> tuple[int, int]:
        """Columns and rows; (0, 0) when nobody knows."""
        try:
            columns, rows = os.get_terminal_size(self._console.fileno())
        except OSError:
            return 0, 0
        return columns, rows


def _cells_of(char: str) -> int:
    from unicodedata import combining, east_asian_width  # no start waits for it

    return 0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1


def cells(line: bytes) -> int:
    r"""How many columns of a terminal a line takes, the widest of its states if it has `\r`; -1 when nobody can tell."""
    widest = 0
    for state in _SEQUENCES.sub("", line.decode(errors="replace")).split("\r"):
        width = 0
        for char in state:
            if char < " " or char == "\x7f":
                return -1
            width += 1 if char.isascii() else _cells_of(char)
        widest = max(widest, width)
    return widest
