"""Jobs for the tests of signals: rank programs that say when they are up, and what they hear."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

HEAR = """
import os, signal, sys, time
RANK = int(os.environ["RANK"])
def say(text):
    fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
    os.write(fd, (text + "\\n").encode())
    os.close(fd)
def on(number, act):
    signal.signal(number, lambda *_: act())
def wait_for_go():
    open(sys.argv[1] + ".go").read()
def forever():
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    while True: os.read(ours, 64)
"""
"""Every program begins with this. `say` writes a line into the FIFO that the test reads: the handshake. `forever` waits for
bytes that the interpreter writes when a signal comes, as a `pause()` would wait in vain for one that comes just before it.
"""


class Job:
    """One `rankguard run`, started and up: `up` lines have come from all ranks."""

    def __init__(
        self,
        folder: Path,
        n: int,
        text: str,
        *options: str,
        up: int | None = None,
        wrap: tuple[str, ...] = (),
        **how: Any,
    ) -> None:
        self.folder, self._n = folder, n
        self.run_dir = folder / "run"
        program = folder / "program.py"
        program.write_text(HEAR + text)
        fifo = folder / "said"
        os.mkfifo(fifo)
        os.mkfifo(f"{fifo}.go")
        self._fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        self._said = b""
        self.words = [
            *wrap, sys.executable, "-m", "rankguard", "run", "-n", str(n), "--run-dir", str(self.run_dir), *options,
            str(program), str(fifo),
        ]  # fmt: skip
        how = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "cwd": folder,
        } | how
        self.process = subprocess.Popen(self.words, **how) if not how.pop("by_hand", False) else None
        if self.process is not None:
            self.until("up", n if up is None else up)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._fd)
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.send_signal(signal.SIGCONT)
            self.process.communicate()

    def until(self, word: str, times: int = 1, timeout: float = 30.0) -> list[str]:
        """Wait until ranks have said `word` (the first of a line) so often since the last call; the lines that had it."""
        until, ended = time.monotonic() + timeout, None
        while True:
            whole = self._said.decode().splitlines(keepends=True)
            lines = [line.strip() for line in whole if line.endswith("\n")]
            found = [line for line in lines if line.split()[0] == word]
            if len(found) >= times:
                self._said = "".join(line for line in whole if line.strip() not in found).encode()
                return found
            assert ended is None, f"ended with {ended}: {self._state()}"
            left = until - time.monotonic()
            assert left > 0, f"no {times} × {word!r} after {timeout} s, but {lines}; {self._state()}"
            ended = None if self.process is None else self.process.poll()  # before the look at what was said until then
            if select.select([self._fd], [], [], 0 if ended is not None else min(left, 0.5))[0]:
                self._said += os.read(self._fd, 65536)

    def _state(self) -> str:
        if self.process is None or self.process.poll() is None:
            return "the job runs"
        return self.process.communicate()[1] or ""

    def kill(self, number: int) -> None:
        """Send a signal to the front."""
        assert self.process is not None
        self.process.send_signal(number)

    def ours(self) -> dict[str, int]:
        """The pids of `front`, `warden` and `supervisor`."""
        assert self.process is not None
        (warden,) = children(self.process.pid)
        (supervisor,) = children(warden)
        return {"front": self.process.pid, "warden": warden, "supervisor": supervisor}

    def pids(self) -> list[int]:
        """The ranks', by rank, as the journal has them (which may have them later than they say that they are up)."""
        self.until_fact("Spawned", self._n)
        return [fact["pid"] for fact in sorted(self.facts("Spawned"), key=lambda fact: fact["rank"])]

    def facts(self, *kinds: str) -> list[dict[str, Any]]:
        """Facts of these kinds in the journal so far."""
        try:
            lines = (self.run_dir / "events.jsonl").read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return [entry for entry in entries if entry.get("fact") in kinds]

    def go(self) -> None:
        """The one rank that waits for it goes on."""
        (self.folder / "said.go").write_text("")

    def until_fact(self, kind: str, times: int = 1, timeout: float = 30.0, **fields: Any) -> None:
        """Wait until the journal tells of it. (Nobody else can be asked; the file is looked at again and again.)"""
        until = time.monotonic() + timeout
        while True:
            found = [fact for fact in self.facts(kind) if fields.items() <= fact.items()]
            if len(found) >= times:
                return
            assert time.monotonic() < until, f"no {times} × {kind} {fields} after {timeout} s: {self.facts(kind)}"
            time.sleep(0.01)

    def until_verdict(self, timeout: float = 30.0) -> None:
        """Wait until the verdict is on disk."""
        until = time.monotonic() + timeout
        while not (self.run_dir / "verdict.json").exists():
            assert time.monotonic() < until, f"no verdict after {timeout} s: {self.facts('TreeEmpty')}"
            time.sleep(0.01)

    def ended(self, timeout: float = 40.0) -> tuple[int, dict[str, Any], str]:
        """Exit status, verdict and stderr."""
        assert self.process is not None
        _out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, self.verdict(), err

    def verdict(self) -> dict[str, Any]:
        """What is on disk."""
        return dict(json.loads((self.run_dir / "verdict.json").read_text()))


def children(pid: int) -> list[int]:
    """The children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state(pid: int) -> str:
    """The kernel's letter: `T` for one that stands still."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until_in(path: Path, text: str, timeout: float = 30.0) -> None:
    """Wait until a file has this text."""
    until = time.monotonic() + timeout
    while text not in path.read_text():
        assert time.monotonic() < until, f"no {text!r} after {timeout} s: {path.read_text()}"
        time.sleep(0.01)


def until_state(pid: int, letters: str, timeout: float = 20.0) -> None:
    """Wait until a process is in one of these states; who stops or goes on tells nobody but its parent."""
    until = time.monotonic() + timeout
    while state(pid) not in letters:
        assert time.monotonic() < until, f"{pid} is {state(pid)}, not {letters}"
        time.sleep(0.01)
