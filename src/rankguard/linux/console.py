"""Write to a terminal, pipe, socket or file that somebody else gave us, without ever blocking on its reader.

`O_NONBLOCK` belongs to the open file, which we share with our caller's shell, so it must not be set on the descriptor
we got. Pipes and terminals are opened anew through `/proc/self/fd` (proc(5)), which gives an open file of our own;
sockets take a flag with each send (send(2)); regular files do not block. Where a reopen is refused (a descriptor of
another user, after su) writes are small and made only when poll(2) says that there is room.

What the reader does not take yet is kept, and whoever produces is asked to pause: a slow reader slows the ranks, as it
would without us. One that takes next to nothing for `PATIENCE` seconds (a stopped terminal) holds nobody up any longer:
what exceeds the bound is then dropped, whole writes at a time, until most of the rest is taken. A full disk drops what
does not fit, and is tried again with every write. What was dropped is counted, said where it is missing, and told by
`losses`.
"""

import contextlib
import errno
import os
import select
import socket
import stat
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep

from rankguard.linux.pipes import enlarge

PAUSE_AT, RESUME_AT, LIMIT = 2 << 20, 256 << 10, 16 << 20
PATIENCE = 5.0
LEAST = 4096
"""Bytes that a reader must take within `PATIENCE`: a page, the least that frees room in a pipe."""
SLOW, GONE = "the reader was too slow", "the reader is gone"
_SMALL = 512
_ROOM = 1 << 20
"""Of a pipe, so that we and its reader wait for one another less often. Who reads what does not change."""
_AT_ONCE = 64
"""Writes that are put together; IOV_MAX is 1024."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def missing(lines: int, size: int) -> bytes:
    """What is written where something was dropped."""
    return f"[rankguard: {lines} lines ({size} bytes) are missing here]\n".encode()


class Console:
    """One output. `write` never blocks; call `flush` when `fileno` is writable and `pending` is true.

    `missing`: what is written where lines and bytes were dropped.
    """

    def __init__(self, fd: int, missing: Callable[[int, int], bytes] = missing) -> None:
        self.gone = False
        self._missing = missing
        self._queue: deque[bytes] = deque()
        self._offset = 0
        """Bytes of the first in the queue that are written."""
        self._size = 0
        self._pausing = self._dropping = False
        self._open_line = self._open_there = False
        """What was taken, and what was written, does not end with a newline."""
        self._lost: dict[str, list[int]] = {}
        """Why → lines and bytes."""
        self._unsaid = [0, 0]
        """Lines and bytes that were dropped and not said yet where they are missing."""
        self._mark: tuple[bytes, list[int]] | None = None
        """What waits in the queue to say so, and what it says."""
        self._moved_at = 0.0
        self._moved = 0
        self._own = os.dup(fd)
        self._socket: socket.socket | None = None
        self._poll: select.poll | None = None
        mode = os.fstat(fd).st_mode
        self._tty = os.isatty(fd)
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISFIFO(mode) or self._tty:
            self._reopen(fd)
            if not self._tty:
                enlarge(self._own, _ROOM)

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

    def columns(self) -> int:
        """Of the terminal that this is; 0 when it is none."""
        if not self._tty:
            return 0
        try:
            return os.get_terminal_size(self._own).columns or 80
        except OSError:
            return 80

    @property
    def pending(self) -> bool:
        return bool(self._queue) and not self.gone

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return sum(lines for lines, _size in self._lost.values())

    def losses(self, name: str) -> list[str]:
        """What was dropped of the output called `name`, for people."""
        return [
            f"{lines} lines of output ({size} bytes) were not shown on {name}: {why}"
            for why, (lines, size) in self._lost.items()
        ]

    def wants_pause(self, now: float) -> bool:
        """Much is waiting and the reader is merely slow: whoever can stop producing should."""
        self._pausing = self._size >= (RESUME_AT if self._pausing else PAUSE_AT)
        return self._pausing and now - self._moved_at < PATIENCE

    def write(self, data: bytes, *, whole: bool = False) -> None:
        """Take whole lines. Written at once when nothing waits, kept or dropped (and counted) otherwise.

        `whole`: to be kept whatever its size (a report).
        """
        if self.gone:
            self._lose(data, GONE)
            return
        self._dropping = self._size + len(data) > LIMIT or (self._dropping and self._size > RESUME_AT)
        if self._dropping and not whole:
            self._lose(data, SLOW)
            return
        if self._unsaid[0]:
            mark = (b"\n" if self._open_line else b"") + self._missing(*self._unsaid)
            self._mark, self._unsaid = (mark, self._unsaid), [0, 0]
            data = mark + data
        if not self._queue:
            self._moved_at = monotonic()
        self._queue.append(data)
        self._size += len(data)
        self._open_line = not data.endswith(b"\n")
        if len(self._queue) == 1:
            self.flush()

    def flush(self) -> None:
        """Write what can be written now."""
        while self._queue and not self.gone:
            offered = min(self._size, self._next())
            try:
                done = self._write()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # the job goes on without it
                self._refused(error)
                return
            self._took(done)
            if done < offered:
                return

    def _next(self) -> int:
        """How many bytes the next write offers."""
        if len(self._queue) <= _AT_ONCE:
            return self._size
        return sum(len(self._queue[n]) for n in range(_AT_ONCE)) - self._offset

    def _write(self) -> int:
        first = memoryview(self._queue[0])[self._offset :] if self._offset else self._queue[0]
        if self._poll is not None:
            return os.write(self._own, first[:_SMALL]) if self._poll.poll(0) else 0
        batch = [first, *(self._queue[n] for n in range(1, min(len(self._queue), _AT_ONCE)))]
        if self._socket is not None:
            return self._socket.sendmsg(batch, (), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return os.writev(self._own, batch) if len(batch) > 1 else os.write(self._own, first)

    def _took(self, done: int) -> None:
        self._size -= done
        self._moved += done
        if self._moved >= LEAST or not self._size:
            self._moved, self._moved_at = 0, monotonic()
        if not self._size:
            self._mark = None
        done += self._offset
        while self._queue and done >= len(self._queue[0]):
            written = self._queue.popleft()
            done -= len(written)
            self._open_there = not written.endswith(b"\n")
        self._offset = done

    def _refused(self, error: OSError) -> None:
        """The reader is gone (EPIPE, EIO), or the disk is full: then the next write may do."""
        full = error.errno in _FULL
        self._open_there = self._open_line = self._open_there or self._offset > 0
        why = GONE if error.errno == errno.EPIPE else error.strerror or str(error)
        self.gone = not full
        self._give_up(why)

    def _give_up(self, why: str) -> None:
        """Count what waits as lost."""
        waiting = b"".join(self._queue)[self._offset :]
        if self._mark is not None and self._mark[0] in waiting:
            mark, unsaid = self._mark
            waiting = waiting.replace(mark, b"", 1)
            self._unsaid = [one + other for one, other in zip(self._unsaid, unsaid, strict=True)]
        self._mark = None
        self._lose(waiting, why)
        self._queue.clear()
        self._size = self._offset = 0

    def _lose(self, data: bytes, why: str) -> None:
        lines = data.count(b"\n")
        for counted in (self._lost.setdefault(why, [0, 0]), self._unsaid):
            counted[0] += lines
            counted[1] += len(data)

    def flush_within(self, seconds: float) -> None:
        """The last flush: wait for a slow reader, but not for ever. What it does not take then is lost."""
        poll = select.poll()
        poll.register(self._own, select.POLLOUT)
        until = monotonic() + 15 * seconds
        self._moved_at = monotonic()
        while self.pending:
            left = min(self._moved_at + seconds, until) - monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                break
            before = self._size
            self.flush()
            if self._size == before and self._poll is None and self._socket is None:
                sleep(0.01)  # room, they say, but none for this write
        if self.pending:
            self._give_up(SLOW)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._own)
        if self._socket is not None:
            self._socket.close()
