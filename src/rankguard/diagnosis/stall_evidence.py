"""What shows where late ranks were: their groups, the kernel's words, the CPU, the last sign. Pure; from `facts.Examined`.

Read next: `stalls.py` (who is to blame), `stacks.py` (the groups and their sentences).
"""

from rankguard.case import Case, RankCase
from rankguard.diagnosis.stacks import does_what, gil_holder, groups, held, own_frames, place, sentence, where_of
from rankguard.diagnosis.words import clip, seconds
from rankguard.facts import Examined, Mustered
from rankguard.model import Evidence
from rankguard.stacks import Stack, Thread

BUSY = 0.1
"""From this part of one CPU on a rank is called busy. One that waits uses less than 0.02, watchdog threads included. One
that spins gets a fifth of a CPU where ten want two; where it gets less, the kernel says that its main thread wants to run."""

_EVIDENCE, _CHILDREN = 3, 2
_THREADS, _FRAMES = 8, 30


def does(found: Examined, rank: RankCase) -> str:
    """``: it waits in `load_shard` (loader.py:88)``; empty where that is not known."""
    stack = stack_of(found, rank.rank)
    return "" if stack is None else f": it {does_what(stack, one=True)}"


def evidence_of(case: Case, found: Examined, rank: RankCase) -> tuple[Evidence, ...]:
    """What this rank and the others were doing, the CPU that it used, its last sign."""
    return (
        *stacks_evidence(case, found, rank.rank),
        *_within(case, found, rank.rank),
        *_below(found, rank.rank),
        *_use(found, rank.rank),
        *_clock(case, found, rank),
    )


def stack_of(found: Examined | Mustered, rank: int) -> Stack | None:
    """What this rank was doing; null where it could not be read."""
    return next((group.stack for group in found.groups if rank in group.ranks), None)


def last_sign(found: Examined | Mustered, rank: int) -> tuple[Evidence, ...]:
    """How old this rank's last sign of progress was; nothing of one that has given none."""
    sign = next((sign for sign in found.signs if sign.rank == rank), None)
    if sign is None or sign.at is None:
        return ()
    age = seconds(max(0.0, found.at - sign.at))
    statement = f"its last sign of progress ({sign.by}) was {age} old when it was looked at"
    return (Evidence(source="clock", statement=statement),)


def stack_text(stack: Stack) -> str:
    """Every thread that has calls to show, the main one first; innermost calls first."""
    lines = [f"pid {stack.pid} is {how}"] if (how := held(stack)) else []
    if stack.child_of is not None:
        lines.append(f"of pid {stack.pid}, the Python below the rank's own process (pid {stack.child_of})")
    for thread in stack.threads[:_THREADS]:
        if thread.frames or thread is stack.main:
            lines += _thread_text(thread)
    if stack.lacks:
        what = "no Python calls are known" if stack.by is None else "by faulthandler, of the main thread only"
        lines.append(f"{what}: {stack.lacks}")
    return "\n".join(lines)


def is_busy(found: Examined, rank: int) -> bool | None:
    """Whether it used the CPU while it was looked at, or would have; null is unknown."""
    used, stack = cpu_of(found, rank), stack_of(found, rank)
    if stack is not None and stack.main.state == "R":
        return True
    return None if used is None else used >= BUSY


def cpu_of(found: Examined, rank: int) -> float | None:
    """How many CPUs it used while it was looked at."""
    return next((used for number, used in found.cpu if number == rank), None)


def stacks_evidence(case: Case, found: Examined, rank: int | None) -> tuple[Evidence, ...]:
    """Groups of ranks in a sentence each: the culprit, then the largest, which mostly waits for it."""
    world = len(case.ranks)
    others = sorted(found.groups, key=lambda group: (rank not in group.ranks, -len(group.ranks), group.ranks))
    told = [Evidence(source="stacks", statement=sentence(group, world)) for group in others[:_EVIDENCE]]
    if len(others) > _EVIDENCE:
        told.append(Evidence(source="stacks", statement=f"{len(others) - _EVIDENCE} more groups do something else"))
    lacks = sorted({group.stack.lacks for group in found.groups if group.stack.lacks and group.stack.by is None})
    return (*told, *(Evidence(source="stacks", statement=f"no Python calls are known: {why}") for why in lacks[:1]))


def _within(case: Case, found: Examined, rank: int) -> tuple[Evidence, ...]:
    """What its calls do not tell: what it waits for in the kernel, what runs in C, who has the GIL, who waits for it."""
    stack = next((group.stack for group in found.groups if group.ranks == (rank,)), None)
    if stack is None:
        return ()
    main, told = stack.main, []
    if main.waits_in and main.waits_on and main.frames:
        told.append(("proc", f"it sleeps in `{main.waits_in}` on {main.waits_on}"))
    if main.channel:
        told.append(("proc", f"it sleeps in the kernel's `{main.channel}`"))
    if main.locked_by == stack.pid:
        told.append(("proc", "the lock that it waits for is its own, by another opening of the file"))
    elif main.locked_by is not None:
        owner = next((f"rank {each.rank}, " for each in case.ranks if each.pid == main.locked_by), "")
        told.append(("proc", f"the lock that it waits for is held by {owner}pid {main.locked_by}"))
    if main.native and main.native[0].partition(" ")[0] != main.waits_in and gil_holder(stack) is None:
        told.append(("stacks", f"in C it is in {', called by '.join(f'`{call}`' for call in main.native[:2])}"))
    holder = next((thread for thread in stack.threads[1:] if thread.holds_gil), None)
    if holder is not None and gil_holder(stack) is None:
        where = where_of(holder)
        told.append(("stacks", f"its thread `{holder.name}` holds the GIL" + (f", in {where}" if where else "")))
    for group in found.groups:
        lock = group.stack.main
        if lock.locked_by in (stack.pid, stack.child_of or stack.pid) and rank not in group.ranks:
            on = f" on {lock.waits_on}" if lock.waits_on else ""
            told.append(("proc", f"rank {group.ranks[0]} waits for a lock{on} that it holds"))
    return tuple(Evidence(source=source, statement=clip(statement)) for source, statement in told)


def _below(found: Examined, rank: int) -> tuple[Evidence, ...]:
    """What the processes do that it has started: a rank may wait for a worker of its own. The odd ones first."""
    children = {stack.pid: stack for number, stack in found.below if number == rank}
    told = []
    for group in groups(children)[:_CHILDREN]:
        one = len(group.ranks) == 1
        who = f"its child (pid {group.ranks[0]})" if one else f"{len(group.ranks)} of its children"
        told.append(Evidence(source="stacks", statement=clip(f"{who} {does_what(group.stack, one=one)}")))
    return tuple(told)


def _use(found: Examined, rank: int) -> tuple[Evidence, ...]:
    """CPU time is a weak sign: one that works says nothing by it, and one that sleeps is not lost."""
    used, stack = cpu_of(found, rank), stack_of(found, rank)
    if used is None:
        return ()
    much, over = used * found.within_s, found.within_s
    longer = next((each for each in found.used if each[0] == rank and each[2] > over), None)
    if longer is not None:
        _rank, much, over = longer
    call = stack.main.waits_in if stack is not None and stack.main.state == "S" else None
    how = f": it is asleep in `{call}`" if call else ": it waits"
    if is_busy(found, rank):
        how = ": it is busy, and says nothing"
    elif much >= BUSY * over:
        how = ""  # it was, and is not now
    if stack is not None and held(stack) is not None:
        how = ""
    cpu = f"{much:.2f} s of CPU" if much < 1 else f"{seconds(much)} of CPU"
    if much < 0.005:
        cpu = "no CPU"
    return (Evidence(source="cpu", statement=f"it has used {cpu} in the last {seconds(over)}{how}"),)


def _clock(case: Case, found: Examined, rank: RankCase) -> tuple[Evidence, ...]:
    told = last_sign(found, rank.rank)
    if told or rank.spawned_at is None:
        return told
    ago = seconds(found.at - rank.spawned_at)
    return (Evidence(source="clock", statement=f"it has given no sign of progress in the {ago} since its start"),)


def _thread_text(thread: Thread) -> list[str]:
    where = f" in {thread.waits_in}" if thread.waits_in else ""
    frames = own_frames(thread.frames)
    lines = [f"{thread.name}: state {thread.state}{where}" + (", holds the GIL" if thread.holds_gil else "")]
    lines += [f"  {frame.function} ({frame.file}:{frame.line})" if frame.file else f"  {frame.function} ({place(frame)})"
              for frame in frames[:_FRAMES]]  # fmt: skip
    lines += [f"  in C: {', called by '.join(thread.native)}"] if thread.native else []
    return lines
