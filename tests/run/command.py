"""Run the real command and keep what it left: status, output, verdict, journal."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


class Ended:
    """One finished `rankguard run`."""

    def __init__(self, ended: subprocess.CompletedProcess[str], folder: Path) -> None:
        self.status, self.stdout, self.stderr, self.folder = ended.returncode, ended.stdout, ended.stderr, folder

    @property
    def verdict(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "verdict.json").read_text()))

    @property
    def cause(self) -> dict[str, Any]:
        return dict(self.verdict["culprit"]["cause"])

    @property
    def facts(self) -> list[dict[str, Any]]:
        """Every fact of the journal."""
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if "fact" in entry]

    @property
    def last_line(self) -> str:
        return self.stderr.rstrip("\n").rpartition("\n")[2]


class Ranks:
    """Writes rank programs into a folder and runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    def program(self, text: str, name: str = "program.py") -> str:
        path = self.folder / name
        path.write_text("import os, signal, sys, time\nRANK = int(os.environ.get('RANK', -1))\n" + text)
        return str(path)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "rankguard", "run", *words]

    def next_dir(self) -> Path:
        self._count += 1
        return self.folder / f"run-{self._count}"

    def run(self, n: int, text: str, *options: str, args: tuple[str, ...] = (), **more: Any) -> Ended:
        """Run `text` as n ranks to the end."""
        return self.words(["-n", str(n), *options, self.program(text), *args], **more)

    def words(self, words: list[str], **more: Any) -> Ended:
        run_dir = self.next_dir()
        env = more.pop("env", dict(os.environ))
        before = more.pop("before", ())
        ended = subprocess.run(
            [*before, *self.command("--run-dir", str(run_dir), *words)],
            text=True, env=env, timeout=60, check=False,
            **({"capture_output": True, "stdin": subprocess.DEVNULL} | more),
        )  # fmt: skip
        return Ended(ended, run_dir)
