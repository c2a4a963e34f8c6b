"""What the driver asks of a launcher: ways for ranks to come to be, watched and ended alike.

A launcher turns orders into system calls and news of the kernel into facts; it decides nothing. `exec.py` executes
programs on this machine. Whoever adds one runs the conformance test over it (`tests/launchers/`).
"""

from collections.abc import Callable
from typing import Protocol

from rankguard.facts import Fact, Looked, Silences
from rankguard.jobspec import JobSpec
from rankguard.launchers.terminal import Terminal
from rankguard.launchers.warmstart import WarmStart
from rankguard.linux.cgroup import JobGroups
from rankguard.linux.kmsg import KernelLog
from rankguard.linux.memory import MemoryDomain
from rankguard.model import Ending, Sign
from rankguard.record import Record

Emit = Callable[[Fact], None]
PeerDeath = Callable[[str], str | None]
"""Whether a text says that its rank ended because another one did (`diagnosis/peers.py`)."""


class Launcher(Protocol):
    """The hands of the driver."""

    def spawn(self, first: int, last: int) -> None:
        """Start ranks; each becomes a `Spawned` or a `NotSpawned`."""

    def look(self, now: float) -> Looked:
        """Who is already dying, who holds what memory. Before any signal of ours."""

    def silences(self, now: float, since: float) -> Silences:
        """Which ranks have given no sign of progress since then."""

    def signs(self, now: float) -> tuple[Sign, ...]:
        """The last sign of progress of every rank that has a process and has not ended."""

    def signal_all(self, number: int, spare: frozenset[int], *, ends: bool) -> int:
        """Signal every rank that has not ended; how many were reached. `ends`: ranks still to be started are not."""

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


class Told(Protocol):
    """Where the output of ranks goes (`report/output.py`)."""

    def feed(self, rank: int, which: int, data: bytes, now: float) -> None:
        """Bytes of a rank's stdout (0) or stderr (1)."""

    def ended(self, rank: int, which: int) -> None:
        """Nothing more comes."""

    def tail(self, rank: int) -> tuple[str, ...]:
        """The last lines of a rank."""

    def log_of(self, rank: int) -> str | None:
        """`stderr` or `stdout`: which of a rank's files to read first; None when it has none."""


class Keeper(Protocol):
    """Who goes on when we are gone (`--on-lost keep`, `supervisor/keeping.py`)."""

    slots: int
    """The file in which each process writes its pid."""

    def at(self, rank: int) -> int:
        """Where in that."""

    def hold(self, outputs: tuple[int, int]) -> None:
        """The read ends of a process that is about to be started."""

    def ended(self, rank: int, pid: int, ending: Ending) -> None:
        """How it ended, before it is reaped."""


class Surroundings(Record):
    """What a launcher is given by the supervisor."""

    spec: JobSpec
    port: int
    """MASTER_PORT."""
    private_dir: str
    """Where notify sockets are; begins with `@` when no folder could be made (an abstract name)."""
    terminal: Terminal
    warm: WarmStart
    """How ranks come to be. It outlives an attempt; all else here may be another one's."""
    passed: tuple[int, ...]
    groups: JobGroups
    kernel_log: KernelLog
    memory: MemoryDomain
    output: Told
    clock: Callable[[], float]
    redact: Callable[[str], str]
    peer_death: PeerDeath
    note: Callable[[str], None]
    """A line for the journal."""
    on_payload: Callable[[int, bytes | None, int | None], None]
    """A rank's readiness: rank, JSON, or the file that holds it."""
    keeper: Keeper | None = None
    """Null: what is started ends with us."""
