"""The state of a job and of its ranks. Changed by `machine.step` alone, in place; everybody else reads.

What can be derived is not stored: a rank's phase follows from its facts and from the job's, so that stopping a
hundred thousand ranks changes one field.
"""

from collections import deque

from rankguard.case import Case, RankCase
from rankguard.core.policy import PERISHED, STORY
from rankguard.facts import (
    Examined,
    Exited,
    Extended,
    Fact,
    FailureReported,
    FrontLost,
    GpusRead,
    Joined,
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
    Surveyed,
    TreeEmpty,
    WardenLost,
)
from rankguard.jobspec import JobSpec
from rankguard.model import Attempt, Memory, MemoryState, Moment, Phase
from rankguard.orders import Order


class RankState:
    """One rank. Instants are monotonic seconds; None has not happened."""

    __slots__ = (
        "accused",
        "alive_at",
        "answered",
        "broken",
        "complained",
        "complained_at",
        "complaint_due",
        "deadline",
        "dying",
        "exited",
        "extended",
        "failed_at",
        "late",
        "left",
        "lost",
        "member",
        "memory",
        "not_spawned",
        "ooms",
        "phase_at_end",
        "pid",
        "rank",
        "ready_at",
        "reaped",
        "report",
        "spawned_at",
        "status",
        "suspect",
    )

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.pid: int | None = None
        self.spawned_at: float | None = None
        self.ready_at: float | None = None
        self.failed_at: float | None = None
        self.exited: Exited | None = None
        self.not_spawned: NotSpawned | None = None
        self.report: FailureReported | None = None
        self.broken: ProtocolBroken | None = None
        self.complained: int | None = None
        self.complained_at: float | None = None
        self.complaint_due: float | None = None
        self.accused = False
        self.dying: str | None = None
        self.suspect = False
        self.alive_at: float | None = None
        """Of a watched engine: a look showed that it was not dying."""
        self.late = False
        self.reaped = False
        self.deadline: float | None = None
        self.extended: Extended | None = None
        self.status: StatusTold | None = None
        self.memory = Memory()
        self.ooms: tuple[KernelKilled, ...] = ()
        self.phase_at_end: Phase | None = None
        self.member: Joined | None = None
        self.left = False
        self.lost: NodeLost | None = None
        self.answered = False
        """On another node it ended after it was told to end, as far as anybody can tell."""

    @property
    def gone(self) -> bool:
        """It has ended, or nobody will ever tell whether it has."""
        return self.exited is not None or self.lost is not None


class Job:
    """A job: its spec, its ranks, and what has happened to it as a whole. One attempt at it; `attempts` failed before."""

    def __init__(self, spec: JobSpec, attempts: tuple[Attempt, ...] = ()) -> None:  # noqa: PLR0915  # all of a job
        self.spec, self.attempts = spec, attempts
        self.ranks = [RankState(rank) for rank in range(spec.nprocs)]
        self.started_at: float | None = None
        self.started_wall = 0.0
        self.now = 0.0
        self.expects_ready = spec.expect_ready or spec.ready_timeout is not None
        self.all_ready_at: float | None = None
        self.ready_by = float("inf")
        # Counted as they come, so that no fact costs a walk over all ranks.
        self.spawned = self.ready = self.ended = self.reaped = self.perished_told = 0
        self.warm = False
        self.ended_unready: list[int] = []
        # The first failure, and those among whom the culprit is.
        self.failed_at: float | None = None
        self.failed_by: str | None = None
        self.suspects: set[int] = set()
        self.unresolved: set[int] = set()
        self.holding = False
        self.lingering = self.echoing = False
        """The stop is held on (`policy.LINGER`); the verdict waits for what other ranks may say (`policy.ECHO`)."""
        self.leaving: set[int] = set()
        """Ranks that said that they are leaving with an exit code; their end and their last lines are still to come."""
        self.heard: set[int] = set()
        """Ranks that have ended, or said that they fail: no other news of a first failure is to come from them."""
        self.looked: Looked | None = None
        # Stalls: the examination that is under way (its number; null: none), how many there were, what the last found.
        self.examining: int | None = None
        self.examinations = 0
        self.examined: Examined | None = None
        self.stood_still: list[tuple[float, float]] = []
        """From when to when nothing could run, as far back as a silence goes; kept under `stall_timeout` alone."""
        # A collective that timed out: whether who came to it is asked, whether the verdict waits for it, what was found.
        self.mustering = self.awaits_muster = False
        self.mustered: Mustered | None = None
        self.judging = False
        self.judged: Judged | None = None
        self.lost: FrontLost | WardenLost | None = None
        # Stopping.
        self.stop: StopRequested | None = None
        # How often each signal came to each of our processes: the same request to all of them counts once.
        self.asked: dict[tuple[str, int], int] = {}
        self.announced = False
        self.stopped_at: float | None = None
        self.signalled_first_at: float | None = None
        self.noticed_at: float | None = None
        self.spared: frozenset[int] = frozenset()
        self.spared_signalled_at: float | None = None
        self.sweeping_at: float | None = None
        self.killed_at: float | None = None
        self.ended_at: float | None = None
        self.tree: TreeEmpty | None = None
        self.finished = False
        # Deadlines by name: a `DeadlinePassed` of another generation is stale. `due` has those still to come.
        self.generations: dict[str, int] = {}
        self.due: dict[str, float] = {}
        self.suspended_at: float | None = None
        self.pauses = 0
        self.lost_while_stopping = 0.0
        self.memory = MemoryState()
        self.other_ooms: tuple[KernelKilled, ...] = ()
        self.ooms_seen: tuple[OomSeen, ...] = ()
        self.notes: tuple[KernelNoted, ...] = ()
        self.surveys: tuple[Surveyed, ...] = ()
        self.gpus: GpusRead | None = None
        self.nodes: dict[int, NodeJoined] = {}
        self.lost_nodes: dict[int, NodeLost] = {}
        self.silent_nodes: dict[int, NodeSilent] = {}
        self.stopping_nodes: dict[int, NodeStopping] = {}
        self.killing_nodes: dict[int, NodeStopping] = {}
        """Nodes whose agents have told their ranks to end by themselves, or killed them."""
        self.silences = self.ranks_lost = 0
        self.awaits_nodes = False
        self.own_failure = False
        """A suspect is known to have failed by itself, and not because it lost a peer."""
        self.heard_by = 0.0
        """The verdict on ranks that only lost a peer waits until then for news of all nodes, and longer for a silent one."""
        self.perished: deque[Perished] = deque(maxlen=PERISHED)
        self.warnings: list[str] = []
        self.degraded: list[str] = []
        """Parts of rankguard that failed and are done without."""
        self.timeline: list[Moment] = []
        self.story: deque[Fact | Order] = deque(maxlen=STORY)

    @property
    def attached(self) -> bool:
        """The engine is somebody else's: it is ended after a failure, and never because we are."""
        return self.spec.watch is not None and self.spec.watch.attaches

    def phase(self, rank: RankState) -> Phase:
        """Where a rank is now."""
        if rank.exited is not None or rank.not_spawned is not None:
            return Phase.ENDED
        if rank.lost is not None:
            return Phase.LOST
        if self.stopped_at is not None:
            return Phase.STOPPING
        return self.life(rank)

    def life(self, rank: RankState) -> Phase:
        """Where a rank is in its own life, whether or not we are stopping it."""
        if rank.pid is None:
            return Phase.LAUNCHING
        if rank.ready_at is not None or (rank.member is not None and self.ranks[0].ready_at is not None):
            return Phase.READY
        return Phase.STARTING if self.expects_ready else Phase.RUNNING

    def signalled_at(self, rank: RankState) -> float | None:
        """When we first sent a signal to this rank, if it was still there to receive it."""
        if self.spec.adopted or (rank.suspect and rank.dying is not None):
            return None
        at = self.stopped_at
        if rank.rank in self.spared:
            at = self.spared_signalled_at
        if at is None or (self.killed_at is not None and self.killed_at < at):
            at = self.killed_at
        ended = rank.exited.at if rank.exited is not None else rank.lost.at if rank.lost is not None else None
        if self.spec.nodes is not None and rank.rank not in self.spared:
            return self._signalled_far(rank, at, ended)
        return None if at is None or (ended is not None and ended <= at) else at

    def _signalled_far(self, rank: RankState, at: float | None, ended: float | None) -> float | None:
        """As `signalled_at`: the rank's node may have acted by itself, and its clock is known only within bounds."""
        if rank.exited is not None and not rank.answered:
            return None
        own = self.stopping_nodes.get(self.node_of(rank.rank))
        if own is not None and (at is None or own.at < at):
            at = own.at
        if rank.lost is not None and at is not None and rank.lost.at <= at:
            return None
        return at if at is None or ended is None else min(at, ended)

    def node_of(self, rank: int) -> int:
        """The number of the node that a rank is on, of a job on several."""
        plan = self.spec.nodes
        assert plan is not None  # nobody else asks
        usual = rank // plan.nproc
        found = self.nodes.get(usual)
        if found is None or found.first <= rank < found.first + found.count:
            return usual
        return next((n.node for n in self.nodes.values() if n.first <= rank < n.first + n.count), usual)

    def node_name(self, rank: int) -> str:
        """The name of the node that a rank is on; empty where it has not joined."""
        if self.spec.nodes is None:
            return self.spec.node
        found = self.nodes.get(self.node_of(rank))
        return "" if found is None else found.name

    def ranks_of(self, node: int) -> list[RankState]:
        """The ranks of a node, be it one that has not joined."""
        found, plan = self.nodes.get(node), self.spec.nodes
        if found is not None:
            return self.ranks[found.first : found.first + found.count]
        return [] if plan is None else self.ranks[node * plan.nproc : (node + 1) * plan.nproc]

    def uncertainty(self, rank: int) -> float:
        """How far off an instant may be that this rank's node has told."""
        found = self.nodes.get(self.node_of(rank))
        return 0.0 if found is None else found.uncertainty

    def remember(self, at: float, what: str) -> None:
        """A line of the timeline (only for what happens a few times in a job)."""
        since = at if self.started_at is None else self.started_at
        self.timeline.append(Moment(round(at - since, 6), what))

    def case(self) -> Case:
        """All that is known, frozen, for whoever judges."""
        return Case(
            spec=self.spec,
            started_at=self.started_at or 0.0,
            started_wall=self.started_wall,
            now=self.now,
            ranks=tuple(self.rank_case(rank) for rank in self.ranks),
            expects_ready=self.expects_ready,
            all_ready_at=self.all_ready_at,
            failed_at=self.failed_at,
            failed_by=self.failed_by,
            detected_in_s=_span(self.failed_at, self._known_at()),
            signalled_first_at=self.signalled_first_at,
            stop=self.stop,
            looked=self.looked,
            examined=self.examined,
            mustered=self.mustered,
            judged=self.judged,
            lost=self.lost,
            tree=self.tree,
            stopped_at=self.stopped_at,
            ended_at=self.ended_at,
            other_ooms=self.other_ooms,
            ooms_seen=self.ooms_seen,
            notes=self.notes,
            surveys=self.surveys,
            gpus=self.gpus,
            memory=self.looked.state if self.looked is not None else self.memory,
            warnings=tuple(self.warnings),
            degraded=len(self.degraded),
            timeline=tuple(self.timeline),
            warm=self.warm,
            attempts=self.attempts,
            perished=tuple(self.perished),
            nodes=tuple(self.nodes[number] for number in sorted(self.nodes)),
            lost_nodes=tuple(self.lost_nodes.values()),
            silent_nodes=tuple(self.silent_nodes.values()),
            stopping_nodes=tuple(self.stopping_nodes.values()),
        )

    def _known_at(self) -> float | None:
        """When the first failure had been acted on. An engine that is watched is first left to its own handling."""
        if self.spec.watch is None:
            return self.signalled_first_at
        return self.noticed_at

    def rank_case(self, rank: RankState) -> RankCase:
        """All that is known of one rank, frozen."""
        signalled_at = self.signalled_at(rank)
        return RankCase(
            rank=rank.rank,
            name=rank.member.name if rank.member else self.spec.names[rank.rank] if self.spec.names else None,
            pid=rank.pid,
            phase=rank.phase_at_end or self.life(rank),
            spawned_at=rank.spawned_at,
            ready_at=rank.ready_at,
            failed_at=rank.failed_at,
            exited=rank.exited,
            not_spawned=rank.not_spawned,
            report=rank.report,
            broken=rank.broken,
            complained=rank.complained,
            accused=rank.accused,
            dying=rank.dying,
            suspect=rank.suspect,
            alive_at=rank.alive_at,
            late=rank.late,
            signalled_at=signalled_at,
            killed_by_us=signalled_at is not None and _before(self._killed_at(rank), rank.exited),
            ooms=rank.ooms,
            status=rank.status,
            extended=rank.extended,
            memory=rank.memory,
            role=rank.member.role if rank.member else None,
            left=rank.left,
            lost=rank.lost,
        )

    def _killed_at(self, rank: RankState) -> float | None:
        """When we sent SIGKILL, at the latest by the clock of its node."""
        if self.spec.nodes is None:
            return self.killed_at
        own = self.killing_nodes.get(self.node_of(rank.rank))
        if own is not None and (self.killed_at is None or own.at < self.killed_at):
            return own.at
        return None if self.killed_at is None else self.killed_at - self.uncertainty(rank.rank)


def _before(at: float | None, exited: Exited | None) -> bool:
    return at is not None and (exited is None or at <= exited.at)


def _span(first: float | None, last: float | None) -> float | None:
    return None if first is None or last is None else last - first
