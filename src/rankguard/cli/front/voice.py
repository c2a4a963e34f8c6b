"""The front's own lines while a job runs: on a terminal the supervisor writes them, elsewhere they are written here.

On a terminal they would otherwise meet the ranks' lines and the live view (docs/decisions/0005). Each line is confirmed;
what the supervisor could not confirm before it was gone is written here, so that none is lost.
"""

import os
from collections.abc import Callable
from typing import Any

from rankguard.linux.console import Console


class Voice:
    """Of one front. `ask` sends to the supervisor; set it once there is one."""

    def __init__(self, err: Console, as_json: bool = False) -> None:
        self._as_json = as_json
        self.ask: Callable[[dict[str, Any]], None] | None = None
        self._err = err
        self._shared = os.isatty(2)
        self._count = 0
        self._waiting: dict[int, str] = {}

    def say(self, text: str) -> None:
        """Lines, without the last newline."""
        if self._as_json:
            from rankguard.report.jsonlines import spoken

            text = spoken(text)
        if self.ask is None or not self._shared:
            self._write(text)
            return
        self._count += 1
        self._waiting[self._count] = text
        self.ask({"do": "say", "text": text, "number": self._count})

    def said(self, number: int) -> None:
        """The supervisor has written it."""
        self._waiting.pop(number, None)

    def alone(self) -> None:
        """There is no supervisor any more."""
        self.ask = None
        for text in self._waiting.values():
            self._write(text)
        self._waiting.clear()

    def new_line(self) -> None:
        """The supervisor was cut off, perhaps within a line, a colour or a progress bar of the ranks."""
        if self._shared:
            self._err.write(b"\x1b[0m\n")

    def _write(self, text: str) -> None:
        self._err.write(text.encode(errors="replace") + b"\n", whole=True)
