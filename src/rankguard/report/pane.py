r"""One console as the ranks' lines share it: its last line may be unfinished (a prompt), or a progress bar that is drawn over.

Whoever writes next ends a prompt with a newline, and takes a bar away and puts it back below, all in one write. One
line of a terminal is all that bars get, however many ranks have one, so that 8 of them can be read: the bar of the
lowest rank whose bar moved in the last `FRESH_S` seconds, and how many others there are. When that rank's line ends it
stays, as a line of its own, and the next rank's bar takes its place. Drawn at most four times a second.

Whole lines come from `lanes.py`; what a sink is, from `linux/console.py`.
"""

from typing import Protocol

REDRAW_S = 0.25
FRESH_S = 5.0
ERASE = b"\r\x1b[2K"


class Sink(Protocol):
    """Where lines go; never blocks (`linux/console.py`). What does not end with a newline is continued by the next write."""

    def write(self, data: bytes) -> None:
        """Take some bytes."""

    def columns(self) -> int:
        """Of the terminal that this is; 0 when it is none."""


class Stream(Protocol):
    """One stream of a rank (`lanes.py`)."""

    stale: bool
    """Of its unfinished line on the console nothing is true any more."""
    order: int

    def bar(self) -> bytes:
        """Its bar, painted."""


class Pane:
    """`bars` false: nothing is ever drawn over, as for a file or a dumb terminal."""

    def __init__(self, sink: Sink, bars: bool) -> None:
        self.bars = bars
        self._sink = sink
        self._open: Stream | None = None
        """Whose unfinished line is the console's last."""
        self._live: dict[Stream, float] = {}
        """Streams that have a bar now, and when it last changed."""
        self._drawn: Stream | None = None
        self._frame = b""
        self._changed = False
        self._drawn_at = float("-inf")

    def goes_on(self, stream: Stream) -> bool:
        """The console's last line is the beginning of this stream's."""
        return self._open is stream and not stream.stale

    def lines(self, stream: Stream, data: bytes, now: float) -> None:
        """Whole lines, or the rest of the unfinished one and more."""
        out = self._way(stream) + data
        self._open = None
        self._sink.write(out + self._bar(now) if self._live else out)

    def part(self, stream: Stream, data: bytes) -> None:
        """The beginning of a line, or more of the one that is open."""
        out = self._way(stream) + data
        self._open = stream
        self._sink.write(out)

    def open_rank(self) -> int | None:
        """The rank whose unfinished line is the console's last: a question, perhaps. A bar is nobody's."""
        return None if self._open is None or self._open.stale else self._open.order // 2

    def _way(self, stream: Stream) -> bytes:
        """From the console's last line to where `stream` writes."""
        stale, stream.stale = stream.stale, False
        if self._drawn is not None:
            self._drawn = None
            return ERASE
        if self._open is None or (self._open is stream and not stale):
            return b""
        return ERASE if self._open is stream and self.bars else b"\n"

    # ── Bars ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def moved(self, stream: Stream, now: float) -> None:
        """A stream's bar has a new state."""
        self._live[stream] = now
        self._changed = True

    def ended(self, stream: Stream) -> None:
        """It has none any more."""
        if self._live.pop(stream, None) is not None:
            self._changed = True

    def due_at(self) -> float | None:
        """When bars want to be drawn again. A prompt is left alone until somebody's line ends it."""
        if not self._changed or (self._open is not None and not self._open.stale):
            return None
        return self._drawn_at + REDRAW_S

    def draw(self, now: float) -> None:
        """Draw the bar anew."""
        before = b""
        if self._drawn is None and self._open is not None:
            before = self._way(self._open)
            self._open = None
        frame = self._bar(now)
        if frame or self._drawn is not None:
            self._sink.write(before + (b"" if before == ERASE else ERASE) + frame)
        self._drawn = self._drawn if frame else None

    def settle(self, now: float) -> None:
        """Take away a bar that ended and left no line."""
        if self._drawn is not None and self._drawn not in self._live:
            self.draw(now)

    def _bar(self, now: float) -> bytes:
        """What to draw; the one drawn last while nothing is due."""
        if not self._live:
            self._changed, self._drawn_at = False, now
            return b""
        if now < self._drawn_at + REDRAW_S and self._drawn in self._live:
            return self._frame
        return self._new(now)

    def _new(self, now: float) -> bytes:
        from rankguard.report.ansi import fitted

        fresh = [stream for stream, moved in self._live.items() if now - moved < FRESH_S]
        stream = min(fresh or self._live, key=lambda live: live.order)
        others = len(self._live) - 1
        more = f"  +{others} more".encode() if others else b""
        room = max(10, self._sink.columns() - 1 - len(more))
        self._frame = fitted(stream.bar(), room) + more
        self._drawn, self._drawn_at, self._changed = stream, now, False
        return self._frame
