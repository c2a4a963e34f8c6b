"""The file of a container's last word, `/dev/termination-log`: written in place, since it is bind-mounted and nothing can be
renamed over it. Nothing here waits or fails: what cannot be written is told by `error`.

What the program itself writes there is kept, and given to whoever makes the message. Read next: `termination.py` (what is
said), `../supervisor/ahead.py` (when).
"""

import os
import stat
from collections.abc import Callable

MOST = 4096
"""Bytes of one container's message that the kubelet keeps."""
OURS = b"rankguard: "
"""How a message of ours begins, and no other's."""
_WHOLE = 1 << 16
"""Of what somebody else wrote there so much is looked at, from a longer one its end."""


class TerminationLog:
    """The file. `redact` is for what the program had written there before us; `path` null: nothing is written at all.

    It stays open, so that it can be written when there is no descriptor left.
    """

    def __init__(self, path: str | None, redact: Callable[[str], str] = str) -> None:
        self.error: str | None = None
        self.path, self._redact = path, redact
        self._fd = -1
        self._size = 0
        self._last: bytes | None = None
        self._theirs = b""
        if path is None:
            return
        try:
            self._fd = _open(path)
        except OSError as error:
            self._failed(error.strerror)
            return
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            self._failed("it is no regular file")
            self.close()

    @property
    def written(self) -> bool:
        """What is there now is ours."""
        return self._last is not None

    def write(self, make: Callable[[bytes], bytes]) -> None:
        """The whole message anew. `make` is given what the program has written there."""
        if self._fd < 0:
            return
        self._look()
        try:
            text = make(self._redact(self._theirs.decode(errors="replace")).encode(errors="replace"))
        except Exception as error:  # noqa: BLE001  # a fault of ours in the last word shall cost no job its end
            self._failed(f"a fault of rankguard: {type(error).__name__}: {error}")
            return
        self._put(text)

    def clear(self) -> None:
        """Take back what was written ahead; what was the program's own is there again."""
        if self._fd >= 0 and self._last is not None:
            self._look()
            self._put(self._theirs)
            self._last = None

    def _look(self) -> None:
        """Whoever else writes there has the right to: what they wrote since is kept."""
        try:
            size = os.fstat(self._fd).st_size
            found = os.pread(self._fd, _WHOLE, 0) if size <= _WHOLE else os.pread(self._fd, MOST, size - MOST)
        except OSError:  # not readable for us
            return
        self._size = size
        if self._last is not None and found.startswith(self._last):
            self._theirs = (self._theirs + found[len(self._last) :])[-MOST:]
        elif not found.startswith(OURS):
            self._theirs = found[-MOST:]

    def _put(self, text: bytes) -> None:
        """What was there and is longer is blanked in the same stroke, so that no moment shows half of each."""
        try:
            os.pwrite(self._fd, text.ljust(min(self._size, 2 * MOST), b"\n"), 0)
            os.ftruncate(self._fd, len(text))
        except OSError as error:
            self._failed(error.strerror)  # and tried again next time: a disk that is full now may have room then
            return
        self._last, self._size = text, len(text)

    def _failed(self, why: str | None) -> None:
        self.error = self.error or f"unable to write the termination log `{self.path}`: {why}"

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(path: str) -> int:
    """To read what is there as well, where that is allowed. Never waits: a FIFO without a reader is refused."""
    flags = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        return os.open(path, os.O_RDWR | flags)
    except PermissionError:
        return os.open(path, os.O_WRONLY | flags)
