r"""One rank's stream on disk, bounded: the first quarter and the last three quarters of the bound are kept.

While a stream is longer than its bound, the last three quarters are written round and round in place, with a line
behind the newest byte that says so: whoever finds the file of a job that was cut off can read it. `finish` puts it in
order, with a line that says how much was left out. `write(…, back=n)` takes the last n bytes back first: a progress bar
leaves its last state only. A disk that is full, or an own limit on files, never hurts a rank: what could not be written
is counted, and marked where it is missing once writing works again.

Read next: `ranklog.py` (which bytes are taken back).
"""

import os


class LogFile:
    """`limit` bytes at most; 0 keeps nothing. Opened by the first byte; `keep_open` false: anew for each write."""

    def __init__(self, path: str, limit: int, keep_open: bool = True) -> None:
        self.path = path
        self.lost = self.lost_lines = 0
        self.error: str | None = None
        self._limit = limit
        self._head = limit // 4
        self._seam = _seam(self._head)
        self._ring = limit - self._head + len(self._seam)
        self._total = 0
        """Bytes of the stream so far, those left out included."""
        self._longest = 0
        """The same before anything was taken back: what is older than `limit` from there is overwritten."""
        self._missing = 0
        self._fd = -1
        self._made = False
        self._keep_open = keep_open

    @property
    def made(self) -> bool:
        """The file is there."""
        return self._made

    @property
    def can_go_back(self) -> int:
        """Bytes that can be taken back."""
        return max(0, (self._limit - self._head) // 2 - (self._longest - self._total))

    def write(self, data: bytes, back: int = 0) -> None:
        """Append. Never raises, never waits for more than the disk."""
        if self._limit == 0 or not (data or back):
            return
        try:
            self._open()
            if self._missing:
                said = f"[rankguard: {self._missing} bytes are missing here: {self.error}]\n".encode()
                self._put(b"\n" + said, 0)
                self._missing = 0
            self._put(data, back)
            if not self._keep_open:
                self._shut()
        except OSError as error:
            self.lost += len(data)
            self.lost_lines += data.count(b"\n")
            self._missing += len(data)
            self.error = error.strerror or str(error)

    def close(self) -> None:
        """Nothing more is written; `finish` is still to come."""
        self._shut()

    def finish(self) -> None:
        """Put a stream that outgrew its bound in order."""
        try:
            if self._longest > self._limit:
                self._open()
                self._unroll()
        except OSError as error:
            self.error = error.strerror or str(error)
        finally:
            self._shut()

    def _open(self) -> None:
        if self._fd < 0:
            fresh = 0 if self._made else os.O_CREAT | os.O_TRUNC
            if fresh:
                os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | fresh, 0o600)
            self._made = True

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _put(self, data: bytes, back: int) -> None:
        start = self._total - back
        end = start + len(data)
        if end <= self._limit and self._longest <= self._limit:
            _pwrite(self._fd, data, start)
            if end < self._longest:
                os.ftruncate(self._fd, end)
            self._total = self._longest = end
            return
        self._put_round(data, start)
        self._total, self._longest = end, max(self._longest, end)

    def _put_round(self, data: bytes, start: int) -> None:
        if start < self._head:
            _pwrite(self._fd, data[: self._head - start], start)
            data, start = data[self._head - start :], self._head
        if len(data) > self._ring - len(self._seam):
            start += len(data) - (self._ring - len(self._seam))
            data = data[-(self._ring - len(self._seam)) :]
        data += self._seam
        offset = (start - self._head) % self._ring
        _pwrite(self._fd, data[: self._ring - offset], self._head + offset)
        _pwrite(self._fd, data[self._ring - offset :], self._head)

    def _unroll(self) -> None:
        first = max(self._head, self._longest - (self._limit - self._head))
        start = (first - self._head) % self._ring
        kept = (os.pread(self._fd, self._ring - start, self._head + start) + os.pread(self._fd, start, self._head))[
            : max(0, self._total - first)
        ]
        left_out = first - self._head
        said = (
            f"\n[rankguard: {left_out} bytes left out here (--log-max {self._limit})]\n".encode() if left_out else b""
        )
        _pwrite(self._fd, said + kept, self._head)
        os.ftruncate(self._fd, self._head + len(said) + len(kept))


def _seam(head: int) -> bytes:
    return (
        f"\n[rankguard: the job was cut off; the newest output ends above, the oldest that is kept follows here, "
        f"and both come after the first {head} bytes of this file]\n"
    ).encode()


def _pwrite(fd: int, data: bytes, offset: int) -> None:
    while data:
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done
