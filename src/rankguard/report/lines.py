r"""Bytes of a rank's stream into whole lines, the same however the bytes were cut into reads.

A line ends with `\n`. A `\r` starts the line anew, as a terminal shows it, so that of a progress bar only the last
state is left; `\r\n` is an end like any other. A line longer than `LONGEST` is handed out in pieces, none of which ends
within a character of UTF-8: nothing is lost, and nothing grows without bound.

Knows no ranks, prefixes or consoles. Read next: `output.py`.
"""

import re

LONGEST = 256 << 10
"""Also the most that is worth reading at once: of that many bytes only the first line can be longer."""
_RUNS = re.compile(rb"\r\r+")


class Lines:
    r"""One stream. `feed` gives parts: whole lines, each with its `\n`, or (without one) a piece of a line that is too long.

    `partial` is the current state of the line that waits for its end, `bar` says that it is redrawn with `\r`. Who has
    shown a beginning of it sets `shown`; after the next `feed` `skip` bytes of the first part are out already, and
    `again` says that what was shown is no beginning any more.
    """

    __slots__ = ("again", "bar", "partial", "shown", "skip")

    def __init__(self) -> None:
        self.partial = b""
        self.bar = False
        self.shown = self.skip = 0
        self.again = False

    def feed(self, data: bytes) -> list[bytes]:
        """The parts that `data` completes."""
        self.again = False
        if len(data) <= LONGEST:
            skip = self.shown
            parts = self._feed(data)
        else:
            skip, parts = self.shown, []
            for start in range(0, len(data), LONGEST):
                again = self.again and not parts
                parts += self._feed(data[start : start + LONGEST])
                self.again = self.again or again
        self.skip = 0 if self.again else skip
        return parts

    def rest(self) -> bytes:
        """What waits for an end that does not come; `skip` and `again` as after `feed`."""
        rest, self.partial = self.partial.rstrip(b"\r"), b""
        self.skip, self.shown, self.again, self.bar = self.shown, 0, False, False
        return rest

    def _feed(self, data: bytes) -> list[bytes]:
        end = data.rfind(b"\n") + 1
        if not end:
            parts, self.partial = self._state(self.partial + data)
            return parts
        first = data.find(b"\n")
        whole = b"".join((self.partial, memoryview(data)[:end])) if end < len(data) or self.partial else data
        parts = []
        if len(self.partial) + first > LONGEST or b"\r" in whole:
            parts, start = self._state(self.partial + data[:first])
            whole = start.rstrip(b"\r") + _last_states(data[first:end])
        parts.append(whole)
        self.partial, self.shown, self.bar = data[end:], 0, False
        if b"\r" in self.partial:
            again = self.again
            _none, self.partial = self._state(self.partial)
            self.again = again
        return parts

    def _state(self, text: bytes) -> tuple[list[bytes], bytes]:
        r"""The pieces that a line without its end is too long for, and its state. At most one `\r` is left, at its end."""
        pieces = []
        if b"\r" in text:
            text = _RUNS.sub(b"\r", text)
            self.bar = True
        while True:
            again = text.rfind(b"\r", 0, min(len(text) - 1, LONGEST))
            if again >= 0:
                text = text[again + 1 :]
                self.again, self.shown = True, 0
            elif len(text) > LONGEST:
                cut = _whole_characters(text, LONGEST)
                pieces.append(text[:cut])
                text, self.shown = text[cut:], 0
            else:
                return pieces, text


def last_state(line: bytes) -> bytes:
    """What a terminal would show of a line with carriage returns in it."""
    line = line.rstrip(b"\r")
    return line[line.rfind(b"\r") + 1 :]


def _last_states(lines: bytes) -> bytes:
    if b"\r" not in lines:
        return lines
    return b"\n".join([last_state(line) if b"\r" in line else line for line in lines.split(b"\n")])


def _whole_characters(text: bytes, at: int) -> int:
    """`at`, or a little less, so that a character of UTF-8 is not cut."""
    for back in range(4):
        if text[at - back] & 0xC0 != 0x80:
            return at - back if text[at - back] >= 0xC0 or back == 0 else at
    return at
