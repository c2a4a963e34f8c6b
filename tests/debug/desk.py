"""Somebody who debugs: the real command on a real terminal, with the folder of its run, and what is alive of it."""

import json
import os
import re
import select
import shlex
import termios
import time
from collections.abc import Callable
from pathlib import Path

from tests.run.command import Ranks
from tests.terminal import CTRL_C, PATIENCE, Terminal

PDB = "(Pdb) "


class Session(Terminal):
    """A job on a terminal. `run` is its folder."""

    def __init__(self, run: Path, *command: str, **more: object) -> None:
        super().__init__(*command, **more)
        self.run = run

    def log(self, rank: int, stream: str = "stdout") -> str:
        path = self.run / f"rank-{rank}/attempt-0/{stream}.log"
        return path.read_text() if path.exists() else ""

    def usable(self) -> bool:
        """The modes that a shell leaves to a command: lines, echo, keys that send signals, newlines that return."""
        _iflag, oflag, _cflag, lflag, *_rest = termios.tcgetattr(self.fd)
        return bool(lflag & termios.ICANON and lflag & termios.ECHO and lflag & termios.ISIG and oflag & termios.OPOST)

    def interrupt(self, rank: int) -> None:
        """Ctrl-C at the prompt that a rank shows. Once, and not before it waits for a key: CPython may miss one between
        the two, and a second one that it did not need would come to whatever is typed next.
        """
        told = map(json.loads, (self.run / "events.jsonl").read_text().splitlines())
        pid = next(entry["pid"] for entry in told if entry.get("fact") == "Spawned" and entry["rank"] == rank)
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
        self.send(CTRL_C)

    def told_pid(self, text: str) -> int:
        """A pid that a rank prints as `<text> <pid>.`."""
        return int(self.expect(re.compile(re.escape(text.encode()) + rb" (\d+)\."))[1])


class Desk(Ranks):
    """Starts jobs on terminals."""

    def session(self, n: int, text: str, *options: str, args: tuple[str, ...] = (), **more: object) -> Session:
        run = self.next_dir()
        words = self.command("-n", str(n), "--run-dir", str(run), *options, self.program(text), *args)
        return Session(run, *words, **more)

    def shell(self, n: int, text: str, *options: str, then: str) -> Session:
        """The job in a shell without job control, which goes on with `then`."""
        run = self.next_dir()
        words = self.command("-n", str(n), "--run-dir", str(run), *options, self.program(text))
        return Session(run, "sh", "-c", f"{shlex.join(words)}; {then}")

    def fifo(self, name: str = "gate") -> str:
        path = str(self.folder / name)
        os.mkfifo(path)
        return path


def wait_gone(pid: int, timeout: float = PATIENCE) -> None:
    """Until a process that need not be ours has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], timeout)[0], f"process {pid} lives after {timeout} s"
    finally:
        os.close(pidfd)


def wait_reaped(pid: int) -> None:
    """Until its parent has taken its ending."""
    wait_gone(pid)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"))


def wait_until(true: Callable[[], bool], timeout: float = PATIENCE) -> None:
    """For what nothing tells of: look again and again."""
    until = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < until, f"not so after {timeout} s"
        select.select([], [], [], 0.005)


def below(pid: int) -> list[int]:
    """The children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
