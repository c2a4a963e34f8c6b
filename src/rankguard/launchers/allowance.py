"""How many of something that may come by the thousand are told: some at once, and then a few as time passes."""


class Allowance:
    """`most` at once, and one more for every `every_s` seconds since."""

    def __init__(self, most: int, every_s: float) -> None:
        self._most, self._every_s = most, every_s
        self._left, self._at = float(most), float("-inf")
        self.refused = 0
        """How many were not told in all."""

    def take(self, now: float) -> bool:
        """One more came: may it be told?"""
        if self._left < self._most:
            self._left = min(self._most, self._left + (now - self._at) / self._every_s)
        self._at = now
        if self._left < 1:
            self.refused += 1
            return False
        self._left -= 1
        return True
