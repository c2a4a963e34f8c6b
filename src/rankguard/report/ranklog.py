r"""A rank's stream as its file keeps it: the bytes as they came, but of a line that is redrawn with `\r` the last state only.

Written at once, so that our own death loses nothing; a state that is drawn over is taken back (`LogFile.write`). `\r\n`
stays as it is. A state of more than `FARTHEST` bytes is kept: that is no bar.
"""

from rankguard.report.lines import last_state
from rankguard.report.logfile import LogFile

FARTHEST = 64 << 10


class RankLog:
    """One stream's file."""

    def __init__(self, path: str, limit: int, keep_open: bool = True) -> None:
        self.file = LogFile(path, limit, keep_open)
        self._line = 0
        """Bytes of the current line that are in the file."""
        self._return = False
        r"""The last byte was a `\r`, which is not in the file yet: it ends the line or starts it anew."""

    def write(self, data: bytes) -> None:
        if self._return or b"\r" in data:
            self._write_states(data)
            return
        end = data.rfind(b"\n")
        self._line = self._line + len(data) if end < 0 else len(data) - end - 1
        self.file.write(data)

    def close(self) -> None:
        """Nothing more comes."""
        if self._return:
            self.file.write(b"\r")
            self._return = False
        self.file.close()

    def _write_states(self, data: bytes) -> None:
        if self._return:
            data = b"\r" + data
        text = data.rstrip(b"\r")
        self._return = len(text) < len(data)
        lines = text.split(b"\n")
        first, back = self._first(lines[0], ends=len(lines) > 1)
        kept = [first, *(_last(line) for line in lines[1:-1])]
        if len(lines) > 1:
            kept.append(last_state(lines[-1]))
        self._line = len(kept[-1]) if len(kept) > 1 else self._line - back + len(first)
        self.file.write(b"\n".join(kept), back)

    def _first(self, line: bytes, ends: bool) -> tuple[bytes, int]:
        """What to write of the current line, and how much of it to take back before."""
        body = line.rstrip(b"\r") if ends else line
        end = b"\r" if len(body) < len(line) else b""
        at = body.rfind(b"\r")
        if at < 0:
            return body + end, 0
        if self._line > min(FARTHEST, self.file.can_go_back):
            self._line = 0
            return b"\r" + body[at + 1 :] + end, 0
        return body[at + 1 :] + end, self._line


def _last(line: bytes) -> bytes:
    r"""The last state of a whole line; one `\r` before its end is kept."""
    state = line.rstrip(b"\r")
    return state[state.rfind(b"\r") + 1 :] + (b"\r" if len(state) < len(line) else b"")
