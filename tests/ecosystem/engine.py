"""An engine that nobody here wrote, under `rankguard watch`: start it, kill something deep in it, read what was told."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from rankguard.linux.tree import children, descendants

PATIENCE = 100.0
"""For a machine on which others work, too: with torch and Lightning a rank may need a minute to import them."""
SOON_S = 0.01
"""From an end to the journal's fact, of a process that is known, less what the supervisor waited for a processor."""
PROGRAMS = Path(__file__).parent / "programs"


def until(what: str, holds: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Wait for what no descriptor tells of: a line of a journal, a title in /proc. Its value, once it is true."""
    end = time.monotonic() + patience
    while not (value := holds()):
        assert time.monotonic() < end, f"not within {patience:g} s: {what}"
        time.sleep(0.005)
    return value


class Killed(NamedTuple):
    """When, when the kernel had taken it down as we saw it, who held it, and for how long that one had `waited` before."""

    at: float
    ended: float
    supervisor: int
    waited: float


class Engine:
    """One `rankguard watch`. Leave the block, and nothing of it is alive."""

    def __init__(
        self, folder: Path, *words: str, env: dict[str, str] | None = None, options: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder / "run"
        self._out, self._err = folder / "out", folder / "err"
        command = [sys.executable, "-m", "rankguard", "watch", "--run-dir", str(self.folder), *options]
        command += ["--", *words] if words else []
        with self._out.open("wb") as out, self._err.open("wb") as err:
            # A session of its own, so that what a test forgets can be found.
            self.front = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**os.environ, **(env or {})}, cwd=folder,
                start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.front.poll() is None:
            below = descendants(self.front.pid)
            self.front.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.front.wait(20)
            for pid in (*below, self.front.pid) if self.front.poll() is None else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.front.wait()

    # ── What it says ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def stdout(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._err.read_text(errors="replace")

    def facts(self, *kinds: str) -> list[dict[str, Any]]:
        """What the journal holds by now."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / "events.jsonl").read_text().splitlines()
            told = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
            return [entry for entry in told if entry.get("fact") in kinds]
        return []

    @property
    def verdict(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "verdict.json").read_text()))

    def said(self, line: str, count: int = 1) -> str:
        """Wait for a line of its stdout that holds `line`; that line (the last of `count`)."""

        def found() -> str | None:
            assert self.front.poll() is None or line in self.stdout, f"it has ended:\n{self.stdout}\n{self.stderr}"
            lines = [each for each in self.stdout.splitlines() if line in each]
            return lines[count - 1] if len(lines) >= count else None

        return str(until(f"`{line}` is said", found))

    # ── Its processes ────────────────────────────────────────────────────────────────────────────────────────────

    def processes(self, part: str) -> list[int]:
        """Those whose title or command line holds `part`, below the front and not ours, the oldest first."""
        ours = {self.front.pid, *children(self.front.pid)}
        found = [pid for pid in descendants(self.front.pid) if pid not in ours and part in title_of(pid)]
        return sorted(found)

    def known(self, pid: int) -> int:
        """Wait until one of ours holds this process by a pidfd: that one."""
        return int(until(f"process {pid} is held", lambda: next((o for o in self._ours() if pid in held(o)), None)))

    def _ours(self) -> Iterator[int]:
        yield self.front.pid
        for warden in children(self.front.pid):
            yield warden
            yield from children(warden)

    def kill(self, pid: int, number: int = signal.SIGKILL) -> "Killed":
        """Kill one that is known."""
        supervisor = self.known(pid)
        pidfd = os.pidfd_open(pid)
        try:
            at, waited = time.monotonic(), waited_for_processors(supervisor)
            os.kill(pid, number)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            assert poll.poll(1000 * PATIENCE), f"{pid} does not end"
            return Killed(at, time.monotonic(), supervisor, waited)
        finally:
            os.close(pidfd)

    def told(self, pid: int, killed: "Killed") -> tuple[dict[str, Any], tuple[float, float]]:
        """Wait for the journal's fact about the end of a process, and how long after the kill and after the end it was:
        the latter without what was spent on waiting for a processor, which tells of the machine. A look comes by the clock,
        for which nobody waits like that.
        """

        def found() -> dict[str, Any] | None:
            ranks = {fact["rank"]: fact["pid"] for fact in self.facts("Joined")}
            ends = self.facts("Exited", "Perished")
            return next((fact for fact in ends if fact.get("pid", ranks.get(fact.get("rank"))) == pid), None)

        fact = until(f"the end of {pid} is told", found)
        waited = max(0.0, waited_for_processors(killed.supervisor) - killed.waited)  # it may have ended by now
        return fact, (fact["at"] - killed.at, fact["at"] - killed.ended - waited)

    # ── Its end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def ended(self, patience: float = PATIENCE) -> int:
        """Wait for its end: the status of rankguard, which has left nothing."""
        try:
            status = self.front.wait(patience)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it has not ended after {patience:g} s:\n{self.stdout}\n{self.stderr}")
        assert self.verdict["teardown"]["survivors"] == []
        return status

    def falls_with(self, pid: int) -> tuple[float, float]:
        """Kill one that is known: the engine is ended, and the verdict names it. How long it took, as `told` has it."""
        _fact, took = self.told(pid, self.kill(pid))
        assert self.ended() == 137
        culprit = self.verdict["culprit"]
        assert (culprit["pid"], culprit["cause"]["kind"]) == (pid, "killed")
        return took

    def stopped(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, as a container's runtime does."""
        assert self.front.poll() is None, f"it has ended:\n{self.stdout}\n{self.stderr}"
        self.front.send_signal(number)
        return self.ended()


def waited_for_processors(pid: int) -> float:
    """Seconds for which it could have run, and others did (`schedstat`: scheduler/sched-stats in the kernel's own pages)."""
    with contextlib.suppress(OSError):  # it has ended, or this kernel does not count
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def title_of(pid: int) -> str:
    """Its command line as it stands."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def settled(pid: int) -> None:
    """Wait until it is half a second old: by then its title, as it was just after its start, has been read again."""
    ticks = os.sysconf("SC_CLK_TCK")

    def old() -> bool:
        started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]) / ticks
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started > 0.5

    until(f"{pid} is half a second old", old)


def held(pid: int) -> set[int]:
    """The processes that this one holds by pidfds (`Pid:` of their fdinfo)."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fdinfo"):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/fdinfo/{name}").read_text().splitlines():
                    if line.startswith("Pid:"):
                        found.add(int(line.split()[1]))
    return found


def program_of(name: str) -> str:
    """The path of a program, or the test is skipped."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"there is no `{name}`")
    return found


class Latencies:
    """Of kills of one kind, as `Engine.told` gives them: one must be told soon enough, of ten where the machine is busy.

    What counts is what comes after the end: until then the kernel takes the process down, which on a busy machine, or with
    much memory, takes milliseconds, and nobody can be told. Nor counts what the supervisor waited for a processor.
    """

    TRIES = 10

    def __init__(self) -> None:
        self.took: list[tuple[float, float]] = []

    @property
    def wanting(self) -> bool:
        """Try once more."""
        return not self._best() < SOON_S and len(self.took) < self.TRIES

    def check(self) -> None:
        print("from the kill to the fact:", ", ".join(f"{1e3 * kill:.1f}" for kill, _ in self.took), "ms;", end=" ")
        print("from the end:", ", ".join(f"{1e3 * end:.1f}" for _, end in self.took), "ms")
        assert min(kill for kill, _ in self.took) > 0
        assert self._best() < SOON_S

    def _best(self) -> float:
        return min((end for _kill, end in self.took), default=PATIENCE)
