"""The failed attempts of one run, and what is said of them: to the front, in the journal, in the last verdict.

The decision is `../core/restarts.py`; the waiting and the next attempt are `main.py`'s. Loaded by `--max-restarts` only.
"""

import os
import random
import time

from rankguard.core import story
from rankguard.core.restarts import Again, Restarts, unready
from rankguard.jobspec import JobSpec
from rankguard.model import Attempt, Left, Verdict
from rankguard.report.files import RunFiles
from rankguard.wire import Wire


class Restarter:
    """Of one run. `failed`: its attempts so far; `given_up`: why there is no further one."""

    def __init__(self, spec: JobSpec, files: RunFiles, wire: Wire) -> None:
        self._budget = Restarts(spec.max_restarts, spec.restart_window, spec.restart_delay)
        self._files, self._wire = files, wire
        self.failed: tuple[Attempt, ...] = ()
        self.given_up: str | None = None
        self._next: Attempt | None = None
        self._left: tuple[Left, ...] = ()
        self.heals = self._budget.heals

    def after(self, final: Verdict, last: str | None, lasted_s: float) -> float | None:
        """An attempt is over: the seconds to wait before the next, or null when it was the last. `last`: why it is."""
        self._left = (*self._left, *final.teardown.left)
        if last is not None:  # whoever was told that there is no further attempt has asked for the end because of that
            self.give_up(self._budget.refuses(final, time.monotonic()) or last)
            return None
        attempt = attempt_of(final, len(self.failed), lasted_s)
        answer = self._budget.after(final, attempt, time.monotonic(), random.random())  # noqa: S311  # no secret
        if not isinstance(answer, Again):
            self.give_up(answer)
            return None
        self._next = attempt.replace(restarted=answer.because, delay_s=answer.delay_s)
        when = f"in {answer.delay_s:.1f} s" if answer.delay_s else "now"
        text = f"{final.statement}; all ranks are started again {when} ({answer.because})"
        self._files.append(story.note(text))
        self._wire.send({"is": "told", "what": "restarting", "rank": attempt.rank, "text": text})
        return answer.delay_s

    def begin(self) -> None:
        """The next attempt begins."""
        assert self._next is not None
        self.failed = (*self.failed, self._next)
        self._files.append(story.new_attempt(self._next))

    def with_what_is_left(self, final: Verdict) -> Verdict:
        """The run's verdict, with the files in shared memory that earlier attempts have left and that are still there."""
        own = {left.path for left in final.teardown.left}
        still = [left for left in self._left if left.path not in own and not left.removed and os.path.exists(left.path)]
        return final.replace(teardown=final.teardown.replace(left=(*still, *final.teardown.left))) if still else final

    def give_up(self, because: str) -> None:
        """There is no further attempt."""
        self.given_up = because
        self._files.append(story.note(f"not started again: {because}"))


def attempt_of(final: Verdict, number: int, lasted_s: float) -> Attempt:
    """What is kept of an attempt that is over."""
    culprit = final.culprit
    return Attempt(
        attempt=number,
        cause=culprit.cause.kind if culprit is not None else "unknown",
        confidence=culprit.cause.confidence if culprit is not None else "unknown",
        fingerprint=final.fingerprint,
        lasted_s=round(lasted_s, 6),
        statement=final.statement,
        rank=culprit.rank if culprit is not None else None,
        phase=culprit.phase if culprit is not None else "",
        exit_code=final.exit_code,
        started_at=final.started_at,
        failed_at=final.failed_at,
        either=final.either,
        unready=unready(final),
        warnings=final.warnings,
    )
