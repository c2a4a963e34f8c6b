"""Plays a scenario through the pure core and writes its transcript: each line of the scenario, and below it what came
of it. The checked-in file is the scenario and its expected output in one; playing it again must give the same text.

    # rank 1 is killed                       comments and blank lines stay as they are
    job nprocs=2 ready_timeout=60            fields of the `JobSpec`; comes first
    0.000 start                              facts, in the language of `grammar.py`
      > spawn 0-1 (the job begins)           an order, and because of what
      = job: new → watching                  a change of phase, of the job or of ranks
      = suspect 1                            one more of those among whom the culprit is
      ! refused: it has happened already     the fact had no meaning, and changed nothing

The player holds a scenario to what can be: time does not go back, and a deadline comes when it is due, not before and
not later, unless another one of its name took its place or the time was lost. Not here: who judges, looks and sweeps; a scenario says it.
"""

from collections.abc import Collection, Iterable

from rankguard.core.job import Job
from rankguard.core.machine import JobPhase, job_phase, step
from rankguard.errors import RankguardBug
from rankguard.facts import DeadlinePassed, Fact, TimeLost
from rankguard.jobspec import JobSpec, NodesPlan, Share, WatchPlan
from rankguard.model import Phase
from rankguard.orders import (
    Disarm,
    Examine,
    GiveUp,
    Judge,
    Listen,
    Look,
    Muster,
    Order,
    Reap,
    SignalAll,
    SignalRank,
    Spawn,
    Sweep,
    Tell,
    WakeAt,
)
from rankguard.testing.grammar import PID, ScenarioError, Words, parse, signal_name

_LATE = 1e-9


def play(scenario: str) -> str:
    """The transcript of a scenario.

    `scenario`: its text; lines of an old transcript in it (they begin with a blank) are left out.

    Raises `ScenarioError`, which names the line, for words that have no meaning and a course of events that cannot be.
    """
    player: Player | None = None
    told: list[str] = []
    for number, line in enumerate(scenario.splitlines(), 1):
        if line.startswith(" "):
            continue
        told.append(line)
        if not line or line.startswith("#"):
            continue
        try:
            if player is None:
                player = Player(spec_of(line))
            else:
                told += [f"  {entry}" for entry in player.play(line)]
        except ScenarioError as error:
            raise ScenarioError(f"line {number}: {error}") from None
    if player is not None and (due := player.overdue(player.job.now)) is not None:
        raise ScenarioError(f"the scenario ends and the deadline {due} is due")
    return "\n".join(told) + "\n"


def spec_of(line: str) -> JobSpec:
    """The spec that a `job …` line describes. Raises `ScenarioError`."""
    words = Words(line)
    try:
        if words.next("job") != "job":
            raise ScenarioError("a scenario begins with `job nprocs=N`")
        plain = new_spec(words.whole("nprocs") or 1)
        names = words.text("names")
        timeout = words.number("shutdown_timeout")
        spec = plain.replace(
            ready_timeout=words.number("ready_timeout"),
            stall_timeout=words.number("stall_timeout"),
            grace=words.number("grace") or plain.grace,
            shutdown_timeout=plain.shutdown_timeout if timeout is None else timeout,
            names=tuple(names.split(",")) if names else (),
            expect_ready=words.flag("expect_ready"),
            adopted=words.flag("adopted"),
            any_end_fails=words.flag("any_end_fails"),
            on_lost="keep" if words.flag("keep") else "end",
            watch=_watch(words),
            nodes=_nodes(words, plain.nprocs),
            share=Share("host-a", 29400, 2, first_rank=0, world_size=8) if words.flag("share") else None,
        )
        words.done()
    except ValueError as error:
        raise ScenarioError(f"{line}: {error}") from None
    return spec


def _watch(words: Words) -> WatchPlan | None:
    settle = words.number("settle")
    plan = WatchPlan(settle=10.0 if settle is None else settle)
    if words.flag("report"):
        plan = plan.replace(on_failure="report")
    if words.flag("attached"):
        return plan.replace(attached=PID)
    return plan if words.flag("watch") else None


def _nodes(words: Words, nprocs: int) -> NodesPlan | None:
    count, timeout = words.whole("nodes"), words.number("node_timeout")
    if count is None:
        return None
    plan = NodesPlan(count=count, nproc=nprocs // count)
    return plan if timeout is None else plan.replace(node_timeout=timeout)


def new_spec(nprocs: int) -> JobSpec:
    """A job that nobody executes."""
    return JobSpec(run_id="test", command=("train.py",), argv=("python3", "train.py"), nprocs=nprocs, env={}, cwd="/")


class Player:
    """One job under a scenario, a line at a time.

    `spec`: what the job is asked to be.
    """

    def __init__(self, spec: JobSpec) -> None:
        self.job = Job(spec)
        """The state of the core, for tests that look closer."""
        self.steps: list[tuple[Fact, tuple[Order, ...]]] = []
        """Each fact with the orders that it gave, oldest first."""
        self._due: dict[str, float] = {}

    def play(self, line: str) -> list[str]:
        """Play one `line` and tell what came of it, a line each. Raises `ScenarioError` for what cannot be."""
        before, suspects = self._phases(), set(self.job.suspects)
        told: list[str] = []
        for fact in parse(line, lambda name: self.job.generations.get(name, 0)):
            self._check(fact)
            try:
                orders = step(self.job, fact)
            except RankguardBug as error:
                told.append(f"! refused: {str(error).splitlines()[0].rpartition(': ')[2]}")
                continue
            self.steps.append((fact, orders))
            told += [f"> {describe(order)}" for order in orders]
            for order in orders:
                if isinstance(order, WakeAt):
                    self._due[order.name] = order.when
                elif isinstance(order, Disarm):
                    self._due = {name: when for name, when in self._due.items() if name not in order.names}
        told += [f"= {change}" for change in _changes(before, self._phases())]
        fresh = self.job.suspects - suspects
        return [*told, f"= {_named('suspect', fresh)}"] if fresh else told

    def overdue(self, at: float) -> str | None:
        """The name of the first deadline that ought to have come by the instant `at`; None when there is none."""
        if job_phase(self.job) is JobPhase.FINISHED:
            return None
        late = [(when, name) for name, when in self._due.items() if when < at - _LATE]
        return min(late)[1] if late else None

    def _check(self, fact: Fact) -> None:
        if fact.at < self.job.now:
            raise ScenarioError(f"{fact.at} lies before {self.job.now}")
        # Only a driver that stood still can have missed a deadline, and says so first.
        if not isinstance(fact, TimeLost) and (late := self.overdue(fact.at)) is not None:
            raise ScenarioError(f"the deadline {late} was due at {self._due[late]:.3f}")
        if isinstance(fact, DeadlinePassed) and fact.generation == self.job.generations.get(fact.name):
            when = self._due.pop(fact.name, None)
            if when is None or fact.at < when - _LATE:
                raise ScenarioError(f"the deadline {fact.name} is due at {when}")

    def _phases(self) -> tuple[JobPhase, list[Phase]]:
        return job_phase(self.job), [self.job.phase(rank) for rank in self.job.ranks]


def describe(order: Order) -> str:  # noqa: C901, PLR0912  # one arm an order
    """An order as one line of a transcript."""
    match order:
        case Spawn(first=first, last=last):
            what = f"spawn {first}-{last}"
        case Look():
            what = "look"
        case Listen(since=since):
            what = f"listen since {since:.3f}"
        case Examine(number=examination):
            what = f"examine #{examination}"
        case Muster(spoken=spoken):
            what = "muster" + (f" but {_ranges(spoken)}" if spoken else "")
        case SignalAll(signal=number, spare=spare, ends=_):
            what = f"signal all {signal_name(number)}" + (f" but {_ranges(spare)}" if spare else "")
        case SignalRank(rank=rank, signal=number):
            what = f"signal rank {rank} {signal_name(number)}"
        case WakeAt(name=name, generation=generation, when=when):
            what = f"wake {name} #{generation} at {when:.3f}"
        case Disarm(names=names):
            what = f"disarm {' '.join(names)}"
        case Reap(rank=rank):
            what = f"reap {rank}"
        case Judge():
            what = "judge"
        case Sweep(kill=kill):
            what = "sweep, kill" if kill else "sweep, ask"
        case GiveUp():
            what = "give up"
        case Tell(what=subject, rank=rank):
            what = f"tell {subject}" + ("" if rank is None else f" {rank}")
        case _:
            what = type(order).__name__.lower()
    return f"{what} ({order.because})"


def _changes(before: tuple[JobPhase, list[Phase]], after: tuple[JobPhase, list[Phase]]) -> Iterable[str]:
    if before[0] is not after[0]:
        yield f"job: {before[0]} → {after[0]}"
    kinds: dict[tuple[Phase, Phase], list[int]] = {}
    for rank, change in enumerate(zip(before[1], after[1], strict=False)):  # a member may have joined
        if change[0] is not change[1]:
            kinds.setdefault(change, []).append(rank)
    for (old, new), ranks in kinds.items():
        yield f"{_named('rank', ranks)}: {old} → {new}"


def _named(what: str, ranks: Collection[int]) -> str:
    return f"{what if len(ranks) == 1 else what + 's'} {_ranges(ranks)}"


def _ranges(ranks: Iterable[int]) -> str:
    """0 1 2 3 7 → `0-3,7`, the reverse of `grammar.members`."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and runs[-1][-1] == rank - 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
