r"""Lines as JSON objects, one a line, for log collectors (`--log-format json`).

A rank's line: `{"ts": "2026-11-22T08:14:03.123456Z", "rank": 5, "node": "host-a", "stream": "stdout", "line": "…"}`.
`ts` is when we read it (UTC). An object with its newline takes at most `LARGEST` bytes: container runtimes cut what is
longer into two lines, and neither is JSON. So a longer line comes in parts, each with `"part": 1, 2 …`, the last also
with `"last": true`. Bytes that are no UTF-8 are spelt `\xff`. A line of our own has `level` and `message` instead.

Pure but for the clock that it is given.
"""

import time
from json.encoder import encode_basestring, encode_basestring_ascii

LARGEST = 16 << 10


class JsonLines:
    """One stream's lines. `ascii_only`: for a terminal, which must not see control characters of any kind."""

    def __init__(self, rank: int, node: str, stream: str, ascii_only: bool) -> None:
        self._quote = encode_basestring_ascii if ascii_only else encode_basestring
        self._part = 0
        self.rename(rank, node, stream)

    def rename(self, rank: int, node: str, stream: str) -> None:
        """Whose lines these are, from the next one on."""
        self._between = f'Z", "rank": {rank}, "node": {encode_basestring(node)}, "stream": "{stream}", "line": '
        self._room = LARGEST - len(self._between.encode()) - 80

    def lines(self, part: bytes, at: float) -> bytes:
        """Whole lines, or (without a newline at its end) a piece of a line that is too long, as objects. `at`: time of day."""
        open_ended = not part.endswith(b"\n")
        texts = part.decode(errors="backslashreplace").split("\n")
        if not open_ended:
            texts.pop()
        head, between, quote = f'{{"ts": "{_stamp(at)}', self._between, self._quote
        short = self._room // 6  # no character takes more than six bytes
        made: list[str] = []
        for text in texts:
            if len(text) <= short and not self._part and not open_ended:
                made.append(f"{head}{between}{quote(text)}}}\n")
            else:
                made += self._parts(head, text, open_ended)
        return "".join(made).encode(errors="replace").replace(b"\x7f", b"\\u007f")

    def _parts(self, head: str, text: str, open_ended: bool) -> list[str]:
        made: list[str] = []
        first = not self._part and not open_ended
        while text or not made:
            piece, said = text, self._quote(text)
            while (size := len(said.encode(errors="replace"))) > self._room:
                piece = piece[: len(piece) * self._room // size]
                said = self._quote(piece)
            text = text[len(piece) :]
            if not text and first and not made:  # it fits, after all
                return [f"{head}{self._between}{said}}}\n"]
            self._part += 1
            last = "" if text or open_ended else ', "last": true'
            made.append(f'{head}{self._between}{said}, "part": {self._part}{last}}}\n')
        if not open_ended:
            self._part = 0
        return made


def message(level: str, text: str, at: float | None = None, **more: object) -> bytes:
    """A line of our own: `level` is `info`, `warning` or `error`."""
    import json

    stamp = _stamp(time.time() if at is None else at) + "Z"
    return json.dumps({"ts": stamp, "level": level, "message": text, **more}).encode() + b"\n"


def spoken(text: str, at: float | None = None) -> str:
    """What the front says, as objects, without the last newline: long lists of lines are several."""
    level, said = "info", text.removeprefix("rankguard: ")
    for kind in ("warning", "error", "note"):
        if said.startswith(f"{kind}: "):
            level, said = "info" if kind == "note" else kind, said.removeprefix(f"{kind}: ").lstrip()
    pieces = [""]
    for line in said.split("\n"):
        if pieces[-1] and len(pieces[-1]) + len(line) > LARGEST // 8:
            pieces.append("")
        pieces[-1] += ("\n" if pieces[-1] else "") + line[: LARGEST // 8]
    return b"".join(message(level, piece, at) for piece in pieces).decode().rstrip("\n")


def reported(outcome: str, report: str, at: float | None = None) -> str:
    """The final report, in one object without a newline: its last line is the message."""
    level = {"succeeded": "info", "interrupted": "warning"}.get(outcome, "error")
    report = report.strip("\n")
    return message(level, report.rpartition("\n")[2], at, outcome=outcome, report=report).decode().rstrip("\n")


def missing(lines: int, size: int) -> bytes:
    """What is written where lines were dropped (`linux/console.py`)."""
    return message("warning", f"{lines} lines ({size} bytes) are missing here", lines=lines, bytes=size)


def _stamp(at: float) -> str:
    micros = round(at * 1e6)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(micros // 1_000_000))}.{micros % 1_000_000:06d}"
