"""Engines to be watched, of real processes: a root, an engine core below it, and workers below that.

A process gets its title as a program gets its first argument, which setproctitle only changes later: `cat` executed under
another name is `VLLM::Worker_TP1` in `/proc`, and waits for as long as somebody holds the other end of its stdin.
"""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.run.command import Ended

HEAD = """
import json, os, shutil, signal, subprocess, sys, time
CAT = shutil.which("cat")

def titled(title, **more):
    return subprocess.Popen([title], executable=CAT, stdin=subprocess.PIPE, **more)

def told(**pids):
    with open(sys.argv[1], "w") as fifo:  # the test waits at the other end
        json.dump(pids, fifo)
"""

CORE = (
    HEAD
    + """
if sys.argv[2:] == ["core"]:
    workers = [titled(f"VLLM::Worker_TP{n}") for n in range(3)]
    told(root=os.getppid(), core=os.getpid(), workers=[each.pid for each in workers])
    while True:
        time.sleep(3600)
core = subprocess.Popen([sys.executable, __file__, sys.argv[1], "core"])
sys.exit(core.wait() and 0)
"""
)
"""Root, core and three workers; the core does not look at its workers, and nothing ends when one is gone: the seed."""


class Engines:
    """Writes engines into a folder, watches them with the real command, and does something to them meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    def start(self, text: str, *options: str, **more: Any) -> "Watched":
        self._count += 1
        here = self.folder / f"run-{self._count}"
        script, fifo = self.folder / f"engine-{self._count}.py", self.folder / f"fifo-{self._count}"
        script.write_text(textwrap.dedent(text))
        os.mkfifo(fifo)
        words = [sys.executable, "-m", "rankguard", "watch", "--run-dir", str(here), *options]
        command = [*words, "--", sys.executable, str(script), str(fifo)]
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return Watched(subprocess.Popen(command, text=True, **(settings | more)), here, fifo)


class Watched:
    """An engine under `rankguard watch`."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path, fifo: Path) -> None:
        self.process, self.folder, self.fifo = process, folder, fifo

    def pids(self) -> dict[str, Any]:
        """What the engine tells once it is up."""
        return dict(json.loads(self.fifo.read_text()))

    def facts(self) -> list[dict[str, Any]]:
        """Of the journal, so far: the lines that are whole."""
        try:
            whole = (self.folder / "events.jsonl").read_text().rpartition("\n")[0]
        except FileNotFoundError:
            return []
        return [entry for line in whole.splitlines() if line.startswith('{"') and "fact" in (entry := json.loads(line))]

    def wait_for(self, fact: str, times: int = 1) -> list[dict[str, Any]]:
        """Until the journal has so many of them (the file is not ours, so it is read again and again)."""
        self._until(lambda: len([each for each in self.facts() if each["fact"] == fact]) >= times)
        return [each for each in self.facts() if each["fact"] == fact]

    def joined(self, pids: list[int]) -> None:
        """Until these take part."""
        self._until(lambda: set(pids) <= self._names().keys())

    def called(self, names: dict[int, str]) -> None:
        """Until it knows these by these names: who takes another title is looked at again after 50 ms at the soonest."""
        self._until(lambda: names.items() <= self._names().items())

    def _names(self) -> dict[int, str]:
        """Of those who take part, as it was told last."""
        return {each["pid"]: each["name"] for each in self.facts() if each["fact"] == "Joined"}

    def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)

    def end(self) -> Ended:
        out, err = self.process.communicate(timeout=60)
        return Ended(subprocess.CompletedProcess(self.process.args, self.process.returncode, out, err), self.folder)
