"""The line from a rank to its supervisor: one connected datagram socket, as a bare descriptor.

Bare, because it lives in somebody else's program: a socket object would close a number that the program has closed and
used again, obeys `socket.setdefaulttimeout`, and costs the import of `socket`. `os.write` on a connected datagram
socket sends one message. Each use first makes sure that the descriptor is still ours.

Not a protocol: what is said is `this_rank.py`'s and `lastwords.py`'s.
"""

import os
import time

HIGH = 100
"""Where the descriptor is put if the limit allows, so that the program's own numbers are those it is used to."""


class Line:
    """Sends whole messages, never blocking longer than asked. Safe in threads, signal handlers and after a fork."""

    def __init__(self, address: str) -> None:
        """`address` is a path, or `@name` for the abstract namespace; empty for nobody."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._fd, self._identity = -1, (0, 0)
        if not address:
            return
        try:
            self._connect()
        except (OSError, ImportError):
            pass  # tried again when there is something to say

    def __bool__(self) -> bool:
        return bool(self._address)

    def send(self, message: bytes, wait: float = 0.0, passed: int | None = None) -> str:
        """`sent`, `full` (not even after `wait` seconds) or `gone` (nobody listens). `passed` travels as a descriptor.

        Raises `OSError` for what is wrong with us: no descriptor left, a message too long.
        """
        if not self._address:
            return "gone"
        deadline = time.monotonic() + wait
        for attempt in (1, 2):
            try:
                if attempt == 2 or not self._is_ours():
                    self._connect()
                return self._write(message, deadline, passed)
            except (ConnectionError, FileNotFoundError):  # the supervisor is gone, or has opened a new socket
                continue
        return "gone"

    def close(self) -> None:
        """Closes the descriptor if it is still ours."""
        if self._is_ours():
            os.close(self._fd)
        self._fd = -1

    def _write(self, message: bytes, deadline: float, passed: int | None) -> str:
        while True:
            try:
                if passed is None:
                    os.write(self._fd, message)
                else:
                    self._write_passing(message, passed)
                return "sent"
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    return "full"
                import select

                poll = select.poll()  # not SO_SNDTIMEO: a profiler's signals would restart its clock for ever (PEP 475)
                poll.register(self._fd, select.POLLOUT)  # of a connected datagram socket: the peer's queue has room
                poll.poll(left * 1000)

    def _write_passing(self, message: bytes, passed: int) -> None:
        import array
        import socket

        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, fileno=self._fd)
        try:
            sock.setblocking(False)  # it is; but the object has been told otherwise by setdefaulttimeout
            sock.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [passed]))])
        finally:
            sock.detach()

    def _connect(self) -> None:
        import _socket  # the C half of `socket`: 0.4 ms instead of 5
        import select  # noqa: F401  # now: when it is needed, there may be no descriptor left to load it with

        self.close()
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        try:
            sock.settimeout(0)
            sock.connect(self._address)
            fd = out_of_the_way(sock.fileno())
        except BaseException:
            sock.close()
            raise
        if fd == sock.fileno():
            sock.detach()
        else:
            sock.close()
        state = os.fstat(fd)
        self._fd, self._identity = fd, (state.st_dev, state.st_ino)

    def _is_ours(self) -> bool:
        """The program may have closed all descriptors and opened others under the same numbers."""
        if self._fd < 0:
            return False
        try:
            state = os.fstat(self._fd)
        except OSError:
            return False
        return (state.st_dev, state.st_ino) == self._identity


def out_of_the_way(fd: int) -> int:
    """A copy of the descriptor under a high number; itself where that cannot be."""
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH)
    except OSError:  # EINVAL: the limit on descriptors is lower; EMFILE: none left
        return fd
