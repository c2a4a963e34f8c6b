"""What every row needs: a folder, the peers, the compiled rank, how many repeats, how a contender is started."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.measure import Contender, take_turns
from bench.peers import Peers

RANKS_DIR = Path(__file__).parent / "ranks"
NPROCS = 8
VICTIM = 5


class Setting:
    """`quick`: one repeat of each, small, to see that it works."""

    def __init__(
        self, folder: Path, peers: Peers, quick: bool = False, tell: Callable[[str], None] = lambda text: None
    ):
        self.folder, self.peers, self.quick, self.tell = folder, peers, quick, tell
        self.rankguard = str(Path(sys.executable).parent / "rankguard")
        os.environ["RANKGUARD_HOME"] = str(folder / "runs")
        self.rest = str(folder / "rest")
        subprocess.run(["gcc", "-O1", "-o", self.rest, RANKS_DIR / "rest.c"], check=True)

    def repeats(self, usual: int, quick: int = 1) -> int:
        return quick if self.quick else usual

    def turns(self, contenders: list[Contender]) -> dict[str, Contender]:
        """Let them take their turns; by name."""
        if self.quick:
            for each in contenders:
                each.warm_up = False
        take_turns(contenders, self.tell)
        return {each.name: each for each in contenders}

    def torch_rankguard(self) -> str:
        """Our command in the environment that has torch."""
        return str(self.peers.torch() / "rankguard")

    def torchrun(self, nprocs: int, *words: object) -> list[object]:
        """torchrun on this machine alone, by a port of its own."""
        return [self.peers.torch() / "torchrun", "--standalone", "--nproc-per-node", nprocs, *words]
