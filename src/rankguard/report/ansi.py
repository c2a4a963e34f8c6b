r"""What a terminal may see of a rank's text: its characters and its colours, and nothing that moves or changes the screen.

Kept: text, tabs, and SGR (`\x1b[…m`: colours, bold, underline). What a line leaves switched on is switched off at its
end and on again where that stream goes on, so that no rank paints over another's lines. Removed: every other well-formed
escape (cursor, erase, other screen, titles, links, queries that make a terminal type into somebody's stdin). All other
control characters, C1 included, and bytes that are no UTF-8 are spelt out, `\x07`, as in the report.

Pure. Read next: `pane.py` (who draws), `wording.py` (`printable`, for the report).
"""

import re
from functools import lru_cache

RESET = b"\x1b[0m"
_PLAIN = bytes([9, 10, *range(32, 127)])
_PLAIN_OR_HIGH = _PLAIN + bytes(range(128, 256))
_LEFT_ON = re.compile(rb"\x1b\[(?!0?m)[^m\n]*m[^\x1b\n]*\n")
"""The last SGR of a line, and it is no reset."""
_SGR = re.compile(rb"\x1b\[[0-9;:]{0,200}m")  # no real one is longer
_CONTROLS = re.compile(
    rb"\x1b\[[0-9;:]{0,200}m"
    rb"|\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    rb"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC, DCS, SOS, PM, APC with what they hold
    rb"|\x1b[ -/]*[0-~]"  # all others, and the beginning of one that has no end: then its text is shown
    rb"|[\x00-\x08\x0b-\x1f\x7f]"
)
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?\Z")
_LONGEST_ESCAPE = 4096
_C1 = re.compile("[\x80-\x9f]")
_TOKENS = re.compile("(\x1b\\[[0-9;:]*m)")


def is_plain(data: bytes) -> bool:
    """ASCII, tabs and newlines only: nothing to be done (the common case, at a gigabyte a second)."""
    return not data.translate(None, _PLAIN)


def is_harmless(lines: bytes) -> bool:
    """Whole lines of UTF-8 without control characters, each of which switches off the colours that it switches on.

    Looks at all of them at once: a terminal may have them as they are, if no attribute was on before.
    """
    if not lines.isascii():
        try:
            text = lines.decode()
        except UnicodeDecodeError:
            return False
        if _C1.search(text):
            return False
    if b"\x1b" in lines:
        if _LEFT_ON.search(lines):
            return False
        lines = _SGR.sub(b"", lines)
    return not lines.translate(None, _PLAIN_OR_HIGH)


def without_colors(data: bytes) -> bytes:
    """The same without SGR, for `--no-color` where there is no terminal."""
    return _SGR.sub(b"", data) if b"\x1b" in data else data


def held_back(line: bytes) -> int:
    """How many bytes at the end of a partial line must wait: the beginning of an escape or of a character of UTF-8."""
    at = _UNFINISHED.search(line, max(0, len(line) - _LONGEST_ESCAPE))
    if at is not None:
        return len(line) - at.start()
    for back in range(1, min(4, len(line) + 1)):
        byte = line[-back]
        if byte >= 0xC0:
            need = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < need else 0
        if byte < 0x80:
            break
    return 0


class Painter:
    """One stream's text for a terminal. Remembers which attributes are on. `color` false: none ever is."""

    __slots__ = ("_color", "_on")

    def __init__(self, color: bool) -> None:
        self._color = color
        self._on: dict[int, bytes] = {}
        """What would switch it off → what switches it on."""

    @property
    def idle(self) -> bool:
        """No attribute is on: plain text may pass as it is."""
        return not self._on

    def paint(self, text: bytes) -> bytes:
        """A line without its end, or a piece of one; leaves the terminal with no attribute on."""
        before = b"\x1b[" + b";".join(self._on.values()) + b"m" if self._on else b""
        text, used = self._clean(text)
        return before + text + (RESET if before or used else b"") if text else b""

    def _clean(self, text: bytes) -> tuple[bytes, bool]:
        """The text, and whether it has colours."""
        parts, used, at = [], False, 0
        for match in _CONTROLS.finditer(text):
            parts.append(_characters(text[at : match.start()]))
            found, at = match[0], match.end()
            if len(found) == 1:
                parts.append(b"\\x%02x" % found[0])
            elif self._color and _SGR.fullmatch(found):
                used = True
                self._switch(found[2:-1])
                parts.append(found)
        return b"".join([*parts, _characters(text[at:])]), used

    def _switch(self, parameters: bytes) -> None:
        codes = parameters.split(b";")
        while codes:
            code = codes.pop(0)
            number = int(code.partition(b":")[0] or b"0") if len(code) < 20 else -1
            if number in (38, 48, 58) and b":" not in code:
                took = 1 if codes[:1] == [b"5"] else 3 if codes[:1] == [b"2"] else -1
                code = b";".join([code, *codes[: took + 1]])
                del codes[: took + 1]
            if number == 0:
                self._on.clear()
            elif number in _OFF:
                self._on.pop(number, None)
            elif number in _ON:
                self._on[_ON[number]] = code[:40]


_ON = (
    {1: 22, 2: 22, 3: 23, 4: 24, 21: 24, 5: 25, 6: 25, 7: 27, 8: 28, 9: 29, 53: 55, 58: 59}
    | dict.fromkeys((*range(30, 39), *range(90, 98)), 39)
    | dict.fromkeys((*range(40, 49), *range(100, 108)), 49)
)
"""ECMA-48 8.3.117 and xterm: what switches on → what switches it off."""
_OFF = frozenset(_ON.values())


def _characters(text: bytes) -> bytes:
    """Text without control characters of ASCII; those of C1 and what is no UTF-8 are spelt out."""
    if text.isascii():
        return text
    said = text.decode(errors="backslashreplace")
    return _C1.sub(lambda match: f"\\x{ord(match[0]):02x}", said).encode()


def fitted(text: bytes, columns: int) -> bytes:
    """A painted text cut to the columns of a terminal, its colours off at the end."""
    if text.isascii() and b"\x1b" not in text:
        return text[:columns].replace(b"\t", b" ")
    kept: list[str] = []
    left, colored = columns, False
    for token in _TOKENS.split(text.decode(errors="replace").replace("\t", " ")):
        if token.startswith("\x1b"):
            kept.append(token)
            colored = True
            continue
        for char in token:
            left -= _width(char)
            if left < 0:
                break
            kept.append(char)
        if left < 0:
            break
    return "".join(kept).encode() + (RESET if colored else b"")


@lru_cache(1024)
def _width(char: str) -> int:
    from unicodedata import category, combining, east_asian_width  # no start waits for it

    if combining(char) or category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(char) in "WF" else 1
