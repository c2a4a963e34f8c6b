"""A folder of packages that are not the program's own, as installed ones are, and the runs of programs that use them."""

import os
from pathlib import Path

import pytest
from tests.run.command import Ended, Ranks


class Warm:
    """`package(name, text)` puts a module where ranks find it; `run` starts a program warm unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.ranks = Ranks(folder)
        self.packages = folder / "packages"
        self.packages.mkdir()
        self.env = os.environ | {"PYTHONPATH": str(self.packages)}

    def package(self, name: str, text: str) -> None:
        (self.packages / f"{name}.py").write_text(text)

    def run(self, n: int, text: str, *options: str, start: str = "warm", args: tuple[str, ...] = ()) -> Ended:
        return self.ranks.run(n, text, "--start", start, *options, args=args, env=self.env)


def notes(ended: Ended) -> str:
    """What the journal says beside facts and orders."""
    lines = (ended.folder / "events.jsonl").read_text().splitlines()
    return "\n".join(line for line in lines if '"note"' in line)


@pytest.fixture
def warm(tmp_path: Path) -> Warm:
    return Warm(tmp_path)
