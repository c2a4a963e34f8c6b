"""One rank's stream on disk, bounded: the first quarter and the last three quarters of the bound are kept.

While a stream is longer than its bound, the last three quarters are written round and round in place; `close` puts
them in order, with a line that says how much was left out. A disk that is full, or an own limit on files, never hurts
a rank: what could not be written is counted.
"""

import os


class LogFile:
    """`limit` bytes at most; 0 keeps nothing. Opened by the first byte; `keep_open` false: anew for each write."""

    def __init__(self, path: str, limit: int, keep_open: bool = True) -> None:
        self.path = path
        self.lost = 0
        self.error: str | None = None
        self._limit = limit
        self._head = limit // 4
        self._total = 0
        self._fd = -1
        self._keep_open = keep_open

    def write(self, data: bytes) -> None:
        """Append. Never raises, never waits for more than the disk."""
        if self._limit == 0 or not data:
            return
        try:
            self._open()
            self._put(data)
            if not self._keep_open:
                self._shut()
        except OSError as error:
            self.lost += len(data)
            self.error = self.error or (error.strerror or str(error))

    def _open(self) -> None:
        if self._fd < 0:
            fresh = os.O_CREAT | os.O_TRUNC if self._total == 0 else 0
            if fresh:
                os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | fresh, 0o600)

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _put(self, data: bytes) -> None:
        if self._total + len(data) <= self._limit:
            _pwrite(self._fd, data, self._total)
            self._total += len(data)
            return
        while data:
            offset = self._offset()
            end = self._head if self._total < self._head else self._limit
            piece = data[: end - offset]
            _pwrite(self._fd, piece, offset)
            self._total += len(piece)
            data = data[len(piece) :]

    def _offset(self) -> int:
        if self._total < self._head:
            return self._total
        return self._head + (self._total - self._head) % (self._limit - self._head)

    def close(self) -> None:
        """Put a stream that outgrew its bound in order."""
        try:
            if self._total > self._limit:
                self._open()
                self._unroll()
        except OSError as error:
            self.error = self.error or (error.strerror or str(error))
        finally:
            self._shut()

    def _unroll(self) -> None:
        start = self._offset()
        last = os.pread(self._fd, self._limit - start, start) + os.pread(self._fd, start - self._head, self._head)
        said = f"\n[rankguard: {self._total - self._limit} bytes left out here (--log-max {self._limit})]\n".encode()
        _pwrite(self._fd, said + last, self._head)


def _pwrite(fd: int, data: bytes, offset: int) -> None:
    while data:
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done
