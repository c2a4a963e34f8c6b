"""Whether an engine that knows nothing of us is ready: `--ready-http`, `--ready-tcp`, `--ready-log`, `--ready-file`.

In the supervisor, from the engine's first instant until all that were asked for hold, each at least once; then nobody is
asked any more. They decide alone: the engine's own word (READY=1) counts where none of them is given. What is heard is
told (`StatusTold.probe`), so that progress lines and the verdict can say what is missing. Nothing here waits.

Read next: `../linux/asking.py` (how often), `../linux/nearask.py` (TCP, HTTP), `../linux/filelook.py`, `readylog.py`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from selectors import BaseSelector
from typing import Protocol

from rankguard.core.job import Job
from rankguard.facts import Fact, Ready, StatusTold, Warned
from rankguard.jobspec import WatchPlan
from rankguard.linux import mounts, target
from rankguard.linux.asking import Asking
from rankguard.linux.farask import LAST_S, FarAsk
from rankguard.linux.filelook import FileLook
from rankguard.linux.nearask import NearAsk
from rankguard.supervisor.readylog import ReadyLog
from rankguard.supervisor.readyport import ReadyPort

PRIORITY = 4
"""Behind all news of the engine itself."""
ROOT = 0
TOLD_EVERY_S = 0.5
"""What is heard may change with every answer."""


class Probe(Protocol):
    """One thing that shows readiness. `good` stays so."""

    name: str
    good: bool
    heard: str | None

    def next_wake(self) -> float | None: ...
    def wake(self, now: float) -> None: ...
    def close(self) -> None: ...


class Readiness:
    """Of one job. Make it before the engine is started."""

    def __init__(
        self,
        job: Job,
        plan: WatchPlan,
        selector: BaseSelector,
        emit: Callable[[Fact], None],
        redact: Callable[[str], str],
        tree: Callable[[], Mapping[int, int]],
    ) -> None:
        self._job, self._emit, self._redact = job, emit, redact
        self._logs = [ReadyLog(pattern) for pattern in plan.ready_log]
        targets = [*map(target.url, plan.ready_http), *map(target.endpoint, plan.ready_tcp)]
        self._probes = [*_probes(targets, plan, selector), *self._logs]
        self._port = ReadyPort(targets, tree, lambda text: self._tell(Warned(self._job.now, text)))
        self._over = self._new = False
        self._told, self._told_at = "", 0.0

    def pass_on(self, fact: Fact) -> None:
        """The engine's own word that it is ready is not what was asked for; every other fact goes on."""
        if not isinstance(fact, Ready):
            self._emit(fact)

    def take(self, part: bytes) -> None:
        """Lines of the engine's output."""
        for log in self._logs:
            log.take(part)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called; at once when it has just told something, which is still in the queue."""
        if self._new:
            return 0.0
        if self._over:
            return 0.0 if self._looks_at_port() else None
        if self._job.ranks[ROOT].pid is None:
            return None
        if all(probe.good for probe in self._probes):
            return 0.0
        due = [at for at in (probe.next_wake() for probe in self._probes) if at is not None]
        if self._words() != self._told:
            due.append(self._told_at + TOLD_EVERY_S)
        return min(due, default=None)

    def wake(self, now: float) -> None:
        """Ask those whose time has come; tell what is new."""
        self._new = False
        root = self._job.ranks[ROOT]
        if self._over and self._looks_at_port():
            self._port.wake()
        if self._over or root.pid is None:
            return
        if root.exited is not None or root.ready_at is not None or self._job.stopped_at is not None:
            self.close()
            return
        for probe in self._probes:
            probe.wake(now)
        if all(probe.good for probe in self._probes):
            self.close()
            self._tell(Ready(now, ROOT))
            return
        words = self._words()
        if words != self._told and now >= self._told_at + TOLD_EVERY_S:
            self._told, self._told_at = words, now
            self._tell(StatusTold(now, ROOT, probe=words))

    def close(self) -> None:
        """Nobody waits for it any more."""
        self._over = True
        for probe in self._probes:
            probe.close()

    def _looks_at_port(self) -> bool:
        root = self._job.ranks[ROOT]
        return self._port.going and root.ready_at is not None and root.exited is None and self._job.stopped_at is None

    def _tell(self, fact: Fact) -> None:
        self._new = True
        self._emit(fact)

    def _words(self) -> str:
        """What is missing: `http://127.0.0.1:8000/health answered 503: loading; the file /run/ready is not there`."""
        heard = (_words(probe) for probe in self._probes if not probe.good and probe.heard is not None)
        return "; ".join(map(self._redact, heard))  # one by one: a secret may seem to go on in what another one heard


def _words(probe: Probe) -> str:
    joint = " " if (probe.heard or "").startswith(("answered", "is ", "accepts")) else ": "
    return f"{probe.name}{joint}{probe.heard}"


def _probes(targets: list[target.Target], plan: WatchPlan, selector: BaseSelector) -> list[Probe]:
    probes: list[Probe] = [_asking(each, selector) for each in targets]
    for path in plan.ready_file:
        if mounts.may_not_answer(mounts.file_system(path)):
            probes.append(_far(f"the file {path}", {"file": path}, selector))
        else:
            probes.append(FileLook(path, selector, PRIORITY, fresh=not plan.attaches))
    return probes


def _asking(where: target.Target, selector: BaseSelector) -> Asking:
    if where.scheme != "https" and where.addresses:
        return Asking(where.name, lambda _now, done: NearAsk(where, selector, PRIORITY, done))
    if where.scheme == "tcp":
        return _far(where.name, {"tcp": [where.host, where.port]}, selector)
    asked = {"scheme": where.scheme, "host": where.host, "port": where.port, "path": where.path, "login": where.login}
    return _far(where.name, asked, selector)


def _far(name: str, asked: dict[str, object], selector: BaseSelector) -> Asking:
    begin = partial(FarAsk, asked, selector, PRIORITY)
    return Asking(name, lambda _now, done: begin(done), LAST_S)
