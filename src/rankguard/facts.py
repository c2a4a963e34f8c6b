"""What happened. Each fact is frozen, carries `at` (seconds of our monotonic clock) and all the evidence that later
decisions rest on, so that a journal of facts is enough to reach the same verdict again.

Five facts of an ending are kept apart and none is inferred from another: started (`Spawned`), ready (`Ready`), ended
(`Exited`), drained (`OutputClosed`), reaped (`Reaped`).

To add one: a class here, its row in `core/machine.py`, the reader in `linux/` or `driver.py` that makes it.
"""

from rankguard.circumstances import Core, GpuState, Host, KernelNote, Module, Place, PortUse
from rankguard.collective import Recorded, Remark
from rankguard.model import (
    Begun,
    Ending,
    Left,
    Memory,
    MemoryState,
    OomCount,
    OomRecord,
    Process,
    Report,
    Sender,
    Sign,
    Survivor,
)
from rankguard.record import Record
from rankguard.stacks import Group, Stack


class Fact(Record):
    """Something that happened at an instant of our monotonic clock (`CLOCK_MONOTONIC`, seconds)."""

    at: float


class RankFact(Fact):
    """A fact about one rank."""

    rank: int


# ── Of the job ───────────────────────────────────────────────────────────────────────────────────────────────────


class JobStarted(Fact):
    """The supervisor is up. `wall` is the time of day (seconds since the epoch) at `at`."""

    wall: float
    memory: MemoryState = MemoryState()


class ReadinessExpected(Fact):
    """Somebody waits until all ranks are ready (`wait_ready`), for `timeout` seconds at most."""

    timeout: float | None = None


class StopRequested(Fact):
    """A request from outside to end the job. `signal` is forwarded as it came; `grace` overrules the clock."""

    signal: int
    sender: Sender | None = None
    grace: float | None = None
    at_once: bool = False
    by: str = "signal"
    to: str = "front"
    """Which of our processes it reached. Whoever signals all of them at once (`pkill`, a batch system) asks once."""
    spare: tuple[int, ...] | None = None
    """Of the coordinator of a job on several machines: which ranks may end by themselves, if they do; null: any."""


LET_GO = "whoever placed this agent is gone"
"""`StopRequested.by` of an agent whose stdin has ended; with `: why` where that was said on it before."""


class SignalPassed(Fact):
    """A signal that is forwarded and stops nothing (SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH)."""

    signal: int


class Suspended(Fact):
    """The whole job is to stand still (Ctrl-Z): no rank runs and no deadline, until `Resumed`."""


class Resumed(Fact):
    """The job goes on (`fg`, `bg`, SIGCONT)."""


class TimeLost(Fact):
    """We stood still for `seconds`, and nobody told us: SIGSTOP, a paused container, a frozen machine."""

    seconds: float


class StoppingAnnounced(Fact):
    """The owner of adopted processes is shutting down: endings are no failures from now on (`guard.stopping`)."""


class FrontLost(Fact):
    """The process that launched the job is gone."""

    pid: int


class WardenLost(Fact):
    """The warden is gone: somebody killed it."""

    pid: int


class SupervisorLost(Fact):
    """The supervisor is gone: the front's own fact, since nobody else is left to record it."""

    pid: int | None = None
    bug: str | None = None
    """Its last word, when a fault of ours ended it."""


class DeadlinePassed(Fact):
    """A `WakeAt` has come. A generation that is not the current one is dropped by name."""

    name: str
    generation: int


class Looked(Fact):
    """The look at all ranks on the first failure, taken before any signal of ours.

    `dying`: ranks already on their way out, with what shows it: `exiting` (PF_EXITING), `zombie`, `killed` (SIGKILL
    pending), `dumping` (core). `memory`: of every rank alive, and of one that has just ended as it was sampled last.
    `state`: now, or at the last sample before if more was in use then (`age_s`): a victim's memory is given back by now.
    """

    dying: tuple[tuple[int, str], ...] = ()
    memory: tuple[tuple[int, Memory], ...] = ()
    state: MemoryState = MemoryState()
    processes: tuple[Process, ...] = ()
    """Of a watched tree: how it stood, parents before children."""


class Silences(Fact):
    """Who has given no sign of progress for as long as a `Listen` asked about.

    `silent`: those ranks, and every one that has not given any since its start. `soonest`: the oldest last sign of all
    others; null when there are none.
    """

    silent: tuple[Sign, ...] = ()
    soonest: float | None = None


class Examined(Fact):
    """The `Examine` of this number is done: the stacks of all ranks, taken before any signal of ours.

    `signs`: the last sign of every rank alive, those that came meanwhile too. `cpu`: how many CPUs the processes of each
    rank used during `within_s` seconds. `used`: (rank, CPU seconds, of how many seconds) since its last sign, or nearly,
    where that is known. `below`: Python processes that odd ranks have started. `groups`: ranks that do the same (`diagnosis/stacks.py`); of many the largest and
    the odd ones. `saved`: the file of the run that holds all stacks as text.
    """

    number: int
    signs: tuple[Sign, ...] = ()
    cpu: tuple[tuple[int, float], ...] = ()
    within_s: float = 0.0
    groups: tuple[Group, ...] = ()
    saved: str | None = None
    used: tuple[tuple[int, float, float], ...] = ()
    below: tuple[tuple[int, Stack], ...] = ()


class Mustered(Fact):
    """A `Muster` is done: what ranks are doing that have not timed out, and what is known of everybody's collectives.

    Taken before any signal of ours. `groups`: ranks that do the same. `signs`: the last sign of progress of every rank
    alive. `remarks`: what those alive have printed of collectives. `recorded`: of files of PyTorch's flight recorder.
    `saved`: the file of the run that holds the stacks as text.
    """

    signs: tuple[Sign, ...] = ()
    groups: tuple[Group, ...] = ()
    remarks: tuple[Remark, ...] = ()
    recorded: tuple[Recorded, ...] = ()
    saved: str | None = None


class Signalled(Fact):
    """A `SignalAll` was carried out: `signal` reached `reached` ranks."""

    signal: int
    reached: int


class Judged(Fact):
    """The diagnosis has chosen the culprit among the suspects (`diagnosis/culprit.py`)."""

    rank: int | None
    kind: str
    exit_code: int
    either: tuple[int, ...] = ()
    basis: str = ""
    gap_us: int | None = None
    node: int | None = None
    """The node that was lost, when it was that and no rank."""


class TreeEmpty(Fact):
    """No process of the job is alive, or what refused to die is named."""

    killed: tuple[int, ...] = ()
    survivors: tuple[Survivor, ...] = ()
    left: tuple[Left, ...] = ()


class KernelKilled(Fact):
    """The kernel log tells of an OOM kill. `rank` is the one whose process it was, null when it is none of ours."""

    rank: int | None
    record: OomRecord
    is_child: bool = False


class OomSeen(Fact):
    """The kernel tells of an OOM in `group`, or below: that there was one, not who was killed. It comes before the end of
    a victim that is large, so whoever was killed then was killed before `at`.
    """

    group: str


class Joined(Fact):
    """A rank-like process of a watched tree takes part from now on; `rank` is the next free number (0 is the root's).

    Told again of the same rank and pid when it has another title: a worker's often has its number only after a while.
    """

    rank: int
    pid: int
    name: str
    role: str = "process"
    index: int | None = None
    rule: str = ""
    """The rule that says so (`diagnosis/roles.py`)."""
    parent: int | None = None
    may_end: bool = False
    """It may end with 0 while the others go on: of a batch job, not of an engine that serves."""
    formerly: str | None = None
    """Its name until now."""


class Perished(Fact):
    """A process of a watched tree that is not rank-like ended by a signal or with a code that is not 0: told, and left to
    the engine. `loud`: worth a word at once.
    """

    pid: int
    name: str
    ending: Ending
    role: str = "process"
    index: int | None = None
    parent: int | None = None
    oom: tuple[OomCount, ...] = ()
    oom_readable: bool = False
    loud: bool = True


class NodeJoined(Fact):
    """An agent has joined. `node` counts from 0, `name` is the machine's; its ranks are `first` to `first + count - 1`.

    What it tells is stamped by its own clock, less `offset` seconds; `uncertainty`: how far off that may be.
    """

    node: int
    name: str
    first: int
    count: int
    address: str = ""
    uncertainty: float = 0.0
    again: bool = False
    """Only its clock was measured anew."""


class NodeSilent(Fact):
    """Nothing has been heard of a node for `silent_s` seconds, which is longer than its heartbeats are apart."""

    node: int
    name: str
    silent_s: float


class NodeHeard(Fact):
    """A node that was silent is heard again, after `silent_s` seconds in all."""

    node: int
    name: str
    silent_s: float


class NodeStopping(Fact):
    """The agent of a node has told its ranks to end, as it was asked to or by its own decision: no ending of theirs that is
    told from now on is held against them. Told before the first of these endings.

    `dying`: those of its ranks that its own look had shown to be on their way out before, as `Looked` has them.
    """

    node: int
    name: str
    because: str
    signal: int = 15
    """Told again, with SIGKILL, when it kills them."""
    dying: tuple[tuple[int, str], ...] = ()


UNJOINED = ("never", "unplaced")
"""`NodeLost.how` of nodes that were never there."""


class NodeLost(Fact):
    """Nothing more will be heard of a node, and it had not said that it is done: its ranks end by themselves, unseen.

    `how`: `silent` (for `silent_s`), `closed` (its agent is gone), `left` (the agent said why it goes: `statement`), `never`
    (it did not join in time; each node that is missing has a fact of its own), `unplaced` (as `never`, and
    whoever was to place the agents says why; `hint` is his, too), `refused` (it did not let us join). `statement`: why, as a sentence about the
    node without its name, such as `nothing was heard of it for 5.0 s` or `its agent is gone`. In the job of an agent
    (`spec.share`) it is the coordinator's node.
    """

    node: int
    name: str
    how: str
    statement: str
    silent_s: float = 0.0
    hint: str = ""


class MemoryShort(Fact):
    """The samples say that a memory limit will be reached (`diagnosis/projection.py`): `level` 1 soon, 2 and it is nearly full.

    `left_s`: until then, if the growth goes on as it is; inferred, as every projection.
    """

    statement: str
    level: int
    state: MemoryState = MemoryState()
    left_s: float | None = None


class MemoryEased(Fact):
    """What a `MemoryShort` spoke of is over: far less than the limit is in use again."""

    statement: str
    state: MemoryState = MemoryState()


class KernelNoted(Fact):
    """The kernel log tells of a crash or of a GPU. `rank` is the one whose process it was, null when that is not known."""

    rank: int | None
    note: KernelNote


class Surveyed(Fact):
    """What the machine was like, looked at after the stop was ordered. Only what the failure's own words ask for."""

    host: Host | None = None
    places: tuple[Place, ...] = ()
    ports: tuple[PortUse, ...] = ()
    cores: tuple[Core, ...] = ()
    modules: tuple[Module, ...] = ()


class GpusRead(Fact):
    """What the driver tells of the GPUs after a failure that speaks of one. `why_not`: why nothing is known."""

    gpus: tuple[GpuState, ...] = ()
    source: str = ""
    why_not: str | None = None


class Warned(Fact):
    """Something of ours could not be done and the job goes on without it (a full disk, a lost line)."""

    statement: str


class Degraded(Fact):
    """A part of rankguard failed and is switched off; whoever is watched goes on (`--on-lost keep`)."""

    part: str
    """What is missing from now on, for people: `the journal`, `samples` …"""
    statement: str
    deaf: tuple[str, ...] = ()
    """Deadlines that nothing could keep any more (`ready`, `stall`)."""


# ── Of one rank ──────────────────────────────────────────────────────────────────────────────────────────────────


class Spawned(RankFact):
    """The rank's program is executing: started, not ready. (Of an adopted process: it is watched from now on.)"""

    pid: int
    warm: bool = False
    """It was forked of the warm server."""
    signals: tuple[int, ...] = ()
    """Signals that have reached it before this was known: it needs none of them again."""


NOEXEC = "its file system is mounted noexec"
"""In the statement of a `NotSpawned`: no mode of the file would help."""


class NotSpawned(RankFact):
    """The program could not be executed. `stage` is what failed: `fork`, `chdir`, `exec` …"""

    stage: str
    errno: int
    statement: str


class Ready(RankFact):
    """The rank said that it can do its work."""

    payload_bytes: int = 0


class StatusTold(RankFact):
    """A sign of life: what the rank says it is doing. A field that is null was not part of the message."""

    text: str | None = None
    done: float | None = None
    total: float | None = None
    unit: str | None = None
    probe: str | None = None
    """Not its own word: what the probes of its readiness heard last (`supervisor/readiness.py`)."""


class Extended(RankFact):
    """The rank asks for more time: its own deadline is `seconds` from now (`EXTEND_TIMEOUT_USEC`)."""

    seconds: float


class LeavingTold(RankFact):
    """The rank says that it is stopping (`STOPPING=1`)."""


class FailureReported(RankFact):
    """The rank says that it failed. `peer_death` quotes what shows that it fails because another rank died."""

    report: Report
    peer_death: str | None = None
    timed_out: bool = False
    """And what it lost was its patience: a collective timed out."""


class ProtocolBroken(RankFact):
    """The rank's channel carried something that has no meaning, or ended while the rank lives."""

    statement: str


class Complained(RankFact):
    """The rank (or a child of it) sent a signal to its parent, as engines do on an exception.

    One that would end the parent is held against the rank if it then ends, even with 0, or does not end in time.
    """

    signal: int


class Exited(RankFact):
    """The process has ended; it is not reaped yet. `oom` is what the kernel's counters say at this moment."""

    ending: Ending
    oom: tuple[OomCount, ...] = ()
    oom_readable: bool = False
    """A counter that would show an OOM kill of this rank could be read."""
    log_tail: tuple[str, ...] = ()
    peer_death: str | None = None
    report: Report | None = None
    """A failure that the rank left in a file (torch's `@record`)."""
    begun: Begun | None = None
    """Null where the kernel does not tell."""
    log: str | None = "stderr"
    """Which of its log files to read first: stderr, else stdout; null when it has none, since it has said nothing."""
    timed_out: bool = False
    """`peer_death` is that a collective timed out."""
    remarks: tuple[str, ...] = ()
    """Its last lines about collectives; they may stand before `log_tail`."""


class OutputClosed(RankFact):
    """Nobody holds the rank's stdout and stderr any more. A grandchild may hold them long after the rank ended."""


class Reaped(RankFact):
    """The process is reaped. `peak_bytes` is the kernel's maximum of its resident memory (`ru_maxrss`)."""

    peak_bytes: int | None = None
