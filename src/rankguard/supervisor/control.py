"""The control socket of a live run, in the supervisor: other terminals ask what the front may ask, and change nothing.

An AF_UNIX stream in the run's private folder, mode 0600; whoever has another user id (root apart) is not listened to.
The wire's format (`../wire.py`). A client costs nothing: at most `CLIENTS` at once, the oldest gives way to a new one; an
ask is small; one that sends garbage, or asks on without taking its answers, is cut off. Its end of life: closed with the
job; if we are killed, the warden removes the folder. Read next: `desk.py` (the answers), `../runs/live.py` (the other end).
"""

import contextlib
import os
import socket
from collections.abc import Callable
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector

from rankguard.linux.files import devnull
from rankguard.private import CONTROL
from rankguard.wire import Message, Wire, peer_uid

CLIENTS = 8
ASK_BYTES = 4096
PRIORITY = 5
"""Behind all news of ranks."""
ASKS = frozenset({"report", "progress", "stacks", "rules"})
"""`rules`: what is to be hidden in the ranks' output, for a process of ours that shows it (`cli/htmlfile.py`)."""

Ask = Callable[[Message, float, Callable[[Message], None]], None]


class _Client:
    __slots__ = ("watched", "wire")

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.watched = EVENT_READ


class Control:
    """`folder`: the private one; with a leading `@` there is none, and the socket's name is abstract. `ask` is the desk's.

    `few_fds`: the ranks need them all.
    """

    def __init__(self, folder: str, selector: BaseSelector, ask: Ask, *, few_fds: bool = False) -> None:
        self._selector, self._ask = selector, ask
        self._clients: list[_Client] = []
        self.address = f"{folder}/{CONTROL}"
        """Where it listens; null when it cannot."""
        self.error: str | None = None
        self._spare = -1
        self._listening: socket.socket | None = None
        if few_fds:
            self.error = "no other terminal can ask of this run: too few file descriptors (`ulimit -n`)"
            return
        try:
            self._spare = devnull()
            self._listening = _listen(self.address)
        except OSError as error:
            self.error = f"no other terminal can ask of this run: `{self.address}`: {error.strerror or error}"
            return
        selector.register(self._listening, EVENT_READ, (PRIORITY, self._on_connection))

    def close(self) -> None:
        """Nobody is listened to any more. What is on its way to a client is sent as far as it takes it now."""
        for client in list(self._clients):
            client.wire.flush()
            self._drop(client)
        if self._listening is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._listening)
            self._listening.close()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _on_connection(self, now: float) -> None:
        assert self._listening is not None
        try:
            end, _address = self._listening.accept()
        except BlockingIOError:
            return
        except OSError:
            self._refuse()
            return
        if not _is_ours(end):
            end.close()
            return
        if len(self._clients) >= CLIENTS:
            self._drop(self._clients[0])
        client = _Client(Wire(end, most=ASK_BYTES))
        self._clients.append(client)
        self._selector.register(client.wire, EVENT_READ, (PRIORITY, partial(self._on_news, client)))

    def _refuse(self) -> None:
        """No descriptor is free: take the spare one to turn the caller away, for it would wake us for ever."""
        assert self._listening is not None
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        with contextlib.suppress(OSError):
            self._listening.accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = devnull()

    def _on_news(self, client: _Client, now: float) -> None:
        if client not in self._clients:
            return
        wire = client.wire
        wire.flush()
        try:
            messages = wire.receive()
        except (ValueError, IndexError, RecursionError):  # no JSON, or descriptors that did not come
            self._drop(client)
            return
        for message, fds in messages:
            for fd in fds:
                os.close(fd)
            if wire.pending or not isinstance(message, dict):
                wire.closed = True
            if not wire.closed:
                self._answer(client, message, now)
        self._watch(client)

    def _answer(self, client: _Client, message: Message, now: float) -> None:
        asked = message.get("do")
        if not isinstance(asked, str) or asked not in ASKS:
            self._reply(client, {"is": "error", "statement": f"`{str(asked)[:40]}` cannot be asked here"})
        else:
            self._ask(message, now, partial(self._reply, client))

    def _reply(self, client: _Client, message: Message) -> None:
        """Perhaps later than the ask, when the client may be gone."""
        if client in self._clients:
            client.wire.send(message)
            self._watch(client)

    def _watch(self, client: _Client) -> None:
        if client.wire.closed:
            self._drop(client)
            return
        wanted = EVENT_WRITE if client.wire.pending else EVENT_READ
        if wanted != client.watched:
            client.watched = wanted
            self._selector.modify(client.wire, wanted, (PRIORITY, partial(self._on_news, client)))

    def _drop(self, client: _Client) -> None:
        self._clients.remove(client)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.wire)
        client.wire.close()


def _listen(address: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if address.startswith("@"):
            listening.bind("\0" + address[1:])
        else:
            before = os.umask(0o177)
            try:
                listening.bind(address)
            finally:
                os.umask(before)
        listening.listen(64)
    except OSError:
        listening.close()
        raise
    return listening


def _is_ours(end: socket.socket) -> bool:
    """A name that is abstract has no mode to keep others out."""
    return peer_uid(end) in (os.getuid(), 0)
