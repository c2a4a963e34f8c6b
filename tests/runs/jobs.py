"""Real jobs that live while a test asks about them, and real commands that ask."""

import contextlib
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.run.command import Ranks

TELL = "os.write(os.open(sys.argv[1], os.O_WRONLY), b'x')"
"""A rank says that it is there; put it on the line on which it is to be found."""


class Live:
    """A job whose ranks have all said that they are there."""

    def __init__(self, process: subprocess.Popen[str], folder: Path | None, run_id: str) -> None:
        self.process, self.folder, self.id = process, folder, run_id
        self.litter: Path | None = None
        """The private folder that nobody is left to remove."""

    @property
    def facts(self) -> list[dict]:
        """So far. A long line is there in parts for a moment: each page of the file is shown as soon as it is written."""
        whole = (self.folder / "events.jsonl").read_text().rpartition("\n")[0]
        return [entry for entry in map(json.loads, whole.splitlines()) if "fact" in entry]

    def pid(self, rank: int) -> int:
        """A shell may have spoken before the journal says that it executes."""
        found: list[int] = []

        def told() -> bool:
            found[:] = [f["pid"] for f in self.facts if f["fact"] == "Spawned" and f["rank"] == rank]
            return bool(found)

        until(told)
        return found[0]

    def asleep(self, *ranks: int) -> None:
        """Until they wait: one that has said that it is there may still be about to."""
        until(lambda: all(state(self.pid(rank)) == "S" for rank in ranks))

    def ours(self) -> list[int]:
        """Front, warden, supervisor."""
        warden = _child(self.process.pid)
        return [self.process.pid, warden, _child(warden)]

    def cut_off(self) -> None:
        """SIGKILL for all three in one instant: each is held before any dies, so that none can act."""
        pids = self.ours()
        self.litter = Path(os.readlink(self.folder / "control")).parent
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)
        self.process.wait()
        until(lambda: not any(map(_lives, pids[1:])))


class Jobs:
    def __init__(self, folder: Path) -> None:
        self.ranks = Ranks(folder)
        self.folder = folder
        self.home = folder / "home"
        others = {"XDG_STATE_HOME": str(folder / "state"), "TMPDIR": str(folder / "tmp")}  # no runs of anybody else
        self.env = dict(os.environ) | {"RANKGUARD_HOME": str(self.home)} | others
        self._live: list[Live] = []

    def ask(self, *words: str, **more) -> subprocess.CompletedProcess[str]:
        """One `rankguard …` to its end."""
        env = more.pop("env", self.env)
        return subprocess.run(
            [sys.executable, "-m", "rankguard", *words],
            capture_output=True, text=True, env=env, timeout=60, stdin=subprocess.DEVNULL, **more,
        )  # fmt: skip

    def start(
        self,
        n: int,
        text: str,
        *options: str,
        env: dict[str, str] | None = None,
        program: str = "",
        before: tuple[str, ...] = (),
    ) -> Live:
        """Start a job; returns when every rank has said that it is there (`TELL`, or a byte into `$1`)."""
        fifo = self.folder / f"there-{len(self._live)}"
        os.mkfifo(fifo)
        path = program or self.ranks.program(text, f"program-{len(self._live)}.py")
        known = set(os.listdir(self.home)) if self.home.exists() else set()
        words = [*before, *self.ranks.command("-n", str(n), *options, path, str(fifo))]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env | (env or {})
        )
        fd = os.open(fifo, os.O_RDWR)
        said = b""
        while len(said) < n:
            said += os.read(fd, n)
        os.close(fd)
        made = set(os.listdir(self.home)) - known if self.home.exists() else set()
        folder = self.home / made.pop() if made else None
        live = Live(process, folder, folder.name if folder else "")
        self._live.append(live)
        return live

    def run(self, n: int, text: str, *options: str) -> str:
        """A job to its end; its run's id."""
        before = set(os.listdir(self.home)) if self.home.exists() else set()
        self.ask("run", "-n", str(n), *options, self.ranks.program(text, f"ended-{len(before)}.py"))
        return (set(os.listdir(self.home)) - before).pop()

    def end(self) -> None:
        """End what lives, remove what a run that was cut off has left."""
        for live in self._live:
            if live.process.poll() is None:
                live.process.kill()  # its warden ends the rest
            live.process.communicate()
            if live.litter is not None:
                remove(live.litter)
                for group in glob.glob(f"/sys/fs/cgroup/**/rankguard-{live.id}*", recursive=True):
                    for folder, _folders, _files in os.walk(group, topdown=False):
                        with contextlib.suppress(OSError):
                            os.rmdir(folder)


def remove(folder: Path) -> None:
    """A folder in which somebody may still make files: one that was made meanwhile is removed with the next try."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    """Ask again and again what the kernel tells to nobody unasked; the bound is for a failure only."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.002)


def state(pid: int) -> str:
    """The kernel's letter."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _lives(pid: int) -> bool:
    try:
        return state(pid) not in "ZX"
    except OSError:
        return False
