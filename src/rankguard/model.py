"""The nouns: what a job is asked to be, what is known of its ranks, and the verdict at its end.

Frozen records and plain values only. Every layer may use them; they use nobody. The verdict's shape is
`schema/verdict-1.json`; its field names are the public attributes (`verdict.culprit.cause.kind`).

Read next: `facts.py` (what happened), `orders.py` (what to do), `diagnosis/` (from the one to the verdict).
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from rankguard.collective import Recorded
from rankguard.record import Record, from_data, to_data

SCHEMA = "rankguard.verdict/1"


class Phase(StrEnum):
    """Where a rank is. `LAUNCHING` (ordered, not yet executed) is shown to users as `starting`; `LOST`: its node was lost,
    and whether it has ended is not known.
    """

    LAUNCHING = "launching"
    STARTING = "starting"
    READY = "ready"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"
    LOST = "lost"


class Family(StrEnum):
    """Families of causes. Kinds may be added, families not."""

    MEMORY = "memory"
    PROGRAM = "program"
    TIME = "time"
    OPERATOR = "operator"
    MACHINE = "machine"
    RANKGUARD = "rankguard"
    UNKNOWN = "unknown"


class Confidence(StrEnum):
    """How sure: `proven` rests on the kernel's own word, `likely` on what fits, `unknown` on nothing."""

    PROVEN = "proven"
    LIKELY = "likely"
    UNKNOWN = "unknown"


# ── What is known of one rank ────────────────────────────────────────────────────────────────────────────────────


class Ending(Record):
    """How a process ended: `exit` with `code`, `signal` with `signal` and `number`, `alive` (it has not), or `lost` with its
    node: whether it has is not known.
    """

    kind: str
    code: int | None = None
    signal: str | None = None
    number: int | None = None
    core_dumped: bool = False


class Begun(Record):
    """When a process began to exit, which is before it let go of anything (`linux/exitorder.py`).

    `place`: before how many of the job's processes that the kernel told of. Between `earliest` and `latest` on our clock.
    """

    place: int
    earliest: float
    latest: float


class Process(Record):
    """One process of a watched tree; `ending` null while it lives. `role` null: it has none that we know."""

    pid: int
    parent: int
    name: str
    role: str | None = None
    index: int | None = None
    ending: Ending | None = None


class Sender(Record):
    """Who sent a signal, as the kernel says it (`siginfo`): null where it does not."""

    pid: int | None = None
    uid: int | None = None
    comm: str | None = None


class ExceptionInfo(Record):
    """An exception as the rank's own interpreter reported it. `frames` are the innermost last, `file:line function`."""

    type: str
    message: str
    module: str | None = None
    traceback: str | None = None
    frames: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()
    """`Type: message` of each `__cause__` or `__context__`, the root last."""


class Report(Record):
    """A rank's own word that it failed: `how` is `exception`, `failed` (it said so), `errno`, or `exit`: it is leaving
    with `code` (`SystemExit`), which may take a program some seconds.
    """

    how: str
    text: str
    exception: ExceptionInfo | None = None
    raised_at: float | None = None
    """On our monotonic clock, stamped in the rank."""
    errno: int | None = None
    recorded: tuple[Recorded, ...] = ()
    """What PyTorch's flight recorder in the rank tells of its collectives, when one of them timed out."""
    code: int | None = None


class OomRecord(Record):
    """One kill of the kernel's OOM killer, as `/dev/kmsg` tells it. `pid` is of the initial PID namespace."""

    pid: int
    name: str
    text: str
    cgroup: str | None = None
    anon_rss_bytes: int | None = None
    of_whole_machine: bool = False
    logged_us: int = 0
    """When, by the log's own clock: what tells the order of two that were read at once."""


class OomCount(Record):
    """A kernel counter of OOM kills that rose. `path` names the file; `shared` says that others count there too."""

    path: str
    before: int
    after: int
    shared: bool


class Sign(Record):
    """A rank's last sign of progress: `at` on our monotonic clock (null: none since its start), and by what.

    `by`: `output`, `readiness`, `progress`, `status`, `heartbeat` or `message`.
    """

    rank: int
    at: float | None = None
    by: str | None = None


class Memory(Record):
    """Of one rank, in bytes. `rss_bytes` is the last value seen alive, `peak_bytes` the kernel's own maximum, both of its
    process alone: pages that several processes map are in each one's.
    """

    rss_bytes: int | None = None
    peak_bytes: int | None = None
    held_bytes: int | None = None
    """What it takes from a limit that all share: private memory, its children's, too; in a cgroup of its own also the
    shared memory that it touched first. Page cache is no part of it."""
    growth_bytes_s: float | None = None
    """How fast that grew in the last seconds before the first failure."""
    age_s: float | None = None
    """How long before the first failure this was seen; null: at the first failure."""


class MemoryState(Record):
    """Of the job's memory domain at one moment, in bytes. `limit_from` names the file or limit that applies: of several
    the one with the least room.

    `cache_bytes` is the part of `used_bytes` that the kernel gives back first (inactive file pages, as the kubelet
    counts), `firm_bytes` what it cannot give back without swap (all but file pages), `shared_bytes` shared memory and
    tmpfs that are in no rank's number: the kernel counts them as cache, and cannot give them back.
    """

    limit_bytes: int | None = None
    used_bytes: int | None = None
    limit_from: str | None = None
    cache_bytes: int | None = None
    ranks_bytes: int | None = None
    peak_bytes: int | None = None
    firm_bytes: int | None = None
    shared_bytes: int | None = None
    swap_bytes: int | None = None
    """In use; null where there is no swap."""
    swap_limit_bytes: int | None = None
    growth_bytes_s: float | None = None
    """How fast `firm_bytes` (and swap) grew in the last seconds."""
    ranks_growth_bytes_s: float | None = None
    """And how fast `ranks_bytes` did."""
    age_s: float | None = None
    """How long before the first failure this was seen; null: at that moment."""


# ── The verdict ──────────────────────────────────────────────────────────────────────────────────────────────────


class Evidence(Record):
    """One thing that a cause rests on. `source`: `cgroup`, `kernel log`, `wait status`, `rank`, `log`, `memory`, `clock` …"""

    source: str
    statement: str


class Responsible(Record):
    """A rank that is not the culprit and yet the reason, such as the one whose memory grew."""

    rank: int | None
    because: str
    confidence: Confidence


class Cause(Record):
    """Why a rank ended. `subject_pid` may be a child of the rank."""

    kind: str
    family: Family
    confidence: Confidence
    statement: str
    exception: ExceptionInfo | None = None
    subject_pid: int | None = None
    evidence: tuple[Evidence, ...] = ()
    responsible: tuple[Responsible, ...] = ()


class Progress(Record):
    """What a rank said of its progress: `done` of `total` `unit`s."""

    done: float
    total: float | None = None
    unit: str | None = None


class Culprit(Record):
    """The rank whose failure came first."""

    rank: int | None
    name: str | None
    role: str
    local_rank: int | None
    node: str
    pid: int | None
    phase: Phase
    was_ready: bool
    attempt: int
    ending: Ending
    cause: Cause
    at: str
    elapsed_s: float
    detected_in_ms: float | None
    status: str | None
    progress: Progress | None
    memory: Memory
    traceback: str | None
    stacks: str | None
    log_tail: tuple[str, ...]
    log_path: str | None


class RankOutcome(Record):
    """One row of the verdict's table. `relation`: culprit, collateral, independent, stopped or finished."""

    rank: int | None
    name: str | None
    node: str
    pid: int | None
    relation: str
    phase: Phase
    ending: Ending
    cause: Cause | None
    ready_after_s: float | None
    ended_after_s: float | None
    memory: Memory
    log_path: str | None
    role: str | None = None
    """Of a watched process."""


class Reported(Record):
    """A process of a watched tree that ended abnormally and is its engine's own business."""

    name: str
    role: str
    index: int | None
    pid: int
    parent: int | None
    ending: Ending
    cause: Cause
    at_s: float


class OrderBasis(Record):
    """How the culprit was told from the other suspects; `gap_us` where two instants of one clock decided."""

    basis: str
    gap_us: int | None = None


class StoppedBy(Record):
    """The request from outside that ended the job."""

    signal: str | None
    pid: int | None = None
    uid: int | None = None
    comm: str | None = None


class Left(Record):
    """Something that the job made and that outlives it. `kind`: `shm`, `sysv-shm` or `socket`. `removed`: by us."""

    kind: str
    path: str
    bytes: int | None
    removed: bool = False


class Survivor(Record):
    """A process of the job that could not be ended, and the kernel's state letter for it (`D`: in a system call)."""

    pid: int
    comm: str
    state: str


class Teardown(Record):
    """What it took to end the job. `killed` are the pids that needed SIGKILL."""

    took_s: float | None = None
    killed: tuple[int, ...] = ()
    survivors: tuple[Survivor, ...] = ()
    left: tuple[Left, ...] = ()


class Retry(Record):
    """Whether to try again: `yes`, `no`, `elsewhere` or `unknown`."""

    advice: str
    because: str


class Moment(Record):
    """One line of the timeline, in seconds since launch."""

    at_s: float
    what: str


class Attempt(Record):
    """An attempt that failed before this one. Of its culprit: `rank`, `phase`, `cause` (the kind), `confidence`."""

    attempt: int
    cause: str
    fingerprint: str | None
    lasted_s: float
    statement: str = ""
    rank: int | None = None
    phase: str = ""
    confidence: str = ""
    exit_code: int = 0
    started_at: str = ""
    failed_at: str | None = None
    either: tuple[int, ...] = ()
    unready: bool = False
    """Its culprit was still expected to become ready."""
    restarted: str = ""
    """What came of it: `restart 1 of 3`."""
    delay_s: float = 0.0
    """From its end to the next attempt's start, as it was planned."""
    warnings: tuple[str, ...] = ()


class Verdict(Record):
    """The answer at the end of a job; the JSON object of `verdict.json` with its names as attributes.

    Times are ISO 8601 in UTC, durations seconds, sizes bytes. Null is unknown, never a guess.
    """

    run_id: str
    command: tuple[str, ...]
    outcome: str
    exit_code: int
    statement: str
    summary: str
    fingerprint: str | None
    owner: str | None
    retry: Retry
    started_at: str
    ready_at: str | None
    failed_at: str | None
    ended_at: str | None
    world_size: int
    nodes: tuple[str, ...]
    start: str
    labels: Mapping[str, str]
    culprit: Culprit | None
    either: tuple[int, ...]
    order: OrderBasis | None
    stopped_by: StoppedBy | None
    memory: MemoryState | None
    ranks: tuple[RankOutcome, ...]
    attempts: tuple[Attempt, ...]
    """Those that failed before this one, oldest first; everything else here is of this one."""
    teardown: Teardown
    hints: tuple[str, ...]
    warnings: tuple[str, ...]
    timeline: tuple[Moment, ...]
    reported: tuple[Reported, ...] = ()
    """Of a watched engine: the last processes that ended abnormally and were left to it."""
    processes: tuple[Process, ...] = ()
    """Of a watched engine: its tree at the first failure, parents before children."""
    degraded: int = 0
    """Parts of rankguard itself that failed and were done without (`--on-lost keep`); `warnings` tells which."""
    not_restarted: str | None = None
    """Why a failed job was not started again, where `--max-restarts` had allowed it."""
    schema: str = SCHEMA
    rankguard: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, as of `verdict.json`; its first keys are those that a reader looks for."""
        data: dict[str, Any] = to_data(self)
        return {"schema": data.pop("schema"), "rankguard": data.pop("rankguard")} | data

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as text.

        `indent`: as of `json.dumps`; None: one line.
        """
        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Verdict":
        """The verdict in a `verdict.json`.

        `data`: its object. Fields that we do not know are passed over, so a newer one can be read.

        Raises `ValueError` when its schema is not ours, and `TypeError` when it is no object, or a field is missing.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"not a {SCHEMA}: a {type(data).__name__}")
        if data.get("schema") != SCHEMA:
            raise ValueError(f"not a {SCHEMA}: schema is {data.get('schema')!r}")
        return from_data(cls, data)

    def __str__(self) -> str:
        return self.statement

    def __repr__(self) -> str:
        from rankguard.report.notebook import in_short  # wording is loaded when somebody reads it

        return f"<rankguard.Verdict {in_short(self)}>"

    def _repr_html_(self) -> str | None:
        """For notebooks."""
        from rankguard.report.notebook import verdict_html

        return verdict_html(self)
