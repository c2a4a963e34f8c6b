"""Wait for a file: the kernel tells of its folder (inotify(7)), and it is looked for now and then in any case.

A file that was there before counts once it has changed: what an earlier run left behind says nothing of this one. For a
file system of this machine; elsewhere a look may not come back, and there is `farask.py`.
"""

import contextlib
import os
from selectors import EVENT_READ, BaseSelector

from rankguard.linux import inotify
from rankguard.linux.askprogram import stamp

_SOON_S, _FIRST_S, _LAST_S = 0.02, 0.1, 1.0
_EVENTS = inotify.CREATE | inotify.MOVED_TO | inotify.ATTRIB | inotify.MODIFY | inotify.CLOSE_WRITE


class FileLook:
    """As an `Asking`. Make it before whoever is to make the file is started; `fresh` false: any file counts."""

    def __init__(self, path: str, selector: BaseSelector, priority: int, *, fresh: bool = True) -> None:
        self.name = f"the file {path}"
        self.good = False
        self.heard: str | None = None
        self._path, self._selector, self._priority = path, selector, priority
        self._before = _stamp(path) if fresh else None
        self._fd = -1
        self._due, self._pause = 0.0, _FIRST_S

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        return None if self.good else self._due

    def wake(self, now: float) -> None:
        """Look, if it is time to."""
        if self.good or now < self._due:
            return
        if self._fd < 0:
            self._watch()
        found = _stamp(self._path)
        self.good = found is not None and found != self._before
        self.heard = "is there" if self.good else "is not there" if found is None else "is as it was before the start"
        self._due, self._pause = now + self._pause, min(2 * self._pause, _LAST_S)

    def close(self) -> None:
        """Nobody waits any more."""
        if self._fd >= 0:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _watch(self) -> None:
        self._fd = inotify.watch(os.path.dirname(self._path) or ".", _EVENTS)
        if self._fd >= 0:
            self._selector.register(self._fd, EVENT_READ, (self._priority, self._on_news))

    def _on_news(self, now: float) -> None:
        """Of any file in the folder, of which there may be many: looked at soon, together with the next ones."""
        if self._fd >= 0 and not inotify.drain(self._fd):
            self.close()
        self._due = min(self._due, now + _SOON_S)


def _stamp(path: str) -> list[int] | None:
    try:
        return stamp(path)
    except OSError:  # it may not be looked at: then it is as good as not there
        return None
