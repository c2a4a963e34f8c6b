r"""Bars below a bar (tqdm's `position=1`) turned into states of one line.

A program that has no terminal to ask draws a second bar as `\n`, `\r<bar>`, cursor up: line for line that would be a new
line for each of its steps. Here the newline and the way up are taken out, so that the two bars are states of one line,
as everything that is redrawn. Only behind a line that is itself redrawn with `\r` is anything held back, and then only
until the next byte shows what it is; `flush` ends the waiting. All other bytes pass as they are.

Read next: `lines.py`.
"""

import re

_UP = b"\x1b[A"
_BELOW = re.compile(rb"(\n+)(\r[^\r\n\x1b]*(?:\x1b\[[0-9;]{0,40}m[^\r\n\x1b]*)*)?")
"""From the end of a bar to a bar below it, its text included."""
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-9;]{0,40})?")
LONGEST = 1000
"""Bytes that are held back at most."""


class Nested:
    """One stream."""

    __slots__ = ("_bar", "_return", "held")

    def __init__(self) -> None:
        self.held = b""
        self._bar = False
        r"""A `\r` has started the current line anew."""
        self._return = False
        r"""Its last byte is a `\r`, which may be half of its end."""

    def feed(self, data: bytes) -> bytes:
        """What may pass now."""
        if not (self.held or self._bar or self._return) and b"\r" not in data:
            return data
        text, self.held = self.held + data, b""
        out, at = [], 0
        while (end := text.find(b"\n", at)) >= 0:
            self._follow(text[at:end])
            drawn, waits = self._below(text, end) if self._bar else (None, False)
            if waits:
                self.held = text[end:]
                out.append(text[at:end])
                return b"".join(out)
            if drawn is None:
                out.append(text[at : end + 1])
                at, self._bar, self._return = end + 1, False, False
            else:
                out.append(text[at:end] + drawn[2])
                at = drawn.end() + len(_UP) * len(drawn[1])
        self._follow(text[at:])
        out.append(text[at:])
        return b"".join(out)

    def flush(self) -> bytes:
        """What was held back: nothing more came."""
        held, self.held = self.held, b""
        if held:
            self._bar, self._return = b"\r" in held, False
        return held

    def _below(self, text: bytes, end: int) -> tuple[re.Match[bytes] | None, bool]:
        """A bar that was drawn below the one that ends here; or true when that cannot be told yet."""
        below = _BELOW.match(text, end)
        assert below is not None
        if below.end() - end > LONGEST:
            return None, False
        ups = _UP * len(below[1])
        rest = text[below.end() : below.end() + len(ups)]
        if below[2] is not None and rest == ups:
            return below, False
        tail = text[below.end() :]
        unknown = not tail if below[2] is None else ups.startswith(tail) or bool(_UNFINISHED.fullmatch(tail))
        return None, unknown

    def _follow(self, line: bytes) -> None:
        """More of the current line, without its end."""
        if not line:
            return
        body = line.rstrip(b"\r")
        self._bar = self._bar or (self._return and bool(body)) or b"\r" in body
        self._return = len(body) < len(line)
