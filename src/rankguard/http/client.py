"""One connection to the page server: bytes in and out, both bounded, and its deadline. Knows no pages."""

import contextlib
import socket
from collections import deque

from rankguard.http.request import MOST

IN, OUT = 1, 4
"""EPOLLIN and EPOLLOUT (epoll_ctl(2))."""
CHUNK = 16384
_DRAINED = 1 << 20
"""Bytes of a refused client that are read and thrown away: a socket that is closed with unread bytes resets, and the
client would not see its answer."""


class Client:
    """`deadline`: when it is dropped. `stream`: it is told events as they come. `asked`: it waits for the supervisor.
    `last`: what is being sent is the last. `ended`: it will ask for nothing more, and may still read.
    """

    __slots__ = ("asked", "closing", "deadline", "drained", "ended", "fd", "inbox", "last", "out", "pending", "socket",
                 "stream", "watched")  # fmt: skip

    def __init__(self, end: socket.socket, deadline: float) -> None:
        self.socket, self.fd, self.deadline = end, end.fileno(), deadline
        self.inbox = bytearray()
        self.out: deque[memoryview] = deque()
        self.pending = self.drained = 0
        self.stream = self.asked = self.last = self.closing = self.ended = False
        self.watched = IN

    def receive(self) -> bool:
        """Take what has come, a little at a time; false when the connection is of no use any more."""
        try:
            data = self.socket.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        if self.closing:
            self.drained += len(data)
            return bool(data) and self.drained < _DRAINED
        if not data:
            self.ended = True
            return not self.stream and bool(self.inbox or self.out or self.asked)
        if not self.stream:  # what a reader of events says is of no interest
            self.inbox += data
        return True

    def send(self, *parts: bytes) -> None:
        for part in parts:
            if part:
                self.out.append(memoryview(part))
                self.pending += len(part)

    def flush(self) -> bool:
        """Write what it takes; false when it takes nothing any more."""
        try:
            while self.out:
                sent = self.socket.sendmsg([*self.out][:16])
                self.pending -= sent
                while sent:
                    first = self.out.popleft()
                    if sent < len(first):
                        self.out.appendleft(first[sent:])
                    sent -= min(sent, len(first))
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return True

    @property
    def wanted(self) -> int:
        """What to wait for. Who has not taken its answer is not listened to: that bounds what it may ask for."""
        if self.out:
            return OUT
        return 0 if (self.ended and not self.closing) or len(self.inbox) > MOST + CHUNK else IN

    def say_goodbye(self) -> None:
        """All is said: the client sees the end, and what it sends is thrown away until it ends, too."""
        self.closing = True
        self.inbox.clear()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
