"""A clock that stands still until it is moved. Call it where `time.monotonic` would be called."""


class Clock:
    """A clock that is called as `time.monotonic` is, and stands still between `advance` and `move_to`. Never goes back.

    `now`: the instant it begins at, in seconds.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> float:
        """Move forward by `seconds` and tell the new instant. Raises `ValueError` when they are negative."""
        return self.move_to(self._now + seconds)

    def move_to(self, instant: float) -> float:
        """Move forward to `instant` and tell it. Raises `ValueError` when that lies in the past: ours is monotonic."""
        if instant < self._now:
            raise ValueError(f"the clock stands at {self._now} and cannot go back to {instant}")
        self._now = instant
        return instant
