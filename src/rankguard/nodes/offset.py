"""The offset of another machine's monotonic clock, and how far off that may be. Pure.

Each exchange proves an interval: their clock was read between our `sent` and our `received`, so their clock less ours lies
between `theirs - received` and `theirs - sent`, however unequal the two ways are. What all exchanges have proven is the
intersection, made wider by what both clocks may have drifted since. That is never worse than the best exchange alone, and
needs no list of them.

Read next: `mapping.py` (which uses it), `../facts.py` (`NodeJoined.uncertainty`).
"""

ROUNDING = 1e-7
"""Seconds: what sums of instants may be off by, as floating-point numbers."""
DRIFT = 1e-3
"""Seconds a second by which two clocks may part: each is slewed by at most 500 ppm, forward or back, by NTP's algorithm in
the kernel (adjtimex(2), `freq`; adjtime(3)). A crystal alone is within 100 ppm. A daemon may step the tick for more than
that while it begins (chrony's `maxslewrate`): then intervals contradict one another sooner or later, and only the newest
is believed."""


class Offset:
    """`offset`: their clock less ours, in seconds; their instant less `offset` is ours. All arguments are in seconds."""

    def __init__(self) -> None:
        self._low, self._high = float("-inf"), float("inf")
        self._at = 0.0
        self.exchanges = 0
        self.contradictions = 0
        """Times that what was known had to be forgotten: a clock went faster than `DRIFT` allows."""

    @property
    def known(self) -> bool:
        """There has been an exchange."""
        return self.exchanges > 0

    @property
    def offset(self) -> float:
        """0 before the first exchange."""
        return (self._low + self._high) / 2 if self.known else 0.0

    def uncertainty(self, now: float | None = None) -> float:
        """How far off `offset` may be at our instant `now`; null: as of what came last. Infinite before the first exchange."""
        since = 0.0 if now is None else max(0.0, now - self._at)
        return (self._high - self._low) / 2 + DRIFT * since

    def exchanged(self, sent: float, theirs: float, received: float) -> None:
        """We asked at `sent` and had the answer at `received`, both of our clock; in between, theirs was `theirs`.

        An exchange of which that cannot be true (`received` before `sent`) is dropped.
        """
        if received < sent:
            return
        spread = DRIFT * (received - sent)  # the interval holds of an instant since `sent`
        self._narrow(theirs - received - spread, theirs - sent + spread, received)
        self.exchanges += 1

    def heard(self, theirs: float, received: float) -> None:
        """Something stamped `theirs` came at `received`: it was not sent later than that. Of use after an exchange only."""
        if self.known:
            self._narrow(theirs - received, float("inf"), received)

    def _narrow(self, low: float, high: float, now: float) -> None:
        wider = DRIFT * max(0.0, now - self._at) if self.known else 0.0
        was_low, was_high = self._low - wider, self._high + wider
        self._low, self._high = max(was_low, low), min(was_high, high)
        self._at = max(self._at, now) if self.known else now
        if self._low <= self._high:
            return
        if self._low - self._high <= ROUNDING:
            self._low, self._high = self._high, self._low
            return
        self.contradictions += 1
        if high == float("inf"):  # one bound alone: it shows by how much we were wrong, at least
            self._low, self._high = low, low + (low - was_low)
        else:
            self._low, self._high = low, high
