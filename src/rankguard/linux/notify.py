"""The receiving end of systemd's notify protocol (sd_notify(3)): one datagram socket a rank.

Reads and checks; decides nothing. A datagram is `KEY=VALUE` lines; unknown keys are ignored. Each message comes back
as plain values, with the sender's pid (SO_PASSCRED: the kernel's word). Whether that sender belongs to the rank is
asked of the caller once a pid, since a descendant may speak for its rank and be gone by the time we look.

Bounded on every side: a batch of datagrams a call, a datagram's size, a payload's size, one descriptor a message.
"""

import array
import contextlib
import json
import math
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from rankguard.record import Record

DATAGRAM = 128 << 10
PAYLOAD = 64 << 20
BATCH = 64
_LONGEST = 366 * 86400.0
_MAX_ERRNO = 4096  # MAX_ERRNO is 4095 (include/linux/err.h)
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * 8)


class Message(Record):
    """One datagram. A field that is null was not in it."""

    sender: int
    ready: bool = False
    payload: bytes | None = None
    """JSON as it came; a large one stays in `payload_fd`."""
    payload_fd: int | None = None
    payload_size: int = 0
    status: str | None = None
    progress: tuple[float, float | None, str | None] | None = None
    errno: int | None = None
    alive: bool = False
    extend_s: float | None = None
    stopping: bool = False
    failed: Any = None
    exception: Any = None
    broken: str | None = None
    """Why a key that matters could not be understood."""


class Garbage(Record):
    """A datagram that is no message, or from a foreign sender: ignored, and said once in a while."""

    why: str


class NotifySocket:
    """One rank's socket, bound at `path` (at most 107 bytes, unix(7)). Raises `OSError` when it cannot be."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._socket.bind(path if not path.startswith("@") else "\0" + path[1:])
        except OSError:
            self._socket.close()
            raise
        self._known: dict[int, bool] = {}

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self, belongs: Callable[[int, int], bool], limit: int = BATCH) -> tuple[list[Message | Garbage], bool]:
        """Up to `limit` datagrams and whether there may be more. `belongs(pid, uid)` is asked once a sender."""
        found: list[Message | Garbage] = []
        for _ in range(limit):
            try:
                data, ancillary, flags, _address = self._socket.recvmsg(DATAGRAM, _ROOM, socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return found, False
            except OSError as error:
                found.append(Garbage(f"was not readable: {error.strerror}"))
                return found, False
            pid, uid, fds = _unpack(ancillary)
            message = self._understand(data, flags, pid, uid, fds, belongs)
            kept = message.payload_fd if isinstance(message, Message) else None
            for fd in fds:
                if fd != kept:
                    os.close(fd)
            found.append(message)
        return found, True

    def _understand(
        self, data: bytes, flags: int, pid: int, uid: int, fds: list[int], belongs: Callable[[int, int], bool]
    ) -> Message | Garbage:
        if pid not in self._known:
            if len(self._known) > 256:
                self._known.clear()
            self._known[pid] = belongs(pid, uid)
        if not self._known[pid]:
            return Garbage(f"from pid {pid} (uid {uid}), which is not of this rank")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            return Garbage(f"larger than {DATAGRAM >> 10} KiB, or with too many descriptors")
        return parse(data, pid, fds)

    def close(self) -> None:
        self._socket.close()
        if not self.path.startswith("@"):
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int, list[int]]:
    pid = uid = 0
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and len(data) >= _CREDENTIALS.size:
            pid, uid, _gid = _CREDENTIALS.unpack_from(data)
        elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
            fds.extend(received)
    return pid, uid, fds


def parse(data: bytes, sender: int, fds: list[int]) -> Message | Garbage:
    """A datagram's text as a `Message`. Values that cannot be understood are `Garbage`, or `broken` where they matter."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return Garbage("not UTF-8")
    pairs = dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
    if not pairs:
        return Garbage("no KEY=VALUE line")
    values: dict[str, Any] = {"sender": sender}
    try:
        for key, value in pairs.items():
            reader = _KEYS.get(key)
            if reader is not None:
                values |= reader(value)
    except (ValueError, OverflowError, RecursionError) as error:
        return Garbage(f"{key}: {str(error)[:200]}")
    if "announced" in values:
        values |= _large_payload(values.pop("announced"), fds)
    return Message(**values)


def _payload(value: str) -> dict[str, Any]:
    try:
        json.loads(value)
    except (ValueError, RecursionError) as error:
        return {"broken": f"the payload of its readiness is not JSON: {error}"}
    return {"payload": value.encode()}


def _large_payload(size: int, fds: list[int]) -> dict[str, Any]:
    """A payload in a memfd. Its size is asked of the file, not of the sender."""
    if not fds:
        return {"broken": f"it announced a payload of {size} bytes and sent none"}
    try:
        real = os.fstat(fds[0]).st_size
    except OSError as error:
        return {"broken": f"the payload of its readiness was not readable: {error.strerror}"}
    if real > PAYLOAD:
        return {"broken": f"the payload of its readiness has {real} bytes; {PAYLOAD} are allowed"}
    return {"payload_fd": fds[0], "payload_size": real}


def _progress(value: str) -> dict[str, Any]:
    amounts, _, unit = value.partition(" ")
    done, _, total = amounts.partition("/")
    return {"progress": (_finite(done), _finite(total) if total else None, unit.strip()[:80] or None)}


def _finite(value: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"not a number: {value[:40]}")
    return number


def _positive(value: str) -> float:
    number = int(value[:40])
    if number <= 0:
        raise ValueError("not positive")
    return min(number / 1e6, _LONGEST)


def _errno(value: str) -> dict[str, Any]:
    number = int(value[:40])
    if not 0 <= number < _MAX_ERRNO:
        return {"broken": f"it reported errno {number}, which is none"}
    return {"errno": number}


_KEYS: dict[str, Callable[[str], dict[str, Any]]] = {
    "READY": lambda value: {"ready": value.strip() == "1"},
    "STATUS": lambda value: {"status": value[:1024]},
    "ERRNO": _errno,
    "WATCHDOG": lambda value: {"alive": value.strip() == "1"},
    "EXTEND_TIMEOUT_USEC": lambda value: {"extend_s": _positive(value)},
    "STOPPING": lambda value: {"stopping": value.strip() == "1"},
    "X_RANKGUARD_PAYLOAD": _payload,
    "X_RANKGUARD_PAYLOAD_SIZE": lambda value: {"announced": int(value[:40])},
    "X_RANKGUARD_PROGRESS": _progress,
    "X_RANKGUARD_FAILED": lambda value: {"failed": json.loads(value)},
    "X_RANKGUARD_EXCEPTION": lambda value: {"exception": json.loads(value)},
}
