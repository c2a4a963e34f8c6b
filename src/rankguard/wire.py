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
_SQUEEZED = 255
"""In the place of the number of descriptors: the JSON is packed by zlib."""
_CREDENTIALS = struct.Struct("3i")

Message = dict[str, Any]


class Wire:
    """One end. `receive` gives whole messages, `send` queues, `flush` writes what the other end takes.

    `most`: bytes of a message from an end that is not trusted; one that sends more is cut off. `frame`: bytes of a message
    over the network (`nodes/link.py`); a longer one is refused by its head, before it is kept. With either no descriptors
    are taken.
    """

    def __init__(self, end: socket.socket, most: int | None = None, frame: int | None = None) -> None:
        end.setblocking(False)
        self._socket = end
        self._most = most
        self.frame = frame
        self._ancillary = socket.CMSG_SPACE(4 * _FDS) if most is None and frame is None else 0
        self._in = bytearray()
        self._fds: deque[int] = deque()
        self._out: deque[tuple[memoryview, Sequence[int]]] = deque()
        self.pending_bytes = 0
        """Queued and not yet taken by the kernel."""
        self.read_bytes = 0
        """Ever received."""
        self._unheard = False
        """The other end takes nothing any more. What it said before is still to be received, so this closes nothing."""
        self.closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def pending(self) -> bool:
        return bool(self._out) and not self.closed

    @property
    def unheard(self) -> bool:
        """The other end takes nothing any more; what it said before can still be received."""
        return self._unheard

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Queue a message and write what can be written. The descriptors are duplicated: the caller keeps its own."""
        if not self._unheard:
            self._queue(packed(message, len(fds)), [os.dup(fd) for fd in fds])

    def send_packed(self, frame: bytes) -> None:
        """`send` of what `packed` made."""
        if not self._unheard:
            self._queue(frame, ())

    def _queue(self, frame: bytes, fds: Sequence[int]) -> None:
        self._out.append((memoryview(frame), fds))
        self.pending_bytes += len(frame)
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
                self.pending_bytes = 0
                return
            self._drop(fds)
            self.pending_bytes -= sent
            if sent < len(data):
                self._out.appendleft((data[sent:], ()))

    @staticmethod
    def _drop(fds: Sequence[int]) -> None:
        for fd in fds:
            os.close(fd)

    def receive(self, most: int | None = None, bytes_most: int | None = None) -> list[tuple[Message, list[int]]]:
        """The messages that are complete, with their descriptors (now the caller's). Sets `closed` at the end.

        More than `most` are left for the next call; nothing but another message makes the socket readable for them.
        No more than `bytes_most` are read, so that one end's flood is spread over turns: the rest keeps the socket
        readable. Raises `ValueError`, `IndexError` or `RecursionError` for what is no message.
        """
        left = bytes_most
        while not self.closed and left != 0:
            read = self._read(_CHUNK if left is None else min(left, _CHUNK))
            if not read:
                break
            left = None if left is None else left - read
        return self._messages(most)

    def receive_one(self) -> Message | None:
        """The next message, and not a byte of what comes after it: that keeps the socket readable. Null: not yet whole.

        Raises as `receive`.
        """
        while not self.closed and (lacking := self._lacking()):
            if not self._read(min(lacking, _CHUNK)):
                break
        found = self._messages(1)
        return found[0][0] if found else None

    def _lacking(self) -> int:
        """Bytes until the first message, or its head, is whole."""
        if len(self._in) < _HEAD.size:
            return _HEAD.size - len(self._in)
        return self._end() - len(self._in)

    def _end(self) -> int:
        """Where the first message ends. Its head is whole."""
        size: int = _HEAD.unpack_from(self._in)[0]
        if self.frame is not None and size > self.frame:
            raise ValueError(f"a message of {size:,} bytes, and {self.frame:,} are allowed")
        return _HEAD.size + size

    def _read(self, most: int) -> int:
        """Bytes read, 0 when there is nothing or the end."""
        try:
            data, ancillary, _flags, _address = self._socket.recvmsg(most, self._ancillary, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            data, ancillary = b"", []
        if not data:
            self.closed = True
            return 0
        self._in += data
        self.read_bytes += len(data)
        if self._most is not None and len(self._in) > self._most:
            self.closed = True
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(raw[: len(raw) - len(raw) % received.itemsize])
                self._fds.extend(received)
        return len(data)

    def _messages(self, most: int | None) -> list[tuple[Message, list[int]]]:
        found: list[tuple[Message, list[int]]] = []
        while len(self._in) >= _HEAD.size and len(found) != most:
            end, count = self._end(), self._in[_HEAD.size - 1]
            if len(self._in) < end:
                break
            body: bytes | bytearray = self._in[_HEAD.size : end]
            if count == _SQUEEZED and self.frame is not None:
                body, count = _unsqueezed(body, self.frame), 0
            message = json.loads(body)
            del self._in[:end]
            found.append((message, [self._fds.popleft() for _ in range(count)]))
        return found

    def flush_within(self, seconds: float) -> None:
        """Write what is queued, waiting for the other end at most so long."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        while self.pending and poll.poll(seconds * 1000):
            self.flush()

    def shut(self) -> None:
        """Say that nothing more will be sent; what comes is still received. What waits is lost: flush before."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other end is gone

    def close(self) -> None:
        self.closed = True
        self._socket.close()
        for _data, fds in self._out:
            self._drop(fds)
        self._drop(self._fds)
        self._out.clear()
        self._fds.clear()
        self.pending_bytes = 0


def packed(message: Message, fds: int = 0, *, squeezed: bool = False) -> bytes:
    """A message as it travels, of that many descriptors. One text can so be sent to many ends.

    `squeezed`: made small, for ends that have a `frame`; of use for what is long and goes to many.
    """
    body = json.dumps(message, separators=(",", ":")).encode()
    if squeezed:
        import zlib  # nothing else needs it

        body, fds = zlib.compress(body, 1), _SQUEEZED
    return _HEAD.pack(len(body), fds) + body


def _unsqueezed(body: bytes | bytearray, most: int) -> bytes:
    """Raises `ValueError` when that is more than `most` bytes, or is none."""
    import zlib

    unpacking = zlib.decompressobj()
    try:
        whole = unpacking.decompress(body, most)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not unpacking.eof:
        raise ValueError(f"a message of more than {most:,} bytes, or cut off")
    return whole


def peer_uid(end: socket.socket) -> int:
    """The user id of whoever has the other end, as the kernel says (SO_PEERCRED, unix(7))."""
    _pid, uid, _gid = _CREDENTIALS.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)
