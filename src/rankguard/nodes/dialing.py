"""The agent's end until it is a link: looks up the name, connects, proves, and begins again when that fails.

Nothing blocks. Not here: when to give up (`--join-timeout` is the owner's). Read next: `link.py`, `tcp.py`.
"""

import errno
import json
import os
import select
import socket
import time
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Any

from rankguard._version import __version__
from rankguard.nodes.ends import NEVER_SAID, Clock, Link, clipped
from rankguard.nodes.joining import PROVE_S, UNPROVEN_BYTES
from rankguard.nodes.proof import AGENT, COORDINATOR, is_nonce, nonce, prove, proven
from rankguard.nodes.tcp import Found, Lookup, connecting, local_of, met_itself, peer_of, shown
from rankguard.wire import Message, Wire

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
CONNECT_S = 5.0
"""For one address; the kernel itself would take two minutes."""
_UNDER_WAY = (0, errno.EINPROGRESS)


class Dialing:
    """`watch` it with a selector, and call `wake` when it is ready and when `next_wake` has come. Then look at `link`;
    `refused`: what a coordinator said that has proven that it is ours, so that to try again is of no use (`hint`: what
    to do); and, for messages, `last_error`. It gives up by nothing else; `close` ends it.

    The addresses of the name are tried one after the other, then all again after a pause of 0.05 s that doubles to 1 s.
    The name is looked up each time: that of a pod may come late.
    """

    def __init__(self, host: str, port: int, token: str, hello: Message, clock: Clock = time.monotonic) -> None:
        self._host, self._port, self._token, self._clock = host, port, token, clock
        self._text = json.dumps(hello, separators=(",", ":"))
        self._selector: BaseSelector | None = None
        self._data: Any = None
        self._watched: tuple[int, int] | None = None
        self._begun = clock()
        self._until: float | None = self._begun
        self._pause = FIRST_PAUSE
        self._lookup: Lookup | None = None
        self._addresses: list[Found] = []
        self._try: _Try | None = None
        self._error = ""
        self._over = False
        self.link: Link | None = None
        self.refused: str | None = None
        self.hint = ""

    @property
    def last_error(self) -> str:
        """Why there is no link yet, in one line: `connection refused by 10.0.0.1:29500 (tried for 12 s)`."""
        return f"{self._error} (tried for {self._clock() - self._begun:.0f} s)" if self._error else ""

    def watch(self, selector: BaseSelector, callback: Any) -> None:
        """Be registered with a selector from now on, `callback` being its `data`; what is waited for changes."""
        self._unwatch()
        self._selector, self._data = selector, callback
        self._watch()

    def next_wake(self) -> float | None:
        """The instant at which `wake` is due even if nothing is ready; null when only readiness can help."""
        return None if self._over else self._until

    def wake(self, now: float) -> None:
        """Go on as far as it goes without waiting."""
        while not self._over and self._step(now):
            pass
        self._watch()

    def close(self) -> None:
        """Give up. A link that was made is the caller's."""
        self._over = True
        self._unwatch()
        if self._try is not None:
            self._try.close()
            self._try = None
        if self._lookup is not None:
            self._lookup.close()
            self._lookup = None

    def _step(self, now: float) -> bool:
        """Whether to go on at once."""
        if self._try is not None:
            return self._tried(self._try, now)
        if self._lookup is not None:
            return self._looked_up(self._lookup, now)
        if self._addresses:
            self._try = _Try(self._addresses.pop(0), self._token, self._text, self._clock, now)
            self._until = self._try.until
            return True
        if self._until is not None and now < self._until:
            return False
        self._lookup, self._until = Lookup(self._host, self._port), now + CONNECT_S
        return True

    def _looked_up(self, lookup: Lookup, now: float) -> bool:
        found = lookup.take()
        if found is None:
            if self._until is not None and now >= self._until:  # the resolver has bounds of its own
                self._error, self._until = f"no answer to what the address of `{self._host}` is", None
            return False
        self._unwatch()
        lookup.close()
        self._lookup = None
        if isinstance(found, str):
            self._error = f"there is no address of `{self._host}`: {found}"
            return self._rest(now)
        self._addresses = found
        return True

    def _tried(self, each: "_Try", now: float) -> bool:
        each.step(now)
        self._until = each.until
        if each.link is not None or each.refused is not None:
            self._unwatch()
            self.link, self.refused, self.hint = each.link, each.refused, each.hint
            self.close()
            return False
        if each.error is None:
            return False
        self._error = each.error
        self._unwatch()
        each.close()
        self._try = None
        return True if self._addresses else self._rest(now)

    def _rest(self, now: float) -> bool:
        self._until, self._pause = now + self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return False

    def _watch(self) -> None:
        if self._selector is None or self._over:
            return
        wanted = None
        if self._try is not None:
            wanted = (self._try.fileno(), self._try.events)
        elif self._lookup is not None and self._lookup.fileno() >= 0:
            wanted = (self._lookup.fileno(), EVENT_READ)
        if wanted != self._watched:
            self._unwatch()
            if wanted is not None:
                self._selector.register(*wanted, self._data)
            self._watched = wanted

    def _unwatch(self) -> None:
        """Before a descriptor is closed: its number may be the next one's."""
        if self._watched is not None and self._selector is not None:
            self._selector.unregister(self._watched[0])
        self._watched = None


class _Try:
    """One connection to one address. It is over when it has a `link`, is `refused`, or has an `error`.

    `until`: when what is waited for has taken too long.
    """

    def __init__(self, found: Found, token: str, text: str, clock: Clock, now: float) -> None:
        self._token, self._text, self._clock = token, text, clock
        self._where = shown(str(found[1][0]), int(found[1][1]))
        self._connecting: socket.socket | None = None
        self._wire: Wire | None = None
        self._peer = self._local = ""
        self._challenge: str | None = None
        self._mine = nonce()
        self.until = now + CONNECT_S
        self.link: Link | None = None
        self.refused: str | None = None
        self.hint = ""
        self.error: str | None = None
        try:
            self._connecting, number = connecting(*found)
        except OSError as error:
            self.error = f"unable to connect to {self._where}: {error.strerror}"
            return
        if number not in _UNDER_WAY:
            self._unable(number)

    @property
    def events(self) -> int:
        if self._wire is None:
            return EVENT_WRITE
        return EVENT_READ | (EVENT_WRITE if self._wire.pending else 0)

    def fileno(self) -> int:
        end = self._wire or self._connecting
        return -1 if end is None else end.fileno()

    def close(self) -> None:
        """What has become a link stays."""
        if self._connecting is not None:
            self._connecting.close()
        if self._wire is not None and self.link is None:
            self._wire.close()

    def step(self, now: float) -> None:
        """Go on as far as it goes without waiting."""
        if self._connecting is not None and self.error is None:
            self._connect(self._connecting, now)
        while self._wire is not None and self._prove(self._wire, now):
            pass

    def _connect(self, end: socket.socket, now: float) -> None:
        poll = select.poll()
        poll.register(end, select.POLLOUT)
        if not poll.poll(0):
            if now >= self.until:
                self.error = f"no answer from {self._where}"
            return
        number = end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number or met_itself(end):
            self._unable(number or errno.ECONNREFUSED)
            return
        self._peer, self._local = peer_of(end), local_of(end)
        self._connecting, self._wire = None, Wire(end, frame=UNPROVEN_BYTES)
        self.until = now + PROVE_S

    def _prove(self, wire: Wire, now: float) -> bool:
        """Whether to go on at once."""
        wire.flush()
        try:
            said = wire.receive_one()
            if said is not None:
                self._heard(wire, said)
        except (*NEVER_SAID, KeyError, TypeError):
            self.error = f"{self._where} is no coordinator of rankguard"
        if self.link is not None or self.refused is not None or self.error is not None:
            return False
        if wire.closed or wire.unheard:
            self.error = f"{self._where} closed the connection"
        elif now >= self.until:
            self.error = f"{self._where} takes the connection and says nothing"
        return said is not None and self.error is None

    def _heard(self, wire: Wire, said: Message) -> None:
        what = said["is"]
        if what == "challenge" and self._challenge is None and is_nonce(said["nonce"]):
            self._challenge = said["nonce"]
            proof = prove(self._token, AGENT, said["nonce"], self._mine, self._text)
            hello = {"nonce": self._mine, "rankguard": __version__, "proof": proof, "hello": self._text}
            wire.send({"is": "hello"} | hello)
        elif what == "welcome" and self._proves(said, ""):
            self.link = Link(wire, self._peer, self._local, self._clock)
        elif what == "refused":
            statement, hint = str(said["statement"]), str(said["hint"])
            if self._proves(said, f"{statement}\n{hint}"):
                self.refused, self.hint = statement, hint
            else:  # whoever it is: perhaps a job that has just ended, and whose port is our coordinator's soon
                self.error = f"{self._where} turns us away: {clipped(statement)}"
        else:
            raise ValueError(what)

    def _proves(self, said: Message, more: str) -> bool:
        text = f"{self._text}\n{more}"
        return self._challenge is not None and proven(
            said.get("proof"), self._token, COORDINATOR, self._challenge, self._mine, text
        )

    def _unable(self, number: int) -> None:
        if number == errno.ECONNREFUSED:
            self.error = f"connection refused by {self._where}"
        else:
            self.error = f"unable to connect to {self._where}: {os.strerror(number)}"
