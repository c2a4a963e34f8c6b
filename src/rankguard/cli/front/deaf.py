"""A supervisor that answers no more: stopped, or held by a file system that hangs or a `--redact` that does not end.

It is asked when somebody is impatient (the second SIGINT), since it would end all at once then; under `--on-lost keep`
with every request to end, since the front can pass that on itself. Only one that says nothing for `PATIENCE_S` is taken for
deaf, however long the ranks take. The front ends it, and the warden the rest, or the front keeps the engine.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

from rankguard.linux import tree

PATIENCE_S = 10.0
"""More than its last words may take: 2 s for each of two consoles that nobody reads."""


class Deaf:
    """What one front knows of its supervisor's hearing."""

    def __init__(self) -> None:
        self._interrupts = 0
        self.due: float | None = None
        """When it is taken for deaf, if it says nothing until then."""

    def interrupted(self, now: float, send: Callable[[dict[str, Any]], None]) -> None:
        """A SIGINT came, and was passed on."""
        self._interrupts += 1
        if self.impatient:
            self.asked(now, send)

    @property
    def impatient(self) -> bool:
        """Somebody has asked twice."""
        return self._interrupts > 1

    def asked(self, now: float, send: Callable[[dict[str, Any]], None]) -> None:
        """It has to answer from now on."""
        if self.due is None:
            self.due = now + PATIENCE_S
            send({"do": "ping"})

    def heard(self, now: float, *, answer: bool) -> None:
        """It said something. What it had said before it was asked may come only now, so that alone is no answer."""
        if self.due is not None:
            self.due = None if answer else now + PATIENCE_S

    def ends(self, now: float, parent: Callable[[], int]) -> bool:
        """Whether it is deaf; then it has been killed, as far as the kernel can."""
        if self.due is None or now < self.due:
            return False
        for pid in tree.children(parent()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return True
