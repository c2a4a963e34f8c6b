"""The wire between front and supervisor: JSON messages over a stream socket, file descriptors beside them.

A message is a length (4 bytes), the number of descriptors that belong to it (1 byte) and JSON. The supervisor's side
never blocks: what the front does not take is kept; the front's side blocks only where its caller waits.
"""

import array
import json
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

_HEAD = struct.Struct(">IB")
_CHUNK = 256 << 10
_FDS = 250  # SCM_MAX_FD is 253 (unix(7))
_CREDENTIALS = struct.Struct("3i")

Message = dict[str, Any]


class Wire:
    """One end. `receive` gives whole messages, `send` queues, `flush` writes what the other end takes.

    `most`: bytes of a message from an end that is not trusted; one that sends more is cut off, and descriptors are not taken.
    """

    def __init__(self, end: socket.socket, most: int | None = None) -> None:
        end.setblocking(False)
        self._socket = end
        self._most = most
        self._in = bytearray()
        self._fds: deque[int] = deque()
        self._out: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._unheard = False
        """The other end takes nothing any more. What it said before is still to be received, so this closes nothing."""
        self.closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def pending(self) -> bool:
        return bool(self._out) and not self.closed

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Queue a message and write what can be written. The descriptors are duplicated: the caller keeps its own."""
        if self._unheard:
            return
        body = json.dumps(message, separators=(",", ":")).encode()
        own = [os.dup(fd) for fd in fds]
        self._out.append((memoryview(_HEAD.pack(len(body), len(own)) + body), own))
        self.flush()

    def flush(self) -> None:
        while self._out and not self.closed:
            data, fds = self._out.popleft()
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._socket.sendmsg([data[:_CHUNK]], ancillary, socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                self._out.appendleft((data, fds))
                return
            except OSError:
                self._unheard = True
                for _data, unsent in [(data, fds), *self._out]:
                    self._drop(unsent)
                self._out.clear()
                return
            self._drop(fds)
            if sent < len(data):
                self._out.appendleft((data[sent:], ()))

    @staticmethod
    def _drop(fds: Sequence[int]) -> None:
        for fd in fds:
            os.close(fd)

    def receive(self, most: int | None = None) -> list[tuple[Message, list[int]]]:
        """The messages that are complete, with their descriptors (now the caller's). Sets `closed` at the end.

        More than `most` are left for the next call; nothing but another message makes the socket readable for them.
        """
        while not self.closed:
            try:
                data, ancillary, _flags, _address = self._socket.recvmsg(
                    _CHUNK, socket.CMSG_SPACE(4 * _FDS) if self._most is None else 0, socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data, ancillary = b"", []
            if not data:
                self.closed = True
                break
            self._in += data
            if self._most is not None and len(self._in) > self._most:
                self.closed = True
            for level, kind, raw in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received = array.array("i")
                    received.frombytes(raw[: len(raw) - len(raw) % received.itemsize])
                    self._fds.extend(received)
        return self._messages(most)

    def _messages(self, most: int | None) -> list[tuple[Message, list[int]]]:
        found: list[tuple[Message, list[int]]] = []
        while len(self._in) >= _HEAD.size and len(found) != most:
            size, count = _HEAD.unpack_from(self._in)
            end = _HEAD.size + size
            if len(self._in) < end:
                break
            message = json.loads(self._in[_HEAD.size : end])
            del self._in[:end]
            found.append((message, [self._fds.popleft() for _ in range(count)]))
        return found

    def flush_within(self, seconds: float) -> None:
        """Write what is queued, waiting for the other end at most so long."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        while self.pending and poll.poll(seconds * 1000):
            self.flush()

    def close(self) -> None:
        self.closed = True
        self._socket.close()
        for _data, fds in self._out:
            self._drop(fds)
        self._drop(self._fds)
        self._out.clear()
        self._fds.clear()


def peer_uid(end: socket.socket) -> int:
    """The user id of whoever has the other end, as the kernel says (SO_PEERCRED, unix(7))."""
    _pid, uid, _gid = _CREDENTIALS.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)
