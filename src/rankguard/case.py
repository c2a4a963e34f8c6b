"""The case: all that is known of a job when somebody has to judge it. The core makes it, the diagnosis reads it.

It exists so that `core` and `diagnosis` need not know each other. Frozen; made at most a few times in a job's life.
"""

from rankguard.facts import (
    Examined,
    Exited,
    Extended,
    FailureReported,
    FrontLost,
    GpusRead,
    Judged,
    KernelKilled,
    KernelNoted,
    Looked,
    Mustered,
    NotSpawned,
    OomSeen,
    Perished,
    ProtocolBroken,
    StatusTold,
    StopRequested,
    SupervisorLost,
    Surveyed,
    TreeEmpty,
    WardenLost,
)
from rankguard.jobspec import JobSpec
from rankguard.model import Attempt, Memory, MemoryState, Moment, Phase
from rankguard.record import Record


class RankCase(Record):
    """What is known of one rank. Instants are seconds of our monotonic clock; null has not happened."""

    rank: int
    name: str | None = None
    pid: int | None = None
    phase: Phase = Phase.LAUNCHING
    """At its own failure or ending, and for one that we stopped: when the stop was ordered."""
    spawned_at: float | None = None
    ready_at: float | None = None
    failed_at: float | None = None
    """Its first failure of its own: a report, a broken protocol, an ending not caused by us."""
    exited: Exited | None = None
    not_spawned: NotSpawned | None = None
    report: FailureReported | None = None
    """The first failure it reported."""
    broken: ProtocolBroken | None = None
    complained: int | None = None
    """The signal it sent to its parent: one that would have ended that."""
    accused: bool = False
    """And it lived on, for seconds (`core/policy.py`) or until something else failed: that signal is its failure."""
    dying: str | None = None
    """What the look on the first failure showed of it (`Looked.dying`)."""
    suspect: bool = False
    """It failed first, or was already dying at the first look: one of those among whom the culprit is."""
    late: bool = False
    """Its time to become ready had passed."""
    signalled_at: float | None = None
    """When we first sent it a signal."""
    killed_by_us: bool = False
    """We sent SIGKILL."""
    ooms: tuple[KernelKilled, ...] = ()
    status: StatusTold | None = None
    extended: Extended | None = None
    memory: Memory = Memory()
    role: str | None = None
    """Of a watched process."""
    left: bool = False
    """A watched process that ended without a failure of its own while the others went on, as it may not."""


class Case(Record):
    """What is known of a job."""

    spec: JobSpec
    started_at: float
    started_wall: float
    now: float
    ranks: tuple[RankCase, ...]
    expects_ready: bool = False
    all_ready_at: float | None = None
    failed_at: float | None = None
    failed_by: str | None = None
    """Which news was the first failure: `exit`, `report`, `protocol`, `not-spawned`, `complaint`, `ready-timeout`,
    `stall`, `front-lost`, `warden-lost`, `supervisor-lost`; null when nothing failed."""
    detected_in_s: float | None = None
    """From the wake-up that brought the first failure to the order to stop."""
    signalled_first_at: float | None = None
    """When that order had been carried out."""
    stop: StopRequested | None = None
    """The request from outside, when one came before any failure."""
    looked: Looked | None = None
    examined: Examined | None = None
    """What all ranks were doing when one of them was found stalled."""
    mustered: Mustered | None = None
    """Who came to a collective that timed out, and who did not."""
    judged: Judged | None = None
    lost: FrontLost | WardenLost | SupervisorLost | None = None
    tree: TreeEmpty | None = None
    stopped_at: float | None = None
    """When we first told the ranks to end."""
    ended_at: float | None = None
    """When the last rank had ended."""
    other_ooms: tuple[KernelKilled, ...] = ()
    """OOM kills in the kernel log that were none of our ranks."""
    ooms_seen: tuple[OomSeen, ...] = ()
    """The kernel's word that there was an OOM, in order; never of whom."""
    notes: tuple[KernelNoted, ...] = ()
    """Of the kernel log: crashes and GPU errors."""
    surveys: tuple[Surveyed, ...] = ()
    """What the machine was like after the failure, in pieces."""
    gpus: GpusRead | None = None
    memory: MemoryState = MemoryState()
    attempts: tuple[Attempt, ...] = ()
    """Those that failed before this one."""
    perished: tuple[Perished, ...] = ()
    """Of a watched tree: the last that ended abnormally and are no failures."""
    warm: bool = False
    """Ranks were forked of the warm server."""
    warnings: tuple[str, ...] = ()
    degraded: int = 0
    """Parts of rankguard that failed and were done without."""
    timeline: tuple[Moment, ...] = ()
