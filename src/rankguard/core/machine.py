"""The table, and `step`, the only place where the state of a job changes.

The rules of the machine:

1. `step(job, fact)` returns orders. Their place in the tuple is the contract: record all, carry out in turn, then wait.
2. The table is total. Every (phase, fact) has a cell: a function, `ignored` with its reason, or `refused` with its
   reason. A refused fact raises `RankguardBug` with the last facts and orders, and leaves the job as it was.
3. Nothing here knows the time: facts carry it, and deadlines come back as facts.
4. What the job does on a failure is in `stopping.py`, in the order in which it happens.

To add a fact: its class in `facts.py`, its row here, its cell in `ranks.py` or `jobs.py`, a scenario in
`tests/scenarios/`. The diagram in `docs/machine.md` is made from this table (`docs/make_machine.py`).
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from rankguard.core import examining, jobs, members, muster, nodes, ranks
from rankguard.core.clocks import Orders
from rankguard.core.job import Job
from rankguard.errors import RankguardBug
from rankguard.facts import (
    Complained,
    DeadlinePassed,
    Degraded,
    Examined,
    Exited,
    Extended,
    Fact,
    FailureReported,
    FrontLost,
    GpusRead,
    JobStarted,
    Joined,
    Judged,
    KernelKilled,
    KernelNoted,
    LeavingTold,
    Looked,
    MemoryEased,
    MemoryShort,
    Mustered,
    NodeHeard,
    NodeJoined,
    NodeLost,
    NodeSilent,
    NodeStopping,
    NotSpawned,
    OomSeen,
    OutputClosed,
    Perished,
    ProtocolBroken,
    RankFact,
    ReadinessExpected,
    Ready,
    Reaped,
    Resumed,
    Signalled,
    SignalPassed,
    Silences,
    Spawned,
    StatusTold,
    StoppingAnnounced,
    StopRequested,
    Surveyed,
    Suspended,
    TimeLost,
    TreeEmpty,
    WardenLost,
    Warned,
)
from rankguard.model import Phase


class JobPhase(StrEnum):
    """Where a job is."""

    NEW = "new"
    WATCHING = "watching"
    STOPPING = "stopping"
    SWEEPING = "sweeping"
    FINISHED = "finished"


class Ignored(NamedTuple):
    """A cell for a fact that changes nothing, and why."""

    why: str


class Refused(NamedTuple):
    """A cell for a fact that cannot be: one that came in spite of it is a bug of ours."""

    why: str


Cell = Callable[[Job, Any, Any], Orders] | Callable[[Job, Any], Orders] | Ignored | Refused

_early = Refused("the job has not begun")
_over = Ignored("the verdict is out")
_twice = Refused("it has happened already")
_unborn = Refused("the rank has no process yet")
_gone = Ignored("the rank has ended; its last word came before")
_ours = Ignored("the job is already told to end")
_late = Ignored("readiness no longer matters")
_unheard = Ignored("its node was lost: it counts as ended, and nothing that is told of it later")
_all = Ignored("every rank has ended")

# Rows: facts about one rank. Columns: the phase that the rank is in.
# fmt: off
_RANK_ROWS: dict[type[RankFact], tuple[Cell, ...]] = {
    #                launching            starting                ready                   running                 stopping                                ended                        lost
    Spawned:         (ranks.spawned,      _twice,                 _twice,                 _twice,                 ranks.spawned_while_stopping,           _twice,                      _unheard),
    NotSpawned:      (ranks.not_spawned,  _twice,                 _twice,                 _twice,                 ranks.not_spawned_while_stopping,       _twice,                      _unheard),
    Ready:           (_unborn,            ranks.ready,            Ignored("ready twice"), ranks.ready,            _late,                                  _gone,                       _unheard),
    StatusTold:      (_unborn,            ranks.told_status,      ranks.told_status,      ranks.told_status,      ranks.told_status,                      _gone,                       _unheard),
    Extended:        (_unborn,            ranks.extended,         ranks.extended,         ranks.extended,         _late,                                  _gone,                       _unheard),
    LeavingTold:     (_unborn,            ranks.leaving,          ranks.leaving,          ranks.leaving,          ranks.leaving,                          _gone,                       _unheard),
    FailureReported: (_unborn,            ranks.reported_failure, ranks.reported_failure, ranks.reported_failure, ranks.reported_failure_while_stopping,  ranks.reported_failure_after_end, _unheard),
    ProtocolBroken:  (_unborn,            ranks.broke_protocol,   ranks.broke_protocol,   ranks.broke_protocol,   _ours,                                  _gone,                       _unheard),
    Complained:      (ranks.complained,   ranks.complained,       ranks.complained,       ranks.complained,       ranks.complained_while_stopping,        _gone,                       _unheard),
    Exited:          (_unborn,            ranks.exited,           ranks.exited,           ranks.exited,           ranks.exited_while_stopping,            _twice,                      _unheard),
    OutputClosed:    (_unborn,            ranks.output_closed,    ranks.output_closed,    ranks.output_closed,    ranks.output_closed,                    ranks.output_closed,         _unheard),
    Reaped:          (_unborn,            Refused("it has not ended"), Refused("it has not ended"), Refused("it has not ended"), Refused("it has not ended"), ranks.reaped,            _unheard),
}

# Rows: facts about the job. Columns: the phase that the job is in.
_JOB_ROWS: dict[type[Fact], tuple[Cell, ...]] = {
    #                  new               watching                   stopping                   sweeping               finished
    JobStarted:        (jobs.started,    _twice,                    _twice,                    _twice,                _twice),
    ReadinessExpected: (_early,          jobs.readiness_expected,   _late,                     _late,                 _over),
    StopRequested:     (_early,          jobs.stop_requested,       jobs.stop_requested_again, jobs.stop_requested_again, _over),
    SignalPassed:      (_early,          jobs.signal_passed,        jobs.signal_passed,        Ignored("no rank is left"), _over),
    Suspended:         (_early,          jobs.suspended,            _ours,                     _ours,                 _over),
    Resumed:           (_early,          jobs.resumed,              _ours,                     _ours,                 _over),
    TimeLost:          (_early,          jobs.time_lost,            jobs.time_lost,            jobs.time_lost,        _over),
    StoppingAnnounced: (_early,          jobs.stopping_announced,   _ours,                     _ours,                 _over),
    FrontLost:         (_early,          jobs.one_of_ours_lost,     jobs.one_of_ours_lost,     jobs.one_of_ours_lost, _over),
    WardenLost:        (_early,          jobs.one_of_ours_lost,     jobs.one_of_ours_lost,     jobs.one_of_ours_lost, _over),
    DeadlinePassed:    (_early,          jobs.deadline_passed,      jobs.deadline_passed,      jobs.deadline_passed,  _over),
    Looked:            (_early,          jobs.looked,               jobs.looked,               jobs.looked,           _over),
    Silences:          (_early,          examining.heard,            _ours,                     _ours,                 _over),
    Examined:          (_early,          examining.examined,         _ours,                     _ours,                 _over),
    Mustered:          (_early,          muster.mustered,            muster.mustered,           muster.mustered,       _over),
    Signalled:         (_early,          jobs.signalled,            jobs.signalled,            jobs.signalled,        _over),
    Judged:            (_early,          jobs.judged,               jobs.judged,               jobs.judged,           _over),
    KernelKilled:      (_early,          jobs.kernel_killed,        jobs.kernel_killed,        jobs.kernel_killed,    _over),
    Joined:            (_early,          members.joined,             members.joined,             members.joined,         _over),
    Perished:          (_early,          members.perished,           members.perished,           members.perished,       _over),
    NodeJoined:        (nodes.joined,    nodes.joined,               nodes.joined,               _all,                  _over),
    NodeSilent:        (_early,          nodes.silent,               nodes.silent,               nodes.silent,          _over),
    NodeHeard:         (_early,          nodes.heard,                nodes.heard,                nodes.heard,           _over),
    NodeStopping:      (_early,          nodes.stopping,             nodes.stopping,             nodes.stopping,        _over),
    NodeLost:          (_early,          nodes.lost,                 nodes.lost,                 nodes.lost,            _over),
    OomSeen:           (_early,          jobs.oom_seen,             jobs.oom_seen,             jobs.oom_seen,         _over),
    MemoryShort:       (_early,          jobs.memory_short,         _ours,                     _ours,                 _over),
    MemoryEased:       (_early,          jobs.memory_eased,         _ours,                     _ours,                 _over),
    KernelNoted:       (_early,          jobs.kernel_noted,         jobs.kernel_noted,         jobs.kernel_noted,     _over),
    Surveyed:          (_early,          jobs.surveyed,             jobs.surveyed,             jobs.surveyed,         _over),
    GpusRead:          (_early,          jobs.gpus_read,            jobs.gpus_read,            jobs.gpus_read,        _over),
    TreeEmpty:         (_early,          Refused("nobody swept"),   jobs.tree_empty,           jobs.tree_empty,       _over),
    Degraded:          (jobs.degraded,   jobs.degraded,              jobs.degraded,              jobs.degraded,         jobs.degraded),
    Warned:            (jobs.warned,     jobs.warned,               jobs.warned,               jobs.warned,           jobs.warned),
}
# fmt: on

RANK_TABLE = {fact: dict(zip(Phase, cells, strict=True)) for fact, cells in _RANK_ROWS.items()}
JOB_TABLE = {fact: dict(zip(JobPhase, cells, strict=True)) for fact, cells in _JOB_ROWS.items()}


def job_phase(job: Job) -> JobPhase:
    """Where a job is: derived, never stored."""
    if job.started_at is None:
        return JobPhase.NEW
    if job.finished:
        return JobPhase.FINISHED
    if job.ended == job.spec.nprocs:
        return JobPhase.SWEEPING
    return JobPhase.WATCHING if job.stopped_at is None else JobPhase.STOPPING


def step(job: Job, fact: Fact) -> Orders:
    """Change the state by one fact and return what to do about it.

    Raises `RankguardBug` for a fact that has no meaning in this state; the job is then as it was.
    """
    if isinstance(fact, RankFact):
        if job.finished:
            return ()
        if job.started_at is None or not 0 <= fact.rank < len(job.ranks):
            raise bug(job, fact, "the job has not begun, or has no such rank")
        rank = job.ranks[fact.rank]
        cell = RANK_TABLE[type(fact)][job.phase(rank)]
        if type(cell) is Refused:
            raise bug(job, fact, cell.why)
        orders: Orders = () if type(cell) is Ignored else cell(job, rank, fact)  # type: ignore[operator,call-arg]  # a rank's cell
    else:
        cell = JOB_TABLE[type(fact)][job_phase(job)]
        if type(cell) is Refused:
            raise bug(job, fact, cell.why)
        orders = () if type(cell) is Ignored else cell(job, fact)  # type: ignore[operator,call-arg]  # a job's cell
    job.now = fact.at
    job.story.append(fact)
    job.story.extend(orders)
    return orders


def bug(job: Job, fact: Fact, why: str) -> RankguardBug:
    """The error for a refused fact, with the story that led to it."""
    story = "\n".join(f"  {entry!r}" for entry in job.story)
    return RankguardBug(f"refused {fact!r} in a {job_phase(job)} job: {why}\nthe last facts and orders:\n{story}")
