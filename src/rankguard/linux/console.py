"""Write to a terminal, pipe, socket or file that somebody else gave us, without ever blocking on its reader.

`O_NONBLOCK` belongs to the open file, which we share with our caller's shell, so it must not be set on the descriptor
we got. Pipes and terminals are opened anew through `/proc/self/fd` (proc(5)), which gives an open file of our own;
sockets take a flag with each send (send(2)); regular files do not block. Where a reopen is refused (a descriptor of
another user, after su) writes are small and made only when poll(2) says that there is room.

What the reader does not take yet is kept, and whoever produces is asked to pause: a slow reader slows the ranks, as it
would without us. One that takes nothing for `PATIENCE` seconds (a stopped terminal) holds nobody up any longer: what
exceeds the bound is then dropped, whole writes at a time, counted and said.
"""

import contextlib
import os
import select
import socket
import stat
from collections import deque
from time import monotonic

PAUSE_AT, RESUME_AT, LIMIT = 2 << 20, 256 << 10, 16 << 20
PATIENCE = 5.0
_SMALL = 512


class Console:
    """One output. `write` never blocks; call `flush` when `fileno` is writable and `pending` is true."""

    def __init__(self, fd: int) -> None:
        self.dropped = 0
        self.gone = False
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._pausing = False
        self._moved_at = 0.0
        self._own = os.dup(fd)
        self._socket: socket.socket | None = None
        self._poll: select.poll | None = None
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISFIFO(mode) or os.isatty(fd):
            self._reopen(fd)

    def _reopen(self, fd: int) -> None:
        try:
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            self._poll = select.poll()
            self._poll.register(self._own, select.POLLOUT)
            return
        os.close(self._own)
        self._own = own

    def fileno(self) -> int:
        return self._own

    @property
    def pending(self) -> bool:
        return bool(self._queue) and not self.gone

    def wants_pause(self, now: float) -> bool:
        """Much is waiting and the reader is merely slow: whoever can stop producing should."""
        self._pausing = self._size >= (RESUME_AT if self._pausing else PAUSE_AT)
        return self._pausing and now - self._moved_at < PATIENCE

    def write(self, data: bytes, *, whole: bool = False) -> None:
        """Take whole lines. Written at once when nothing waits, kept or dropped (and counted) otherwise.

        `whole`: to be kept whatever its size (a report).
        """
        if self.gone or (self._size + len(data) > LIMIT and not whole):
            self.dropped += data.count(b"\n")
            return
        if not self._queue:
            self._moved_at = monotonic()
        self._queue.append(data)
        self._size += len(data)
        if len(self._queue) == 1:
            self.flush()

    def flush(self) -> None:
        """Write what can be written now."""
        while self._queue and not self.gone:
            batch = b"".join(self._queue) if len(self._queue) > 1 else self._queue[0]
            try:
                done = self._write(batch)
            except (BlockingIOError, InterruptedError):
                done = 0
            except OSError:  # the reader is gone (EPIPE, EIO), or the disk is full: the job goes on without it
                self.dropped += batch.count(b"\n")
                self.gone = True
                self._queue.clear()
                self._size = 0
                return
            if done:
                self._moved_at = monotonic()
            self._queue.clear()
            self._size = len(batch) - done
            if self._size:
                self._queue.append(batch[done:])
                return

    def _write(self, batch: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(batch, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._poll is not None:
            if not self._poll.poll(0):
                return 0
            return os.write(self._own, batch[:_SMALL])
        return os.write(self._own, batch)

    def flush_within(self, seconds: float) -> None:
        """The last flush: wait for a slow reader, but not for ever."""
        poll = select.poll()
        poll.register(self._own, select.POLLOUT)
        while self.pending and poll.poll(seconds * 1000):
            before = self._size
            self.flush()
            if self._size == before and self._poll is None:
                return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._own)
        if self._socket is not None:
            self._socket.close()
