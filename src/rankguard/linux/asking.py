"""One question, asked again and again until the answer is the one that is waited for; never two at a time.

The pauses grow from `FIRST_S` to `LAST_S`, so that an engine is seen to be ready soon and is not bothered while it loads.
A question that is not answered within `BOUND_S` is given up, whatever the other side does. Nothing here waits: an `Ask`
is news of the driver's selector (`nearask.py`, `farask.py`). Read next: `../supervisor/readiness.py` (who asks).
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

FIRST_S, LAST_S, BOUND_S = 0.1, 1.0, 5.0


class Answer(NamedTuple):
    """Whether it is the one that is waited for, and what was heard: `connection refused`, `answered 503: loading`."""

    good: bool
    heard: str


Done = Callable[[Answer, float], None]


class Ask(Protocol):
    """One question that is under way. It calls `done(answer, now)` once, at the earliest after it has been made."""

    due_at: float | None
    """When it has waited long enough by its own rules: `close` is called then, at the latest after `BOUND_S`."""

    def close(self) -> Answer:
        """It is given up: what was heard until now. `done` is not called any more."""


class Asking:
    """`begin(now, done)` puts the question; raises `OSError` when it cannot be put."""

    def __init__(self, name: str, begin: Callable[[float, Done], Ask], last_s: float = LAST_S) -> None:
        self.name = name
        """What is asked, as it may be told."""
        self.good = False
        self.heard: str | None = None
        self._begin, self._last_s = begin, last_s
        self._ask: Ask | None = None
        self._until, self._due, self._pause = 0.0, 0.0, FIRST_S

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        if self.good:
            return None
        if self._ask is None:
            return self._due
        return self._until if self._ask.due_at is None else min(self._until, self._ask.due_at)

    def wake(self, now: float) -> None:
        """Ask if it is time to, or give up."""
        due = self.next_wake()
        if due is None or now < due:
            return
        if self._ask is not None:
            self._take(self._ask.close(), now)
            return
        self._until = now + BOUND_S
        try:
            self._ask = self._begin(now, self._take)
        except OSError as error:
            self._take(Answer(False, f"unable to ask: {error.strerror or error}"), now)

    def close(self) -> None:
        """Nobody wants to know any more."""
        if self._ask is not None:
            self._ask.close()
            self._ask = None

    def _take(self, answer: Answer, now: float) -> None:
        self._ask = None
        self.good, self.heard = answer
        self._due, self._pause = now + self._pause, min(2 * self._pause, self._last_s)
