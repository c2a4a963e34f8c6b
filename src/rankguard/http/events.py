"""The journal as server-sent events, and a bounded memory of them for whoever comes back. Pure.

An event's id is its line's number in the journal, so it is the same after the page server was started again; its name is
the line's kind: `run`, `fact`, `order`, `note`, `attempt`. What is no longer remembered is told as `gap`.
"""

from collections import deque
from collections.abc import Iterator

KEPT_BYTES = 1 << 20
KEPT = 5000


def event(number: int, kind: str, line: bytes) -> bytes:
    """One line of the journal. It is JSON, so it holds no line end that would end the event."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, kind.encode(), line)


class History:
    """The newest events; `since` gives those that a client has not seen."""

    def __init__(self, most: int = KEPT, most_bytes: int = KEPT_BYTES) -> None:
        self._events: deque[tuple[int, bytes]] = deque()
        self._most, self._most_bytes, self._bytes = most, most_bytes, 0

    def add(self, number: int, told: bytes) -> None:
        self._events.append((number, told))
        self._bytes += len(told)
        while len(self._events) > self._most or (self._bytes > self._most_bytes and len(self._events) > 1):
            self._bytes -= len(self._events.popleft()[1])

    def since(self, seen: int | None) -> Iterator[bytes]:
        """All that are remembered after number `seen` (null: all), and first what is missing in between."""
        after = seen or 0
        if self._events and self._events[0][0] > after + 1:
            yield b'event: gap\ndata: {"from": %d, "to": %d}\n\n' % (after + 1, self._events[0][0] - 1)
        for number, told in self._events:
            if number > after:
                yield told
