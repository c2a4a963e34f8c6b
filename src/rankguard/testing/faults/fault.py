"""The nouns of the laboratory: what a fault is (`Fault`), and one circumstance in which it is made (`Cell`).

Read next: `catalogue/` (which there are), `actor.py` (how the ranks play), `cells.py` (one cell, from start to checks).
"""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from os import PathLike
from typing import TYPE_CHECKING

from rankguard.errors import UsageError
from rankguard.record import Record
from rankguard.testing.faults.checks import Expect
from rankguard.testing.faults.surroundings import Surroundings

if TYPE_CHECKING:
    from rankguard.testing.faults.stage import Stage

PHASES = ("starting", "ready-early", "all-ready", "stopping")
"""When the victim fails: before its own readiness; after it, while the others still start; when all are ready; when a
SIGTERM from outside has come, which makes nobody a failure."""
STARTS = ("exec", "warm", "function")
"""How the ranks come to be: `rankguard run -n N python -m …`, the same with `--start warm`, or `rankguard.launch` of a
function."""


class Cell(Record):
    """One circumstance in which a fault is made."""

    at: str = "all-ready"
    """When the victim fails: one of `PHASES`."""
    ranks: int = 3
    """How many there are."""
    victim: int = 1
    """The rank that fails."""
    start: str = "exec"
    """How the ranks come to be: one of `STARTS`."""
    here: Surroundings = Surroundings()
    """What this machine allows: `look()`. Without it: everything."""


class Fault(Record):
    """One way in which a rank fails, how it is made, and what must come of it."""

    name: str
    """What `rankguard drill` and `FAULTS` call it."""
    what: str
    """One line, as the list of drills shows it."""
    part: str
    """`module:function` below `parts/`: what the victim does. A function `others_FUNCTION` is done by the others."""
    expect: Callable[[Cell], Expect]
    """What must come of it in a circumstance."""
    phases: tuple[str, ...] = PHASES
    """Those in which it has a meaning."""
    starts: tuple[str, ...] = STARTS
    """Those in which it has one."""
    options: Callable[[Cell], tuple[str, ...]] = lambda _cell: ()
    """What `rankguard run` is told beside the number of ranks."""
    needs: Callable[[Surroundings], str | None] = lambda _here: None
    """Why it cannot be made on this machine; null when it can."""
    arrange: "Callable[[Stage, Cell], AbstractContextManager[tuple[str, ...]]] | None" = None
    """Sets up what must be there before the command starts; gives the words that go before the command."""
    program: "Callable[[Stage, Cell, tuple[str, ...]], tuple[str, ...]] | None" = None
    """The program's words in place of the usual ones (which it is given), for ranks that are not simply Python."""
    least_ranks: int = 2
    """Fewer ranks do not show it."""
    alone: bool = False
    """Cells of others that run at the same time on this machine may be disturbed: memory, processes, disk."""
    bound_s: float = 25.0
    """How long the whole of it may take, start and stop included. On a quiet machine a tenth of it is enough for most."""

    def why_not(self, cell: Cell) -> str | None:
        """Why `cell` cannot be made; None when it can."""
        if cell.at not in self.phases:
            return f"it has no meaning {WHEN[cell.at]}"
        if cell.start not in self.starts:
            return "it is about a program, not a function"
        if cell.ranks < self.least_ranks:
            return f"it needs {self.least_ranks} ranks"
        return self.needs(cell.here)


WHEN = {
    "starting": "before the rank is ready",
    "ready-early": "while others start",
    "all-ready": "when all are ready",
    "stopping": "while the job is being stopped",
}


def words(name: str, cell: Cell, folder: str | PathLike[str]) -> tuple[str, ...]:
    """A fault's program as Python is to run it: what stands behind `python`, or behind the options of `rankguard run`."""
    asked = ("--at", cell.at, "--victim", str(cell.victim), "--folder", os.fspath(folder))
    return ("-m", "rankguard.testing.faults", name, *asked)


def command(name: str, cell: Cell, folder: str | PathLike[str]) -> list[str]:
    """A fault's program as any launcher can start it, once for each rank, with RANK and WORLD_SIZE set.

    `name`: of the fault, a key of `FAULTS`.
    `cell`: when the victim fails, and which rank that is.
    `folder`: an empty one, where the ranks meet.

    Raises `UsageError` for a fault or a phase that there is not: its ranks would only fail in another way.
    """
    from rankguard.testing.faults.catalogue import FAULTS  # which is made of what stands here

    if name not in FAULTS:
        raise UsageError(f"there is no fault {name!r}", "rankguard drill lists them")
    if cell.at not in PHASES:
        raise UsageError(f"at={cell.at!r} is not known", ", ".join(PHASES))
    return [sys.executable, *words(name, cell, folder)]
