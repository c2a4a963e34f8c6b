"""A loop for tests of links: real sockets, and a bound that only a hang can reach."""

import selectors
import socket
import time
from collections.abc import Callable

from rankguard.nodes.link import Dialing, Door, Link, address_of, listen

BOUND = 20.0


class Loop:
    """Runs what is registered, `data` being (priority, function of the instant), until something holds."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.dialings: list[Dialing] = []
        self.doors: list[Door] = []
        self._open: list = []

    def until(self, holds: Callable[[], object]) -> None:
        hang = time.monotonic() + BOUND
        while not holds():
            now = time.monotonic()
            assert now < hang, "what the test waits for did not come"
            wakes = [at for each in (*self.dialings, *self.doors) if (at := each.next_wake()) is not None]
            for key, _events in self.selector.select(max(0.0, min([hang, *wakes]) - now)):
                key.data[1](time.monotonic())
            for each in (*self.dialings, *self.doors):
                if (at := each.next_wake()) is not None and time.monotonic() >= at:
                    each.wake(time.monotonic())

    def listen(self, host: str = "127.0.0.1") -> socket.socket:
        return self.closing(listen(host, 0))

    def closing(self, what):
        self._open.append(what)
        return what

    def dial(self, port: int, token: str = "t", host: str = "127.0.0.1", hello: dict | None = None) -> Dialing:
        dialing = self.closing(Dialing(host, port, token, hello or {"node": 0}))
        dialing.watch(self.selector, (0, dialing.wake))
        self.dialings.append(dialing)
        return dialing

    def door(
        self, listening: socket.socket, token: str = "t", accept: Callable | None = None
    ) -> tuple[Door, list[Link]]:
        links: list[Link] = []
        accept = accept or (lambda joining, hello: links.append(self.closing(joining.accept())))
        door = self.closing(Door(listening, token, self.selector, 0, accept))
        self.doors.append(door)
        return door, links

    def linked(self, host: str = "127.0.0.1") -> tuple[Link, Link]:
        """The coordinator's and the agent's end of one link."""
        listening = self.listen(host)
        _door, links = self.door(listening)
        dialing = self.dial(address_of(listening)[1], host=host or "127.0.0.1")
        self.until(lambda: dialing.link and links)
        assert dialing.link is not None
        return links[0], self.closing(dialing.link)

    def close(self) -> None:
        for each in reversed(self._open):
            each.close()
        for dialing in self.dialings:
            if dialing.link is not None:
                dialing.link.close()
        self.selector.close()


def received(link: Link, count: int = 1, most: int = 256 << 10) -> list[dict]:
    """So many messages, or what came before the end."""
    found: list[dict] = []
    selector = selectors.DefaultSelector()
    with selector:
        selector.register(link, selectors.EVENT_READ)
        hang = time.monotonic() + BOUND
        while len(found) < count and not link.closed:
            assert selector.select(hang - time.monotonic()), "nothing came"
            found += link.receive(most)
    return found
