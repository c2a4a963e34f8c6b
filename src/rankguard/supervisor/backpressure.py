"""When those who read are slow: the consoles and the front are watched until they take more, and the ranks made to wait.

A console that has more queued than it should asks for a pause; the ranks' output then stays in their pipes, and they
block as they would without us. One that takes next to nothing holds nobody up for ever (`../linux/console.py`).
"""

import contextlib
from collections.abc import Callable, Sequence
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector

from rankguard.driver import URGENT
from rankguard.launchers.exec import NEWS_OUTPUT
from rankguard.linux.console import PATIENCE, Console
from rankguard.wire import Wire


class Backpressure:
    """Of one run. `paused`: the ranks wait. `pause(paused, now)` makes the ranks wait, or go on."""

    def __init__(
        self,
        selector: BaseSelector,
        consoles: Sequence[Console | None],
        wire: Wire,
        on_message: Callable[[float], object],
        pause: Callable[[bool, float], None],
    ) -> None:
        self._selector, self._wire, self._on_message, self._pause = selector, wire, on_message, pause
        self._consoles = [console for console in consoles if console is not None]
        self._watched = [False] * len(self._consoles)
        self._wire_watched = self.paused = False
        self._again: float | None = None

    def next_wake(self) -> float | None:
        return self._again

    def wake(self, now: float) -> None:
        """Watch what has something to write, and let the ranks wait or go on."""
        for index, console in enumerate(self._consoles):
            if console.pending != self._watched[index]:
                self._watched[index] = console.pending
                self._watch(console)
        if self._wire.pending != self._wire_watched:
            self._wire_watched = self._wire.pending
            events = EVENT_READ | (EVENT_WRITE if self._wire_watched else 0)
            with contextlib.suppress(KeyError):
                self._selector.modify(self._wire, events, (URGENT, self._on_message))
        paused = any(console.wants_pause(now) for console in self._consoles)
        if paused != self.paused:
            self.paused = paused
            self._pause(paused, now)
        self._again = now + PATIENCE if paused else None

    def _watch(self, console: Console) -> None:
        try:
            if console.pending:
                self._selector.register(console, EVENT_WRITE, (NEWS_OUTPUT, lambda _now: console.flush()))
            else:
                self._selector.unregister(console)
        except (KeyError, OSError):  # both streams on one console, or a file that epoll does not take
            console.flush()
