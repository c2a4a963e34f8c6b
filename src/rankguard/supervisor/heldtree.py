"""The tree of an engine that somebody else has started: it knows what the launcher holds, and ends no more than that.

Nothing is swept unless the core has ordered the engine's end after a failure; when it has ended by itself, or we are to
leave it, what is left of it is its owner's. Read next: `../launchers/attached.py`, `tree.py` (of our own ranks).
"""

import time
from collections.abc import Callable

from rankguard.launchers.attached import AttachedTree
from rankguard.linux import tree
from rankguard.linux.helper import AT_WORK
from rankguard.linux.shmowners import ShmOwners
from rankguard.model import Left, Survivor


class HeldTree:
    """As `JobTree`, for the driver and for the attempt. `end_helpers` ends programs of ours; `others` outlive the watch."""

    def __init__(
        self, ranks: AttachedTree, end_helpers: Callable[[], object], others: Callable[[], frozenset[int]]
    ) -> None:
        self.killed: set[int] = set()
        self.cleaned: tuple[Left, ...] = ()
        self.shm_owners: ShmOwners | None = None
        self._ranks, self._end_helpers, self._others = ranks, end_helpers, others
        self._kill = False
        self._busy: list[Callable[[], bool]] = []
        self._hurry: list[Callable[[], object]] = []

    @property
    def spared(self) -> frozenset[int]:
        """Ours, and no part of the engine."""
        return self._others()

    def wait_for(self, busy: Callable[[], bool], hurry: Callable[[], object] | None = None) -> None:
        """The tree is not empty while `busy`; `hurry` ends that."""
        self._busy.append(busy)
        self._hurry += [hurry] if hurry is not None else []

    def note(self) -> None:
        """What it leaves behind is its owner's."""

    def reap_strays(self) -> None:
        """Programs of ours alone."""
        tree.reap_strays(AT_WORK | self._others())

    def sweep(self, kill: bool) -> None:
        """Ask what is held to end, or make it end."""
        self._end_helpers()
        if kill:
            self._kill = True
            for hurry in self._hurry:
                hurry()
        reached = self._ranks.sweep(kill=kill)
        self.killed.update(reached if kill else ())

    def empty(self) -> bool:
        """The root has ended, and whatever else was to end has."""
        if not self._ranks.settle(time.monotonic()):
            if self._kill:
                self.killed.update(self._ranks.sweep(kill=True))  # what has been forked meanwhile
            return False
        return not any(busy() for busy in self._busy)

    def survivors(self) -> tuple[Survivor, ...]:
        """What refused to die, or may not be ended by us."""
        return self._ranks.left()

    def left(self) -> tuple[Left, ...]:
        """Nothing of ours."""
        return ()
