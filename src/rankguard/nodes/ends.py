"""A link whose ends have proven who they are: messages, for a loop that never blocks. Read next: `link.py`."""

import select
import time
from collections import deque
from collections.abc import Callable, Iterable

from rankguard.wire import Message, Wire, packed

Clock = Callable[[], float]

FRAME_BYTES = 160 << 20
"""Of one message: a rank's payload may be 64 MiB of JSON (`inside/this_rank.py`), twice as much when it is quoted."""
TURN_BYTES = 256 << 10
"""Read of one link in a turn of the loop: the others' news waits for no more."""
OUTPUT_BYTES = 4 << 20
"""Of output that waits; what comes then is dropped."""
NEWS_BYTES = 256 << 20
"""Of news that waits. An end that has taken none of so much is gone, whatever its heartbeats say."""
AHEAD_BYTES = 64 << 10
"""Of output that is put before news yet to come: enough for the kernel to have something to send."""

_PART_MOST = 10

NEVER_SAID = (ValueError, IndexError, RecursionError)
"""What no message of ours gives: no JSON, descriptors, nested without end, longer than allowed."""
_SHOWN = 400


def clipped(what: object) -> str:
    """What an end that nobody trusts has said, for a message: one line that no terminal obeys."""
    return "".join(each if each.isprintable() else "?" for each in str(what)[:_SHOWN])


class Link:
    """A proven connection. `peer` and `local` are the addresses of its ends, without ports.

    `error` says why it was closed, when it was not simply ended. `last_heard` is when anything came, on `clock`: after a
    pause of one's own (SIGSTOP) receive first and then judge silence.
    """

    def __init__(self, wire: Wire, peer: str, local: str, clock: Clock = time.monotonic) -> None:
        wire.frame = FRAME_BYTES
        self._wire, self._clock = wire, clock
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self.peer, self.local = peer, local
        self.last_heard = clock()
        self.dropped_bytes = 0
        self.error: str | None = None

    def fileno(self) -> int:
        """-1 once it is closed by `close`."""
        return self._wire.fileno()

    @property
    def pending(self) -> bool:
        """Something waits to be sent: watch for writing, too."""
        return self._wire.pending or (bool(self._waiting) and not self.closed)

    @property
    def pending_bytes(self) -> int:
        return self._wire.pending_bytes + self._waiting_bytes

    @property
    def closed(self) -> bool:
        """The other end is gone, or has said what has no meaning; what it said before that has been received."""
        return self._wire.closed

    def send(self, message: Message) -> None:
        """News and orders: before all output that waits. Never dropped, but with the link."""
        self.send_packed(packed(message))

    def send_packed(self, frame: bytes) -> None:
        """`send` of what `wire.packed` made, once for many links."""
        if self.closed:
            return
        self._wire.send_packed(frame)
        if self._wire.pending_bytes > NEWS_BYTES:
            self._fail(f"it takes nothing: {self._wire.pending_bytes:,} bytes wait for it")

    def send_output(self, message: Message, size: int | None = None) -> bool:
        """Output: after all news. Not taken (`False`) when more than 4 MiB wait; then `size` (else the message's own
        bytes) is added to `dropped_bytes`.
        """
        if self.closed or self._wire.unheard or self._waiting_bytes > OUTPUT_BYTES:
            self.dropped_bytes += len(packed(message)) if size is None else size
            return False
        self._wait(packed(message))
        return True

    def send_behind(self, message: Message) -> None:
        """News that must not overtake the output before it, such as the last word."""
        if not self.closed:
            self._wait(packed(message))

    def receive(self, most: int = TURN_BYTES) -> list[Message]:
        """The messages that are complete, of at most `most` bytes more: the rest keeps the link readable.

        A frame that has no meaning closes it, with `error`.
        """
        before = self._wire.read_bytes
        try:
            found = [message for message, _fds in self._wire.receive(bytes_most=most)]
        except NEVER_SAID as error:
            self._fail(f"it said what is no message: {clipped(error)}")
            return []
        if not all(isinstance(each, dict) for each in found):
            self._fail("it said what is no message")
            return []
        if self._wire.read_bytes > before:
            self.last_heard = self._clock()
        return found

    def flush(self) -> None:
        """Write what the other end takes."""
        self._wire.flush()
        while self._waiting and self._wire.pending_bytes < AHEAD_BYTES and not self.closed:
            frame = self._waiting.popleft()
            self._waiting_bytes -= len(frame)
            self._wire.send_packed(frame)
        if self._wire.unheard:
            self._waiting.clear()
            self._waiting_bytes = 0

    def flush_within(self, seconds: float) -> bool:
        """Write what waits, for so long at most. Whether all of it was taken by the kernel."""
        until = self._clock() + seconds
        poll = select.poll()
        if not self.closed:
            poll.register(self._wire, select.POLLOUT)
        while self.pending and (left := until - self._clock()) > 0 and poll.poll(left * 1000):
            self.flush()
        return not self.pending and not self._wire.unheard

    def end_output(self) -> None:
        """Say that nothing more will come; the other end can still be heard. What waits is to be flushed before."""
        self._wire.shut()

    def close(self) -> None:
        """At once. What was sent last reaches the other end only if it has said nothing unheard: see `part`."""
        self._wire.close()
        self._waiting.clear()
        self._waiting_bytes = 0

    def _wait(self, frame: bytes) -> None:
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        self.flush()

    def _fail(self, error: str) -> None:
        self.error = self.error or error
        self._wire.closed = True


def part(links: Iterable[Link], seconds: float, clock: Clock = time.monotonic) -> list[Link]:
    """End links so that the last words arrive: flush, say that nothing more comes, and wait until the others have gone.
    It ends when for so many seconds none has taken anything or gone, and after ten times as long in any case. All are
    closed then; those that had not gone are returned.

    A socket that is closed while something unread has come resets its connection (RFC 2525, 2.17), and what the other
    end has not read yet is lost: so what comes meanwhile is read, and forgotten.
    """
    began = clock()
    going = {link.fileno(): link for link in links if link.fileno() >= 0}
    poll = select.poll()
    for fd in going:
        poll.register(fd, select.POLLIN | select.POLLOUT)
    every, flushed = tuple(going.values()), set[int]()
    until = began + seconds
    while going:
        left = min(until, began + _PART_MOST * seconds) - clock()
        ready = poll.poll(max(0.0, left) * 1000)
        for fd, _events in ready:
            link = going[fd]
            before = link.pending_bytes
            link.flush()
            if not link.pending and fd not in flushed:
                flushed.add(fd)
                link.end_output()
                poll.modify(fd, select.POLLIN)
            link.receive()
            if link.closed:
                poll.unregister(fd)
                del going[fd]
            if link.closed or link.pending_bytes < before:
                until = clock() + seconds
        if left <= 0:
            break
    for link in every:
        link.close()
    return list(going.values())
