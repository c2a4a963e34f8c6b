"""One message off a `multiprocessing.connection.Connection`, taken as it comes and never waited for.

`Connection.recv()` blocks for the rest of a message once its first byte is there, so a writer that is killed in mid-message
hangs its reader for ever where anybody else still holds the writing end (facts/spikes.md 7). Here each read takes what is
there. Exactly one message is read and not a byte more: the pipe's owner goes on using it.

The frame (multiprocessing/connection.py, `_send_bytes`): 4 bytes, big-endian and signed, are the length; -1 means that 8
bytes with the length follow; then the pickle. Nothing is unpickled here.
"""

import os
import select
import struct
from collections.abc import Iterator

_LENGTH = struct.Struct("!i")
_LONG_LENGTH = struct.Struct("!Q")
_CHUNK = 1 << 20  # a larger read would only reserve memory: a pipe holds 64 KiB, a socket some hundred


class BadFrame(ValueError):
    """The bytes are no message of `multiprocessing`, or end in the middle of one."""


class FrameReader:
    """Reads one message from `fd`, a pipe or a stream socket in blocking mode. The fd's flags are left as they are."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.message: bytearray | None = None
        """The message, once all of it is there."""
        self.received = 0
        """Bytes taken so far, the length included."""
        self._header = bytearray()
        self._body = bytearray()
        self._size: int | None = None
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    @property
    def size(self) -> int | None:
        """Bytes of the message, once its length is known."""
        return self._size

    def take(self) -> bool:
        """Take all that is there; true once the message is complete.

        Raises `EOFError` when the pipe has ended before the first byte, `BadFrame` when it ended within the message or
        carries something else.
        """
        for wanted in self._wanted():
            # Only a read that is known to find something: it then returns what is there and does not wait for the rest.
            if not self._poll.poll(0):
                return False
            try:
                data = os.read(self.fd, wanted)
            except ConnectionResetError:  # a socket whose other end was closed with something unread in it
                data = b""
            if not data:
                raise self._ended()
            self.received += len(data)
            (self._header if self._size is None else self._body).extend(data)
        self.message = self._body
        return True

    def _wanted(self) -> Iterator[int]:
        """How many bytes to ask for next, until the message is complete."""
        while self._size is None:
            if len(self._header) < _LENGTH.size:
                yield _LENGTH.size - len(self._header)
                continue
            (size,) = _LENGTH.unpack_from(self._header)
            if size >= 0:
                self._size = size
            elif size < -1:
                raise BadFrame("its pipe carries something that is no message of multiprocessing")
            elif len(self._header) < _LENGTH.size + _LONG_LENGTH.size:
                yield _LENGTH.size + _LONG_LENGTH.size - len(self._header)
            else:
                (self._size,) = _LONG_LENGTH.unpack_from(self._header, _LENGTH.size)
        while len(self._body) < self._size:
            yield min(self._size - len(self._body), _CHUNK)

    def _ended(self) -> Exception:
        if self.received == 0:
            return EOFError("its pipe ended before a message came")
        whole = "" if self._size is None else f" of {self._size}"
        return BadFrame(f"its pipe ended in the middle of a message, after {len(self._body)}{whole} bytes")
