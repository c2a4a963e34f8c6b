"""The core's job over adopted processes: facts in, orders carried out, until there is a verdict.

The orders are few: to look, to wake and to judge; adopted processes are never signalled and never reaped. All facts are
kept. The number of ranks of a job is fixed, so when a process is added the facts make a new job.

Read next: `watch.py`, which finds the facts; `core/machine.py`, where they lead to orders.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from signal import SIGKILL

from rankguard._version import __version__
from rankguard.adopted.process import Adopted
from rankguard.adopted.witnesses import Witnesses
from rankguard.case import Case
from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.core.policy import LATE
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.verdict import verdict as verdict_of
from rankguard.facts import DeadlinePassed, Exited, Fact, JobStarted, Looked, Spawned, TimeLost
from rankguard.jobspec import JobSpec
from rankguard.linux.child import by_signal
from rankguard.model import Verdict
from rankguard.orders import Disarm, Judge, Look, Order, Tell, WakeAt

FEW = 8
"""Processes that take part in a rehearsal."""

clock = time.monotonic


class Course:
    """What has happened to `processes`, a list that its owner may append to (`grow` comes next)."""

    def __init__(
        self,
        processes: list[Adopted],
        look: Callable[[], Looked],
        *,
        expect_ready: bool,
        ready_timeout: float | None,
    ) -> None:
        self.decided = False
        self._verdict: Verdict | Case | None = None
        self.deadlines: dict[str, tuple[float, int]] = {}
        """By name: when, and its generation."""
        self._processes, self._look = processes, look
        self._facts: list[Fact] = []
        self._judged = False
        self._spec = JobSpec(
            run_id=os.urandom(4).hex(),
            command=(),
            argv=(),
            nprocs=0,
            env={},
            cwd="",
            node=os.uname().nodename,
            start="adopted",
            expect_ready=expect_ready,
            ready_timeout=ready_timeout,
            adopted=True,
            any_end_fails=True,
        )
        self.job = self._new_job(processes)

    @property
    def undisturbed(self) -> bool:
        """Nothing has failed, and an ending would be a failure."""
        return self.job.failed_at is None and not self.job.announced

    def emit(self, fact: Fact) -> None:
        """Take a fact, and carry out what follows from it."""
        facts = deque([fact])
        while facts:
            fact = facts.popleft()
            orders = step(self.job, fact)
            self._facts.append(fact)
            for order in orders:
                if (result := self._carry_out(order)) is not None:
                    facts.appendleft(result)

    def pass_time(self, now: float) -> None:
        """The deadlines that have come."""
        for name, (when, generation) in sorted(self.deadlines.items(), key=lambda item: item[1]):
            if when <= now and self.deadlines.get(name) == (when, generation):
                del self.deadlines[name]
                self.emit(DeadlinePassed(now, name, generation))

    def notice_lost_time(self, planned: float | None, slept: float, now: float) -> None:
        """Whoever slept far too long was stopped (Ctrl-Z of the program that we are in): no deadline has run meanwhile."""
        if planned is not None and self.deadlines and slept - planned > LATE:
            self.emit(TimeLost(now, round(slept, 6)))

    def conclude(self) -> None:
        """The verdict, once all news of a moment is in: who said that it failed has perhaps ended, too."""
        if self._judged and not self.decided:
            self.decided, self._verdict = True, self._case()

    @property
    def verdict(self) -> Verdict | None:
        """Worded from the case, as it was when it was decided, by the first who asks."""
        if isinstance(self._verdict, Case):
            self._verdict = verdict_of(self._verdict, __version__)
        return self._verdict

    @property
    def timed_out(self) -> bool:
        """What was decided is that somebody is late."""
        return self.job.judged is not None and self.job.judged.kind == "ready-timeout"

    def grow(self) -> None:
        """One more process. The orders of the facts so far were carried out the first time."""
        self.job = self._new_job(self._processes)
        for fact in self._facts:
            step(self.job, fact)

    def rehearse(self, witnesses: Witnesses) -> None:
        """Walk the way of a failure once, with a few processes and to no effect, while there is still time.

        After a fork every page that is written for the first time has to be copied, for a reference count too: with
        eight forked ranks a third of the time from a death to its verdict (4.8 instead of 3.6 ms, row a of `make bench`).
        """
        few = self._processes[:FEW]
        if not few or not self.undisturbed:
            return
        now, job = clock(), self._new_job(few)
        few[0].known_ending()
        facts = [
            JobStarted(now, time.time(), witnesses.state()),
            *(Spawned(now, rank, each.pid) for rank, each in enumerate(few)),
            Exited(now, 0, by_signal(SIGKILL), *witnesses.oom(few[0])),
            witnesses.look([each for each in few if each.ending is None]),
        ]
        for fact in facts:
            step(job, fact)
        step(job, choose(job.case()))
        verdict_of(job.case(), __version__)

    def _new_job(self, processes: Sequence[Adopted]) -> Job:
        return Job(self._spec.replace(nprocs=len(processes), names=tuple(each.name for each in processes)))

    def _carry_out(self, order: Order) -> Fact | None:
        if isinstance(order, Look):
            return self._look()
        if isinstance(order, WakeAt):
            self.deadlines[order.name] = (order.when, order.generation)
        elif isinstance(order, Disarm):
            for name in order.names:
                self.deadlines.pop(name, None)
        elif isinstance(order, Judge):
            return choose(self._case())
        elif isinstance(order, Tell) and order.what == "judged":
            self._judged = True
            self.deadlines.clear()
        return None

    def _case(self) -> Case:
        case = self.job.case()
        ranks = tuple(rank for rank in case.ranks if not self._processes[rank.rank].forgotten)
        return case.replace(now=clock(), ranks=ranks)
