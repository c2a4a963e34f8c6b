"""A question to a numeric address, by TCP alone or by HTTP, without blocking: one connection in the driver's selector.

The other side may accept and never answer, answer byte by byte, or send without end: it is read as it comes, `MOST` bytes
of it, and its owner (`asking.py`) gives up in time. A status decides; for the words behind it `WORDS_S` more are waited.
Names that have to be looked up and TLS are `farask.py`'s. Sources: connect(2) (EINPROGRESS), tcp(7).
"""

import contextlib
import errno
import os
import socket
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector

from rankguard.linux import http
from rankguard.linux.asking import Answer, Done
from rankguard.linux.target import Target

WORDS_S = 0.2
_READ = 4096


class NearAsk:
    """One question. The addresses of a target are tried one after the other; the first that accepts is asked."""

    def __init__(self, target: Target, selector: BaseSelector, priority: int, done: Done) -> None:
        """Raises `OSError` when no socket can be made; nothing is open then."""
        self.due_at: float | None = None
        self._target, self._selector, self._priority, self._done = target, selector, priority, done
        self._left = list(target.addresses)
        self._unsent = http.request(target) if target.scheme == "http" else b""
        self._got = b""
        self._heard = Answer(False, "no answer yet")
        self._socket: socket.socket | None = None
        self._failed: int | None = None
        self._connect()

    def close(self) -> Answer:
        """Given up; what a server has said by now counts."""
        self._hang_up()
        known = http.answer(self._got, ended=False) if self._got else None
        return known or self._heard

    # ── Connecting ───────────────────────────────────────────────────────────────────────────────────────────────

    def _connect(self) -> None:
        """To the next address. That it is refused, too, is told by the selector: nobody hears of it in here."""
        address = self._left.pop(0)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            end = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT and self._left:  # a kernel without IPv4 or IPv6
                return self._connect()
            raise
        failed = end.connect_ex((address, self._target.port))
        self._failed = failed if failed not in (0, errno.EINPROGRESS) else None
        self._socket = end
        self._heard = Answer(False, "no connection yet")
        self._selector.register(end, EVENT_WRITE, (self._priority, self._on_connected))
        return None

    def _on_connected(self, now: float) -> None:
        end = self._socket
        if end is None:
            return
        failed = self._failed or end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not failed and _is_itself(end):
            failed = errno.ECONNREFUSED
        if failed:
            self._refused(failed, now)
        elif self._target.scheme == "tcp":
            self._tell(Answer(True, "accepts connections"), now)
        else:
            self._heard = Answer(False, "accepts connections, and has not answered")
            self._selector.modify(end, EVENT_WRITE | EVENT_READ, (self._priority, self._on_news))
            self._on_news(now)

    def _refused(self, failed: int, now: float) -> None:
        self._hang_up()
        why = Answer(False, os.strerror(failed)[:1].lower() + os.strerror(failed)[1:])
        if not self._left:
            self._tell(why, now)
            return
        try:
            self._connect()
        except OSError:
            self._tell(why, now)

    # ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_news(self, now: float) -> None:
        end = self._socket
        if end is None:
            return
        try:
            if self._unsent:
                with contextlib.suppress(BlockingIOError):
                    self._unsent = self._unsent[end.send(self._unsent, socket.MSG_NOSIGNAL) :]
                    if not self._unsent:
                        self._selector.modify(end, EVENT_READ, (self._priority, self._on_news))
            data = end.recv(_READ)
        except BlockingIOError:
            return
        except OSError as error:
            known = http.answer(self._got, ended=True) if self._got else None
            self._tell(known or Answer(False, f"broke the connection: {error.strerror}"), now)
            return
        self._got += data
        said = http.answer(self._got, ended=not data or len(self._got) >= http.MOST)
        if said is None:
            return
        self._heard = said
        if not data or said.heard == http.GARBAGE or len(self._got) >= http.MOST:
            self._tell(said, now)
        elif self.due_at is None:
            self.due_at = now + WORDS_S

    def _tell(self, answer: Answer, now: float) -> None:
        self._hang_up()
        self._done(answer, now)

    def _hang_up(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None


def _is_itself(end: socket.socket) -> bool:
    """Where nobody listens on a port of the ephemeral range, a socket may be given that port and connect to itself."""
    try:
        return bool(end.getsockname()[:2] == end.getpeername()[:2])
    except OSError:
        return True
