r"""Wait for a line of the engine's output, stdout or stderr, that matches (`--ready-log`): in the supervisor.

Told lines as they are pumped, until one matches. Colours are taken out first. Of a line that is longer than `LONGEST`
its beginning counts, so that a stream without a line's end costs no more than any other. Not here: who reads the pipes
(`../launchers/exec.py`), what a line is (`../report/lines.py`).
"""

import re

from rankguard.linux.cpulimit import cpu_limit

LONGEST = 4096
_LIMIT_S, _STRIKES = 0.2, 3
"""CPU time for what is read at once, and how often it may take more: some expressions need years for some lines."""
_COLOURS = re.compile(rb"\x1b\[[0-9;:?]*[ -/]*[@-~]")


class ReadyLog:
    """As a probe; `take` is told whole lines, or a piece of one that is too long."""

    def __init__(self, pattern: str) -> None:
        self.name = f"a line that matches {pattern}"
        self.good = False
        self.heard: str | None = "nothing was printed"
        self._find = re.compile(pattern).search
        self._strikes = 0

    def take(self, part: bytes) -> None:
        """Lines that the engine has printed."""
        if self.good or self._strikes >= _STRIKES:
            return
        lines = part.removesuffix(b"\n").split(b"\n")
        self.heard = "none was printed"
        try:
            with cpu_limit(_LIMIT_S):
                found = any(self._find(_text(line)) is not None for line in lines)
        except TimeoutError:
            self._strikes += 1
            if self._strikes >= _STRIKES:
                self.heard = "the expression takes too long, and is not looked for any more"
            return
        if found:
            self.good, self.heard = True, "was printed"

    def next_wake(self) -> float | None:
        """News of its own it has none."""
        return None

    def wake(self, now: float) -> None:
        """Nothing was put off."""

    def close(self) -> None:
        """Nobody waits any more."""
        self.good = True


def _text(line: bytes) -> str:
    return _COLOURS.sub(b"", line[:LONGEST]).decode(errors="replace").rstrip("\r")
