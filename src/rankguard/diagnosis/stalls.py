"""A stalled job: which rank holds the others up, and what shows it. Pure; rests on the examination (`facts.Examined`).

When one rank hangs, its peers soon wait for it and are as silent as it is, so the first whose time is over need not be
the culprit. What tells them apart, the strongest first:

1. something holds it from outside: it is stopped (SIGSTOP), traced, in a system call that cannot be interrupted
2. it does something else than most, who wait; if it uses the CPU there, the more so. One that waits for a peer (in a
   collective, a receive) is the last to be blamed
3. it has been silent for much longer than all others like it
4. it still talks, and is the only one that is not where all silent ranks wait

If none of these singles one out, `either` names those that are left, and nobody is the culprit if that is everybody.
Not here: stacks and their groups (`stacks.py`), when a rank is stalled (`core/stalls.py`).
"""

from rankguard.case import Case, RankCase
from rankguard.diagnosis.evidence import ended_by_us
from rankguard.diagnosis.kinds import make
from rankguard.diagnosis.stacks import held, is_own, own_frames, place, sentence, waits
from rankguard.diagnosis.words import ranges, seconds, who
from rankguard.facts import Examined
from rankguard.model import Cause, Confidence, Evidence
from rankguard.record import Record
from rankguard.stacks import Group, Stack, Thread

BUSY = 0.1
"""From this part of one CPU on a rank is called busy. One that waits uses less than 0.02, watchdog threads included; one
that spins gets a fifth of a CPU even where ten want it."""

MUCH_LONGER = 0.5
"""To be silent for so much of the timeout longer than others means something: peers that come to wait for a rank say
their last word up to one step after it."""

_EVIDENCE = 3
_THREADS, _FRAMES = 8, 30

_WAITS_FOR_PEERS = frozenset(
    [
        "all_gather",
        "all_gather_object",
        "all_reduce",
        "all_to_all",
        "allgather",
        "allreduce",
        "alltoall",
        "barrier",
        "bcast",
        "broadcast",
        "broadcast_object_list",
        "gather",
        "irecv",
        "isend",
        "monitored_barrier",
        "recv",
        "recv_bytes",
        "recv_object_list",
        "reduce",
        "reduce_scatter",
        "scatter",
        "sendrecv",
        "synchronize_rng_states",
        "wait_for_everyone",
    ]
)
_PEERS = ("/torch/distributed/", "/mpi4py/", "/multiprocessing/connection.py", "/horovod/", "/deepspeed/comm/")


class Choice(Record):
    """Who holds the others up: null for nobody that is known. `either`: who may as well be the one."""

    rank: int | None
    either: tuple[int, ...]
    basis: str
    confidence: Confidence


def choose(case: Case, found: Examined) -> Choice:  # noqa: PLR0911  # one for each thing that may tell
    """Of a job that failed by a stall."""
    silent = _silences(case, found)
    limit = case.spec.stall_timeout or 0.0
    late = {rank.rank for rank in case.ranks if rank.late}
    suspects = sorted(number for number, quiet in silent.items() if number in late or quiet >= limit / 2)
    suspects = suspects or sorted(late)
    if len(case.ranks) == 1 or len(suspects) == 0:
        return Choice(suspects[0] if suspects else None, (), "the only rank", Confidence.PROVEN)
    stacks = {number: group.stack for group in found.groups for number in group.ranks}
    most = _most(found, suspects)
    scores = {number: _score(stacks.get(number), number in most, _cpu(found, number)) for number in suspects}
    best = min(scores.values())
    left = [number for number in suspects if scores[number] == best]
    if best == _HELD and len(left) == 1:
        return Choice(left[0], (), "held from outside", Confidence.PROVEN)
    if len(suspects) == 1:
        return _only_one(suspects[0], scores[suspects[0]], [number for number in silent if number not in suspects])
    if len(left) == 1:
        return Choice(left[0], (), "does something else than the ranks that wait", Confidence.LIKELY)
    left.sort(key=lambda number: (-silent.get(number, 0.0), number))
    first, others = left[0], tuple(sorted(left[1:]))
    if silent.get(first, 0.0) - silent.get(left[1], 0.0) >= MUCH_LONGER * limit:
        return Choice(first, (), "silent for longest", Confidence.LIKELY)
    if len(left) < len(suspects) and not most:
        return Choice(None, tuple(sorted(left)), "several do not wait for the others", Confidence.UNKNOWN)
    if len(left) < len(suspects):
        return Choice(first, others, "silent for longest of those that do not wait for others", Confidence.LIKELY)
    talking = [number for number in silent if number not in suspects and number not in most]
    if len(talking) == 1 and most.issuperset(suspects) and waits(stacks[first]):
        return Choice(talking[0], (), "goes on, and is not where all others wait", Confidence.LIKELY)
    return Choice(None, tuple(suspects), "nothing tells the silent ranks apart", Confidence.UNKNOWN)


def stalled(case: Case, rank: RankCase) -> Cause | None:
    """The cause, of the rank that holds the others up."""
    found = case.examined
    if case.failed_by != "stall" or found is None or _failed_before(case, rank):
        return None
    chosen = choose(case, found)
    if chosen.rank != rank.rank:
        return None
    stack, doing = stack_of(found, rank.rank), ""
    if stack is not None:
        doing = f": it {_alone(rank.rank, stack, len(case.ranks))}"
    limit = seconds(case.spec.stall_timeout or 0.0)
    what = f"has shown no sign of progress for {limit}" if rank.late else "holds the silent ranks up"
    evidence = (*_stacks(case, found, rank.rank), *_use(found, rank.rank), *_clock(case, found, rank))
    return make("stall", f"{who(case, rank)} {what}{doing}", chosen.confidence, evidence, rank=rank)


def _failed_before(case: Case, rank: RankCase) -> bool:
    """It failed in its own way before the job was called stalled. What it says when it is told to end is no failure."""
    if rank.dying or rank.broken or (rank.exited and not ended_by_us(rank)):
        return True
    raised_at = rank.report.report.raised_at or rank.report.at if rank.report else None
    return raised_at is not None and case.failed_at is not None and raised_at < case.failed_at


def nobody(case: Case) -> Cause:
    """The cause where it is not known who holds the others up."""
    found = case.examined
    assert found is not None  # the caller has looked
    late = [rank.rank for rank in case.ranks if rank.late]
    many = f"ranks {ranges(late)} of {len(case.ranks)}" if len(late) < len(case.ranks) else f"all {len(late)} ranks"
    limit = seconds(case.spec.stall_timeout or 0.0)
    statement = f"{many} have shown no sign of progress for {limit}, and which holds the others up is not known"
    return make("stall", statement, Confidence.UNKNOWN, _stacks(case, found, None))


def stack_of(found: Examined, rank: int) -> Stack | None:
    """What this rank was doing; null where it could not be read."""
    return next((group.stack for group in found.groups if rank in group.ranks), None)


def stack_text(stack: Stack) -> str:
    """Every thread that has calls to show, the main one first; innermost calls first."""
    lines = [f"pid {stack.pid} is {how}"] if (how := held(stack)) else []
    for thread in stack.threads[:_THREADS]:
        if thread.frames or thread is stack.main:
            lines += _thread_text(thread)
    if stack.lacks:
        lines.append(f"no Python calls are known: {stack.lacks}")
    return "\n".join(lines)


def is_busy(found: Examined, rank: int) -> bool | None:
    """Whether it used the CPU while it was looked at; null is unknown."""
    used = _cpu(found, rank)
    return None if used is None else used >= BUSY


_HELD, _ODD_AND_BUSY, _ODD, _AS_MOST, _ODD_WAITS_FOR_PEER, _WAITS_FOR_PEER = range(6)


def _only_one(number: int, score: int, talking: list[int]) -> Choice:
    """One silent rank among others that talk: it is that, unless it waits for one of them."""
    if score >= _ODD_WAITS_FOR_PEER and len(talking) == 1:
        return Choice(number, tuple(talking), "the only silent rank, and waits for a peer", Confidence.LIKELY)
    return Choice(number, (), "the only silent rank", Confidence.PROVEN)


def _score(stack: Stack | None, as_most: bool, cpu: float | None) -> int:
    if stack is None:
        return _AS_MOST if as_most else _ODD
    if held(stack) is not None:
        return _HELD
    if _waits_for_peer(stack):
        return _WAITS_FOR_PEER if as_most else _ODD_WAITS_FOR_PEER
    if as_most:
        return _AS_MOST
    busy = cpu >= BUSY if cpu is not None else stack.main.state == "R"
    return _ODD_AND_BUSY if busy else _ODD


def _most(found: Examined, suspects: list[int]) -> set[int]:
    """Those that do the same, if they are two or more, and more than half of the suspects."""
    for group in found.groups:
        same = set(group.ranks) & set(suspects)
        if len(same) >= 2 and 2 * len(same) > len(suspects) and held(group.stack) is None:
            return set(group.ranks)
    return set()


def _waits_for_peer(stack: Stack) -> bool:
    """It stands in a collective or a receive: by the calls from the program's innermost line on.

    Whether it spins there says nothing: a rank that waits in NCCL uses all of a CPU.
    """
    frames = own_frames(stack.main.frames)
    own = next((n for n, frame in enumerate(frames) if is_own(frame)), len(frames) - 1)
    inner = frames[: own + 1]
    return any(
        frame.function in _WAITS_FOR_PEERS or any(mark in (frame.file or "") for mark in _PEERS) for frame in inner
    )


def _silences(case: Case, found: Examined) -> dict[int, float]:
    """For how long each rank alive has been silent."""
    started = {rank.rank: rank.spawned_at for rank in case.ranks}
    told = {}
    for sign in found.signs:
        last = max((at for at in (sign.at, started.get(sign.rank)) if at is not None), default=None)
        if last is not None:
            told[sign.rank] = max(0.0, found.at - last)
    return told


def _cpu(found: Examined, rank: int) -> float | None:
    return next((used for number, used in found.cpu if number == rank), None)


# ── Evidence ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _stacks(case: Case, found: Examined, rank: int | None) -> tuple[Evidence, ...]:
    """Groups of ranks in a sentence each: the culprit, then the largest, which mostly waits for it."""
    world = len(case.ranks)
    others = sorted(found.groups, key=lambda group: (rank not in group.ranks, -len(group.ranks), group.ranks))
    told = [Evidence(source="stacks", statement=sentence(group, world)) for group in others[:_EVIDENCE]]
    if len(others) > _EVIDENCE:
        told.append(Evidence(source="stacks", statement=f"{len(others) - _EVIDENCE} more groups do something else"))
    lacks = sorted({group.stack.lacks for group in found.groups if group.stack.lacks})
    return (*told, *(Evidence(source="stacks", statement=f"no Python calls are known: {why}") for why in lacks[:1]))


def _use(found: Examined, rank: int) -> tuple[Evidence, ...]:
    used = _cpu(found, rank)
    if used is None:
        return ()
    how = ": it is busy, and says nothing" if used >= BUSY else ": it waits"
    if (stack := stack_of(found, rank)) is not None and held(stack) is not None:
        how = ""
    much = f"{used:.2f} of a CPU" if used >= 0.005 else "no CPU"
    return (Evidence(source="cpu", statement=f"it used {much} during {seconds(found.within_s)}{how}"),)


def _clock(case: Case, found: Examined, rank: RankCase) -> tuple[Evidence, ...]:
    sign = next((sign for sign in found.signs if sign.rank == rank.rank), None)
    if sign is not None and sign.at is not None:
        ago = seconds(max(0.0, found.at - sign.at))
        return (Evidence(source="clock", statement=f"its last sign of progress ({sign.by}) was {ago} before that"),)
    if rank.spawned_at is None:
        return ()
    ago = seconds(found.at - rank.spawned_at)
    return (Evidence(source="clock", statement=f"it has given no sign of progress since its start, {ago} before that"),)


def _alone(rank: int, stack: Stack, world: int) -> str:
    """`waits in …`, `is stopped …`: the sentence of a rank without its subject."""
    return sentence(Group((rank,), stack), max(2, world)).removeprefix(f"rank {rank} ")


def _thread_text(thread: Thread) -> list[str]:
    where = f" in {thread.waits_in}" if thread.waits_in else ""
    frames = own_frames(thread.frames)
    lines = [f"{thread.name}: state {thread.state}{where}" + (", holds the GIL" if thread.holds_gil else "")]
    lines += [f"  {frame.function} ({frame.file}:{frame.line})" if frame.file else f"  {frame.function} ({place(frame)})"
              for frame in frames[:_FRAMES]]  # fmt: skip
    return lines
