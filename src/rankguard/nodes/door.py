"""The coordinator's door: who listens for agents, and keeps everybody else from costing anything.

Anybody on the network can connect. Of those that have not proven anything there are at most `at_once`, the oldest gives
way to the next; each has `PROVE_S` and one small message; when no descriptor is free, a spare one turns the caller away.
Not here: which nodes there are, and what becomes of a link. Read next: `joining.py`, `link.py`.
"""

import os
import socket
import time
from collections.abc import Callable
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector

from rankguard.nodes.ends import Clock
from rankguard.nodes.joining import PROVE_S, Hello, Joining

AT_ONCE = 256
"""No fewer than may come at once with right. An agent proves itself within a round trip or two: whoever wants to keep it
out has to connect so often meanwhile."""
TURN = 32
"""Connections taken in a turn of the loop."""
DEAF_S = 0.2
"""For so long nobody is listened to when there is not a single descriptor."""

OnHello = Callable[[Joining, Hello], None]


class Door:
    """`listening` is from now on ours. `on_hello` accepts or refuses a `Joining` that has proven itself. The selector's
    `data` are `(priority, function of the instant)`, as everywhere in the supervisor; call `wake` when `next_wake` has come.
    """

    def __init__(
        self,
        listening: socket.socket,
        token: str,
        selector: BaseSelector,
        priority: int,
        on_hello: OnHello,
        clock: Clock = time.monotonic,
        at_once: int = AT_ONCE,
    ) -> None:
        self._at_once = at_once
        self._listening, self._token, self._selector, self._priority = listening, token, selector, priority
        self._on_hello, self._clock = on_hello, clock
        self._waiting: dict[Joining, int] = {}
        """Oldest first; and what each is watched for."""
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.turned_away = 0
        """Those that came and were no agents of this job."""
        self.last_error = ""
        """Why the last of them was not: `10.0.0.7: its token is not the job's`."""
        self._deaf_until: float | None = None
        listening.setblocking(False)
        self._listen()

    @property
    def waiting(self) -> int:
        """Connections that have not proven anything yet."""
        return len(self._waiting)

    def next_wake(self) -> float | None:
        """When the oldest of them has been silent for too long, or we listen again."""
        oldest = next((each.since + PROVE_S for each in self._waiting), None)
        return min((at for at in (oldest, self._deaf_until) if at is not None), default=None)

    def wake(self, now: float) -> None:
        """Drop those that have been silent for too long."""
        if self._deaf_until is not None and now >= self._deaf_until:
            self._deaf_until = None
            self._listen()
        for each in [each for each in self._waiting if now >= each.since + PROVE_S]:
            each.error = each.error or f"it said nothing for {PROVE_S:.0f} s"
            self._drop(each)

    def close(self) -> None:
        """Nobody comes in any more. Links that were made are not ours."""
        for each in list(self._waiting):
            self._forget(each)
            each.close()
        if self._listening.fileno() >= 0:
            if self._deaf_until is None:
                self._selector.unregister(self._listening)
            self._deaf_until = None
            self._listening.close()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _on_callers(self, now: float) -> None:
        for _each in range(TURN):
            try:
                end, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:  # gone while it waited
                continue
            except OSError as error:
                self._without_descriptors(error, now)
                return
            self._let_wait(Joining(end, self._token, self._clock))

    def _let_wait(self, joining: Joining) -> None:
        if len(self._waiting) >= self._at_once:
            oldest = next(iter(self._waiting))
            oldest.error = oldest.error or "it had to give way to the next"
            self._drop(oldest)
        self._waiting[joining] = EVENT_READ
        self._selector.register(joining, EVENT_READ, (self._priority, partial(self._on_news, joining)))

    def _on_news(self, joining: Joining, now: float) -> None:
        if joining not in self._waiting:
            return  # dropped in this very turn
        joining.flush()
        hello = joining.receive()
        if hello is not None:
            self._forget(joining)
            self._on_hello(joining, hello)
            if joining.error is not None:  # refused
                self._turned_away(joining)
        elif joining.closed:
            self._drop(joining)
        else:
            wanted = EVENT_READ | (EVENT_WRITE if joining.pending else 0)
            if wanted != self._waiting[joining]:
                self._waiting[joining] = wanted
                self._selector.modify(joining, wanted, (self._priority, partial(self._on_news, joining)))

    def _drop(self, joining: Joining) -> None:
        self._forget(joining)
        self._turned_away(joining)

    def _turned_away(self, joining: Joining) -> None:
        self.turned_away += 1
        self.last_error = f"{joining.peer or 'somebody'}: {joining.error}"
        joining.close()

    def _forget(self, joining: Joining) -> None:
        del self._waiting[joining]
        self._selector.unregister(joining)

    def _listen(self) -> None:
        self._selector.register(self._listening, EVENT_READ, (self._priority, self._on_callers))

    def _without_descriptors(self, error: OSError, now: float) -> None:
        """The spare one turns the caller away: one that waits would wake us for ever. An agent dials again."""
        self.last_error = f"a connection was turned away: {error.strerror}"
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        try:
            self._listening.accept()[0].close()
            self.turned_away += 1
        except OSError:  # not even so: let them wait
            self._selector.unregister(self._listening)
            self._deaf_until = now + DEAF_S
        try:
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            pass  # the next caller asks again
