"""Whether a failed job is started again, and when (`--max-restarts`). Pure: verdicts and instants in, a decision out.

Each attempt is a job of its own, with a `Job` and a journal's chapter of its own; what goes over all of them is here.
Nothing here knows the time or draws lots: both are given. Read next: `../supervisor/main.py` (asks, waits, begins anew),
docs/restarts.md.
"""

from collections import deque

from rankguard.core.policy import BACKOFF, STEADY
from rankguard.model import Attempt, Verdict
from rankguard.record import Record

_WRONG_FROM_THE_START = ("SyntaxError", "IndentationError", "TabError", "ImportError", "ModuleNotFoundError")
"""Exceptions of a program that is not the one that was meant, or not whole: no other attempt will read another text."""
_USAGE = 2
"""The exit code of a program that was called in a wrong way, as argparse, getopt's users and the shells have it."""


class Again(Record):
    """The job is started again after `delay_s` seconds; `because` says which attempt of how many that is."""

    delay_s: float
    because: str


class Restarts:
    """The budget of one run. `most`: restarts that are allowed, in any `window` seconds or, if that is null, in all.
    `longest`: seconds that a pause before one may take.
    """

    def __init__(self, most: int, window: float | None = None, longest: float = 60.0) -> None:
        self.most, self._window, self._longest = most, window, longest
        self._begun: deque[float] = deque()
        self._short = 0
        """Failures in a row of attempts that did not last."""
        self._last: Attempt | None = None

    def heals(self, failed: Verdict, at: float) -> bool:
        """Whether another attempt will follow, as far as is known while ranks still end."""
        return failed.outcome == "failed" and self.refuses(failed, at) is None

    def refuses(self, failed: Verdict, at: float) -> str | None:
        """Why no attempt follows, whatever others wish; null when one may."""
        return self._hopeless(failed) or self._refused(failed, at)

    def after(self, failed: Verdict, attempt: Attempt, at: float, luck: float) -> Again | str:
        """Once an attempt is over, all of it: what to do, or why nothing. `luck`: from 0 to 1, of the caller's drawing.

        An answer of `Again` takes one from the budget.
        """
        because = self.refuses(failed, at)
        if because is not None:
            return because
        self._last = attempt
        self._short = self._short + 1 if attempt.lasted_s < STEADY else 1
        self._begun.append(at)
        return Again(
            round(backoff(self._short, self._longest, luck), 3),
            f"restart {len(self._begun)} of {self.most}{self._within()}",
        )

    def _refused(self, failed: Verdict, at: float) -> str | None:
        if failed.teardown.survivors:
            return "a process of the failed attempt refuses to die"
        while self._window is not None and self._begun and self._begun[0] <= at - self._window:
            self._begun.popleft()
        if len(self._begun) >= self.most:
            return f"it was started again {_times(self.most)}{self._within()}, as often as --max-restarts allows"
        return None

    def _within(self) -> str:
        return "" if self._window is None else f" within {self._window:g} s"

    def _hopeless(self, failed: Verdict) -> str | None:
        """Why no attempt would end otherwise."""
        culprit = failed.culprit
        if culprit is None:
            return "no rank failed"
        cause = culprit.cause
        if cause.family == "rankguard":
            return "it was no rank that failed"
        if cause.kind == "cannot-start":
            return "what cannot be started now cannot be started again"
        if cause.exception is not None and cause.exception.type.rpartition(".")[2] in _WRONG_FROM_THE_START:
            return f"{cause.exception.type} is in the program itself"
        if culprit.ending.code == _USAGE and any(line.lower().startswith("usage:") for line in culprit.log_tail):
            return "the program was called in a wrong way"
        if unready(failed) and failed.retry is not None and failed.retry.advice == "no":
            return f"it was not ready yet, and would not be the next time: {failed.retry.because}"
        last = self._last
        if last is not None and last.unready and unready(failed) and failed.fingerprint == last.fingerprint:
            return "it failed in the same way twice before it was ready"
        return None


def unready(failed: Verdict) -> bool:
    """The culprit was still to become ready. Of ranks that nobody expects to, nothing is said."""
    return failed.culprit is not None and failed.culprit.phase in ("launching", "starting")


def backoff(failures: int, longest: float, luck: float) -> float:
    """Seconds to wait after so many failures in a row: none at first, then doubling up to the longest, a quarter more or less
    by `luck`, so that a hundred jobs which one fault has felled do not come back in one instant.
    """
    if failures <= 1:
        return 0.0
    return min(longest, BACKOFF * 2.0 ** min(failures - 2, 32)) * (0.75 + 0.5 * luck)


def _times(number: int) -> str:
    return {0: "0 times", 1: "once", 2: "twice"}.get(number, f"{number} times")
