"""A watched engine whose watchers are hurt: started, known by its files, told to end, and asked for by its verdict."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.nest import Nest, command_line, gone

ENGINE = str(Path(__file__).with_name("engine.py"))
BOUND_S = 30.0


class Engine(Nest):
    """One engine under `rankguard watch`, or whatever `command` starts in its place."""

    def __init__(self) -> None:
        super().__init__()
        self._kills, self._killed_at = 0, 0.0

    def watch(
        self, *options: str, code: int = 7, more: Sequence[str] = (), launcher: Sequence[str] = (), **how: object
    ) -> "Engine":
        """Start it."""
        words = [*launcher] if launcher else [sys.executable, "-m", "rankguard", "watch"]
        engine = [sys.executable, ENGINE, self.folder, str(code), *more]
        self.start([*words, *options, "--", *engine], **how)
        return self

    @property
    def root(self) -> int:
        """The engine's own pid."""
        return next(pid for pid, line in self.alive().items() if "engine.py" in line and "rankguard" not in line)

    def up(self) -> "Engine":
        """Wait until it is."""
        self.until_there("up")
        return self

    def until_there(self, name: str, limit: float = BOUND_S) -> None:
        """Wait for a file of the engine's, whoever of ours is alive."""
        until = time.monotonic() + limit
        while not Path(self.folder, name).exists():
            assert time.monotonic() < until, f"no `{name}`: {self.alive()}"
            time.sleep(0.005)

    def until_journal(self, text: str, limit: float = BOUND_S) -> None:
        """Wait for a word in the journal."""
        until = time.monotonic() + limit
        while text not in self.journal():
            assert time.monotonic() < until, self.journal()[-2000:]

    def kill(self, *names: str, number: int = signal.SIGKILL) -> None:  # type: ignore[override]
        """Those of ours; without a name all that lives here."""
        if not names:
            super().kill()
            return
        pids = [pid for name, pid in self.ours().items() if name in names]
        assert len(pids) == len(names), self.alive()
        for pid in pids:
            os.kill(pid, number)
        for pid in pids if number == signal.SIGKILL else ():
            if self.front is None or pid != self.front.pid:
                assert gone(pid, 5)
        if number == signal.SIGKILL:
            self._kills, self._killed_at = self._kills + 1, time.monotonic()

    def while_it_runs(self, seconds: float) -> None:
        """Wait, as long as the front has not ended."""
        assert self.front is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"the front has ended: {self.front.wait(seconds)}: {self.said()}")

    def until_taken(self, number: int, limit: float = BOUND_S) -> None:
        """Wait until the front has taken this signal: two that are pending are one (signal(7))."""
        assert self.front is not None
        until = time.monotonic() + limit
        while pending(self.front.pid) >> number - 1 & 1:
            assert time.monotonic() < until, f"signal {number} is pending"
            time.sleep(0.005)

    def let_end(self) -> None:
        """Tell the engine that it may."""
        Path(self.folder, "end").touch()

    def result(self, limit: float = BOUND_S) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of the front; nothing may be left."""
        assert self.front is not None
        try:
            out, err = self.front.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"has not ended: {self.alive()}") from None
        _took, left = self.until_empty(limit=10)
        assert left == {}
        return self.front.returncode, (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace")

    def whole(self, text: str) -> bool:
        """As `whole`, but for what those of ours who were killed took along.

        That is what each had read and not yet written: one piece, of lines from before it was gone; mostly a line, as
        this engine writes one at a time, and more where the machine is so busy that several were there to be read.
        """
        missing = lost(text)
        if missing is None:
            return False
        told = (line.split() for line in Path(self.folder, "written").read_text().splitlines())
        written = {int(number): float(at) for number, at in told}
        pieces = [number for number in missing if number - 1 not in missing]
        return len(pieces) <= self._kills and all(written[number] < self._killed_at for number in missing)

    def verdict(self) -> dict[str, object]:
        """`verdict.json` of the only run."""
        (run,) = os.listdir(self.home)
        told: dict[str, object] = json.loads(Path(self.home, run, "verdict.json").read_text())
        return told


def whole(text: str) -> bool:
    """Every line from the first to the last, each once, in order."""
    return lost(text) == []


def lost(text: str) -> list[int] | None:
    """The lines that are not there; null if it is not whole in another way."""
    lines = [line for line in text.splitlines() if line.startswith(("line ", "last "))]
    numbers = [int(line.split()[1]) for line in lines[:-1]]
    if not lines or not lines[-1].startswith("last ") or numbers != sorted(set(numbers)):
        return None
    return sorted({*range(1, int(lines[-1].removeprefix("last ")) + 1)} - {*numbers})


def pending(pid: int) -> int:
    """Signals that a process has been sent and has not taken, a bit each (proc_pid_status(5))."""
    (mask,) = (line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "ShdPnd" in line)
    return int(mask, 16)


__all__ = ["Engine", "command_line", "whole"]
