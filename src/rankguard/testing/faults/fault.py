"""The nouns of the laboratory: what a fault is (`Fault`), and one circumstance in which it is made (`Cell`).

Read next: `catalogue/` (which there are), `actor.py` (how the ranks play), `play.py` (one cell, from start to checks).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rankguard.record import Record
from rankguard.testing.faults.checks import Expect
from rankguard.testing.faults.surroundings import Surroundings

if TYPE_CHECKING:
    from rankguard.testing.faults.stage import Stage

PHASES = ("starting", "ready-early", "all-ready", "stopping")
"""When the victim fails: before its own readiness; after it, while the others still start; when all are ready; when a
SIGTERM from outside has come, which makes nobody a failure."""
STARTS = ("exec", "function")
"""How the ranks come to be: `rankguard run -n N python -m …`, or `rankguard.launch` of a function."""


class Cell(Record):
    """One circumstance in which a fault is made. `victim` is the rank that fails, `at` one of `PHASES`."""

    at: str = "all-ready"
    ranks: int = 3
    victim: int = 1
    start: str = "exec"
    here: Surroundings = Surroundings()


class Fault(Record):
    """One way in which a rank fails, how it is made, and what must come of it."""

    name: str
    what: str
    """One line, as the list of drills shows it."""
    part: str
    """`module:function` below `parts/`: what the victim does. A function `others_FUNCTION` is done by the others."""
    expect: Callable[[Cell], Expect]
    phases: tuple[str, ...] = PHASES
    starts: tuple[str, ...] = STARTS
    options: Callable[[Cell], tuple[str, ...]] = lambda _cell: ()
    """What `rankguard run` is told beside the number of ranks."""
    needs: Callable[[Surroundings], str | None] = lambda _here: None
    """Why it cannot be made on this machine; null when it can."""
    arrange: "Callable[[Stage, Cell], AbstractContextManager[tuple[str, ...]]] | None" = None
    """Sets up what must be there before the command starts; gives the words that go before the command."""
    program: "Callable[[Stage, Cell, tuple[str, ...]], tuple[str, ...]] | None" = None
    """The program's words in place of the usual ones (which it is given), for ranks that are not simply Python."""
    least_ranks: int = 2
    alone: bool = False
    """Cells of others that run at the same time on this machine may be disturbed: memory, processes, disk."""
    bound_s: float = 10.0
    """How long the whole of it may take on a quiet machine, start and stop included."""

    def why_not(self, cell: Cell) -> str | None:
        """Why this cell cannot be made; null when it can."""
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
