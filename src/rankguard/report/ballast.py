"""Room on the disk that is held for the verdict: when the ranks' output has filled the disk, the verdict still fits.

An unnamed file of `SIZE` bytes, allocated at the start and let go before the verdict is written. Gone with the process,
whatever ends it. Where the file system cannot do that (NFS), nothing is held.
"""

import os

SIZE = 128 << 10
"""A verdict of 64 ranks with their last lines takes about half of it."""


class Ballast:
    """In one folder."""

    def __init__(self, folder: str) -> None:
        self._fd = -1
        fd = -1
        try:
            fd = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(fd, 0, SIZE)
        except OSError:
            if fd >= 0:
                os.close(fd)
            return
        self._fd = fd

    def drop(self) -> None:
        """Give the room back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
