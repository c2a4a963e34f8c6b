"""What the container would leave if everything in it were killed now: the termination message, written ahead.

While memory is so near a limit that the kernel may end everything, once the first failure is judged and the rest is being
ended, and while ranks end because somebody asked. Taken back when memory is far from its limit again. What is said is in
`../report/termination.py`; when memory is near, in `../diagnosis/projection.py`. Read next: `samples.py`.
"""

import time
from collections.abc import Callable

from rankguard.core.job import Job
from rankguard.diagnosis.projection import Near
from rankguard.diagnosis.words import signal_name
from rankguard.facts import Fact, StopRequested
from rankguard.model import StoppedBy, Verdict
from rankguard.orders import Order
from rankguard.report.terminationlog import TerminationLog

_LEAST_S = 0.25
"""Between two messages about memory; the last look before a kill is told in any case where it shows much more."""
_MUCH = 0.01
"""Of the limit."""


class Ahead:
    """Of one attempt. `clock` is the monotonic one, `wall` the time of day."""

    def __init__(
        self, log: TerminationLog, job: Job, clock: Callable[[], float], wall: Callable[[], float] = time.time
    ) -> None:
        self._log, self._job, self._clock, self._wall = log, job, clock, wall
        self._at, self._share = float("-inf"), 0.0
        self._settled = False
        log.clear()  # what an attempt before this one left

    def near(self, near: Near | None) -> None:
        """A look at the memory: how near the limit is; null when it is not."""
        if self._settled:
            return
        if near is None:
            self._log.clear()
            self._at = float("-inf")
            return
        now, share = self._clock(), near.outlook.share
        if now - self._at < _LEAST_S and abs(share - self._share) < _MUCH:
            return
        self._at, self._share = now, share
        job = self._job
        unready = None
        if job.expects_ready:
            unready = [rank.rank for rank in job.ranks if rank.ready_at is None and not rank.gone]
        from rankguard.report import termination  # no start waits for it

        at, spec = self._when(), job.spec
        names, world = None, len(job.ranks)
        if spec.watch is not None:
            unready = None if unready is None else [number for number in unready if number == 0]  # the engine's own
            names = {rank.rank: rank.member.name for rank in job.ranks if rank.member is not None}
            world = max(1, len(names))
        self._log.write(lambda theirs: termination.of_memory(near, spec.run_id, at, world, unready, theirs, names))

    def judged(self, known: Verdict) -> None:
        """The first failure has its name; what follows may take as long as `--grace` says."""
        from rankguard.report.termination import so_far

        self._settled = True
        self._log.write(lambda theirs: so_far(known, theirs))

    def listen(self, told: Fact | Order) -> None:
        """Of every fact and order."""
        if isinstance(told, StopRequested) and not self._settled:
            from rankguard.report.termination import of_request
            from rankguard.report.wording import stopper

            self._settled = True
            sender, name = told.sender, signal_name(told.signal)
            by = StoppedBy(name) if sender is None else StoppedBy(name, sender.pid, sender.uid, sender.comm)
            at = self._when()
            what = f"asked to end {stopper(by)}"
            self._log.write(lambda theirs: of_request(what, self._job.spec.run_id, at, theirs))

    def _when(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall()))
