"""Ranks that do what a test tells them, on a real terminal: `act` has a rank run some Python, and nothing depends on time."""

import os
import re
import sys
from pathlib import Path
from typing import Self

from tests.terminal import Terminal

PUPPET = r"""
import os, socket, sys
RANK = int(os.environ["RANK"])
def notify(text, peer=socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)):
    peer.sendto(text if isinstance(text, bytes) else text.encode(), os.environ["NOTIFY_SOCKET"].replace("@", "\0"))
def say(text, fd=1):
    os.write(fd, text if isinstance(text, bytes) else text.encode())
with open(f"{sys.argv[1]}/{RANK}") as told:
    for line in told:
        exec(line)
"""
HEADING = "rank  phase     status"
SUM = re.compile(r"^\d+ of \d+ ready(?: ·|,) |^\d+ ranks? running(?: ·|,) ")
PLAIN = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}


class Stage:
    """A job on a terminal. `words` are options of `run`; `shell` puts `{}`, the command, into a line of bash."""

    def __init__(
        self, folder: Path, n: int, *words: str, rows: int = 24, columns: int = 80, shell: str | None = None,
        program: str | None = None, env: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.fifos = []
        (folder / "told").mkdir()
        for rank in range(n):
            path = folder / "told" / str(rank)
            os.mkfifo(path)
            self.fifos.append(os.open(path, os.O_RDWR))
        puppet = folder / "puppet.py"
        puppet.write_text(PUPPET)
        run = [sys.executable, "-m", "rankguard", "run", "-n", str(n), "--run-dir", str(folder / "run"), *words]
        run += [program or str(puppet), str(folder / "told")]
        command = ["bash", "-c", shell.format(" ".join(run))] if shell else run
        kept = {
            name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI", "LC_ALL", "LC_CTYPE")
        }
        self.terminal = Terminal(*command, rows=rows, columns=columns, env=kept | PLAIN | (env or {}))
        self.expect = self.terminal.expect_screen

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for fd in self.fifos:
            os.close(fd)
        self.terminal.__exit__(*error)

    def act(self, rank: int, code: str) -> None:
        """Have a rank run a line of Python; it knows `notify(text)`, `say(text, fd)` and `RANK`."""
        os.write(self.fifos[rank], code.encode() + b"\n")

    def all(self, code: str) -> None:
        for rank in range(len(self.fifos)):
            self.act(rank, code)

    def close(self) -> int:
        """Let every rank come to its end; the exit status."""
        self.all("raise SystemExit(0)")
        status = self.terminal.wait()
        self.terminal.read_until_closed()
        return status

    def told(self) -> list[str]:
        """All that stands on the terminal in the end, with the numbers that differ from run to run as `N`."""
        text = "\n".join(self.terminal.scrolled())
        text = re.sub(r"\d+(\.\d+)? m?s\b", "N s", text)
        text = re.sub(r"^note: left behind.*?(?=^rankguard: )", "", text, flags=re.DOTALL | re.MULTILINE)  # others' too
        return re.sub(r"run=[0-9a-z]+", "run=N", text).split("\n")


def frame(rows: list[str]) -> list[str]:
    """The rows of a whole table, from its heading to its sum; empty while there is none."""
    heads = [index for index, row in enumerate(rows) if row.startswith(HEADING)]
    if len(heads) != 1 or not SUM.match(rows[-1]):
        return []
    return rows[heads[0] :]


def has(*texts: str):
    """For `expect`: every text is on the screen."""
    return lambda rows: all(any(text in row for row in rows) for text in texts)


def has_frame(*texts: str):
    """For `expect`: a whole table, with these texts in it."""
    return lambda rows: bool(frame(rows)) and has(*texts)(frame(rows))


def has_no_frame(*texts: str):
    """For `expect`: these texts, and nothing of a table."""
    return lambda rows: not any(row.startswith(HEADING) or SUM.match(row) for row in rows) and has(*texts)(rows)
