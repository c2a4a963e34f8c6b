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
    NodeJoined,
    NodeLost,
    NodeSilent,
    NodeStopping,
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
    alive_at: float | None = None
    """Of a watched engine: the last look that showed it alive, and not dying."""
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
    lost: NodeLost | None = None
    """Its node was lost before it had ended; nothing more is known of it."""


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
    nodes: tuple[NodeJoined, ...] = ()
    """Of a job on several machines: those that have joined, in order."""
    lost_nodes: tuple[NodeLost, ...] = ()
    """In the order in which that was known."""
    silent_nodes: tuple[NodeSilent, ...] = ()
    """Of which nothing is heard, for a time that is too short to call them lost."""
    stopping_nodes: tuple[NodeStopping, ...] = ()
    """Whose agents told their ranks to end by themselves."""
    warm: bool = False
    """Ranks were forked of the warm server."""
    warnings: tuple[str, ...] = ()
    degraded: int = 0
    """Parts of rankguard that failed and were done without."""
    timeline: tuple[Moment, ...] = ()

    def number_of_node(self, rank: int) -> int | None:
        """The number of the node that a rank is on; null where the job is on one machine."""
        plan = self.spec.nodes
        if plan is None:
            return None
        usual = rank // plan.nproc
        found = self.node(usual)
        if found is None or found.first <= rank < found.first + found.count:
            return usual
        return next((node.node for node in self.nodes if node.first <= rank < node.first + node.count), usual)

    def node(self, number: int) -> NodeJoined | None:
        """A node of a job on several machines; null when it has not joined."""
        if number < len(self.nodes) and self.nodes[number].node == number:
            return self.nodes[number]
        return next((node for node in self.nodes if node.node == number), None)

    def node_of(self, rank: int) -> str:
        """The name of the node that a rank is on; empty where it has not joined."""
        number = self.number_of_node(rank)
        if number is None:
            return self.spec.node
        found = self.node(number)
        return "" if found is None else found.name

    def local_rank(self, rank: int) -> int:
        """The number of a rank on its node."""
        number, plan = self.number_of_node(rank), self.spec.nodes
        if number is None or plan is None:
            return rank
        found = self.node(number)
        return rank - (number * plan.nproc if found is None else found.first)

    def ranks_of_node(self, number: int) -> tuple[int, ...]:
        """The ranks of a node of a job on several machines."""
        return tuple(rank.rank for rank in self.ranks if self.number_of_node(rank.rank) == number)

    def beside(self, rank: int) -> tuple[RankCase, ...]:
        """All ranks on the machine of this one, itself included."""
        number = self.number_of_node(rank)
        return self.ranks if number is None else tuple(r for r in self.ranks if self.number_of_node(r.rank) == number)

    def uncertainty(self, rank: int) -> float:
        """How far off an instant may be that a rank's node has told, in seconds; 0 where there is one clock."""
        number = self.number_of_node(rank)
        found = None if number is None else self.node(number)
        return 0.0 if found is None else found.uncertainty
