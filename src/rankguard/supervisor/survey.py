"""The look round after a failure, in the supervisor: what the hints of the verdict need to give numbers and names.

Begins once the ranks have been told to end, and again for a culprit that was not among the first; delays neither, nor the
judgement. Who holds a port is looked for at once, before it is let go, and goes on in slices; small files are read when
what has happened is told; the GPUs' driver is asked by a program of its own. The end of the job waits for what is under
way, `MOST_S` at most.

Read next: `../diagnosis/wants.py` (what is asked), `../linux/surroundings.py`, `../linux/portuse.py`, `../linux/gpus.py`.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from selectors import BaseSelector

from rankguard.circumstances import GpuState, PortUse
from rankguard.core.job import Job
from rankguard.diagnosis.wants import Wants, wants
from rankguard.facts import Fact, GpusRead, Surveyed
from rankguard.jobspec import JobSpec
from rankguard.launchers.redaction import redacted
from rankguard.linux import portuse, surroundings
from rankguard.linux.gpus import GpuReader

MOST_S = 2.0
_SLICE_S = 0.01
_RANKS = 8
"""Of many that failed, as many are asked what to look at."""
_FAR_GONE = (79, 119, 120)
"""Xids after which the driver's library may hang in the kernel: it is not asked (NVIDIA, "Xid errors")."""


class Survey:
    """Of one job. `ranks()` are the pids of ranks alive → their numbers."""

    def __init__(
        self,
        job: Job,
        spec: JobSpec,
        port: int,
        selector: BaseSelector,
        priority: int,
        clock: Callable[[], float],
        emit: Callable[[Fact], None],
        redact: Callable[[str], str],
    ) -> None:
        self._job, self._spec, self._port, self._clock, self._redact, self._emit = job, spec, port, clock, redact, emit
        self._gpus = GpuReader(selector, priority, self._tell_gpus)
        self._environ = {**os.environ, **spec.env}
        self._looked_at: set[object] = set()
        self._to_look: deque[Wants] = deque()
        self._looked = False
        self._search: Iterator[None] | None = None
        self._ports: list[PortUse] = []
        self._until = 0.0

    # ── When ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def stopping(self) -> None:
        """A failure has stopped the job: look round for those that failed first."""
        for rank in [rank for rank in self._job.ranks if rank.suspect][:_RANKS]:
            self._ask(wants(self._job.rank_case(rank), self._port))

    def judged(self, number: int | None) -> None:
        """The culprit is known; mostly there is nothing left to look at."""
        if number is not None:
            self._ask(wants(self._job.rank_case(self._job.ranks[number]), self._port))

    def busy(self) -> bool:
        """Something is still being looked at."""
        return bool(self._to_look) or self._search is not None or self._gpus.busy

    def close(self) -> None:
        """The job's tree is about to be killed."""
        while self._to_look:
            self._look(self._to_look.popleft())
        self._gpus.close()
        self._finish_search()

    def next_wake(self) -> float | None:
        """At once also when something was just done: its facts are still in the queue, and the end may wait for it."""
        return 0.0 if self._search is not None or self._to_look or self._looked else self._gpus.next_wake()

    def wake(self, now: float) -> None:
        """Look at what is asked; go on with the search; end what takes too long."""
        self._looked = bool(self._to_look) or self._search is not None
        if self._to_look:
            self._look(self._to_look.popleft())
        self._gpus.wake(now)
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        if self._search is None:
            return
        slice_ends = self._clock() + _SLICE_S
        for _ in self._search:
            if self._clock() >= slice_ends:
                if now >= self._until:
                    self._finish_search()
                return
        self._finish_search()

    # ── What ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, wanted: Wants) -> None:
        for port in wanted.ports:
            if self._first(f"port {port}") and self._search is None:
                self._search = portuse.search(port, self._alive(), self._ports)
                self._until = self._clock() + MOST_S
                self._go_on(self._clock())  # at once, before a rank that holds it has ended
        self._to_look.append(wanted)

    def _look(self, wanted: Wants) -> None:
        cwd = self._spec.cwd
        env = self._environ
        told = Surveyed(
            self._clock(),
            host=surroundings.host(env, self._spec.argv[0]) if self._first("host") else None,
            places=tuple(filter(None, (surroundings.place(p or cwd) for p in wanted.places if self._first(p or cwd)))),
            cores=tuple(
                filter(
                    None, (surroundings.core_of(p, cwd, self._job.started_wall) for p in wanted.cores if self._first(p))
                )
            ),
            modules=tuple(
                surroundings.module(name, self._beside(), self._prefixes(env))
                for name in wanted.modules
                if self._first(f"module {name}")
            ),
        )
        if told.replace(at=0.0) != Surveyed(0.0):
            self._emit(redacted(told, self._redact))
        if wanted.gpus and self._first("gpus"):
            self._ask_gpus()

    def _ask_gpus(self) -> None:
        if any(noted.note.number in _FAR_GONE for noted in self._job.notes):
            self._tell_gpus((), "", "the kernel log says that a GPU does not answer")
            return
        try:
            self._gpus.ask(self._clock(), self._alive(), self._environ)
        except OSError as error:
            self._tell_gpus((), "", error.strerror or str(error))

    def _tell_gpus(self, gpus: tuple[GpuState, ...], source: str, why_not: str | None) -> None:
        self._emit(redacted(GpusRead(self._clock(), gpus, source, why_not), self._redact))

    def _finish_search(self) -> None:
        if self._search is None:
            return
        self._search = None
        if self._ports:
            self._emit(redacted(Surveyed(self._clock(), ports=tuple(self._ports)), self._redact))
            self._ports.clear()

    def _first(self, what: object) -> bool:
        known = what in self._looked_at
        self._looked_at.add(what)
        return not known

    def _alive(self) -> Mapping[int, int]:
        return {rank.pid: rank.rank for rank in self._job.ranks if rank.pid is not None and not rank.reaped}

    def _beside(self) -> tuple[str, ...]:
        """The folders that Python looks into first: the program's own, or the current one."""
        programs = [word for word in self._spec.argv if word.endswith(".py")]
        folders = [os.path.dirname(os.path.join(self._spec.cwd, word)) for word in programs]
        return tuple(dict.fromkeys([*folders[-1:], self._spec.cwd]))

    def _prefixes(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """Where else a module may be installed: the environment that is active, and what is on PATH."""
        folders = [os.path.dirname(part) for part in env.get("PATH", "").split(os.pathsep) if part.endswith("/bin")]
        active = [env[name] for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if env.get(name)]
        return tuple(dict.fromkeys([*active, *folders]))[:16]
