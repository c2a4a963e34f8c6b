"""What the driver asks of a launcher: ways for ranks to come to be, watched and ended alike.

A launcher turns orders into system calls and news of the kernel into facts; it decides nothing. `exec.py` executes
programs on this machine. Whoever adds one runs the conformance test over it (`tests/launchers/`).
"""

from collections.abc import Callable
from typing import Protocol

from rankguard.facts import Fact, Looked

Emit = Callable[[Fact], None]
PeerDeath = Callable[[str], str | None]
"""Whether a text says that its rank ended because another one did (`diagnosis/peers.py`)."""


class Launcher(Protocol):
    """The hands of the driver."""

    def spawn(self, first: int, last: int) -> None:
        """Start ranks; each becomes a `Spawned` or a `NotSpawned`."""

    def look(self, now: float) -> Looked:
        """Who is already dying, who holds what memory. Before any signal of ours."""

    def signal_all(self, number: int, spare: frozenset[int]) -> int:
        """Signal every rank that has not ended (ranks still to be started are not started); how many were reached."""

    def signal_rank(self, rank: int, number: int) -> None:
        """Signal one rank."""

    def reap(self, rank: int) -> None:
        """Reap a rank that has ended; becomes a `Reaped`."""

    def next_wake(self) -> float | None:
        """When `wake` wants to be called, if at all."""

    def wake(self, now: float) -> None:
        """Do what was put off (a status that came too often, the next ranks to start)."""

    def close(self, now: float) -> None:
        """The job is over: take what the pipes still hold and close everything."""
