"""The stacks of many ranks compared: who does the same, who does something else. Pure; the odd ones come first.

Two ranks do the same when their main threads do: the same calls, the program's own on the same lines (in libraries a
line is noise: one recv loops over another). What goes on inside a collective does not count, so that one that spins
there is as one that sleeps. One that runs is caught anywhere: of the function that it is in the line does not count, nor
what a library does deep inside. A rank that is stopped, traced, in an uninterruptible system call or ended is by itself
whatever its calls are, as is one whose thread sleeps with the GIL. Layout is `report/stacks.py`'s.
"""

from collections.abc import Iterable, Mapping

from rankguard.diagnosis.words import ranges
from rankguard.stacks import Frame, Group, Stack, Thread

_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python3", "<frozen ", "/rankguard/inside/")


WAITS_FOR_PEERS = frozenset(
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
"""Functions in which a rank waits for others, by the names that torch, mpi4py, Horovod, DeepSpeed and accelerate use."""
_PARTS = 5
_NAMES = 3


def groups(stacks: Mapping[int, Stack], names: Mapping[int, str] | None = None) -> tuple[Group, ...]:
    """The fewest ranks first; among equals those that something holds, then by rank. `names`: of a watched tree."""
    found: dict[object, list[int]] = {}
    for rank in sorted(stacks):
        found.setdefault(_key(stacks[rank]), []).append(rank)
    known = names or {}
    made = [
        Group(tuple(ranks), _common(stacks, ranks), tuple(known[rank] for rank in ranks if rank in known))
        for ranks in found.values()
    ]
    return tuple(sorted(made, key=lambda group: (len(group.ranks), held(group.stack) is None, group.ranks)))


def sentence(group: Group, world: int) -> str:
    """``rank 3 is in `load_shard` (loader.py:88)``; ``ranks 0-2, 4-7 wait in `recv`, called by `step` (train.py:40)``."""
    return f"{subject(group, world)} {does_what(group.stack, one=len(group.ranks) == 1)}"


def subject(group: Group, world: int) -> str:
    """`rank 3`, `ranks 0-2, 4-7`; of a watched tree the names of its processes."""
    if not group.names:
        return _who(group.ranks, world)
    alike: dict[str, list[str]] = {}
    for name in group.names:
        title, _pid, pid = name.removesuffix(")").rpartition(" (pid ")
        alike.setdefault(title, []).append(pid)
    told = [f"{title} ({_pids(pids)})" for title, pids in alike.items()]
    more = len(told) - _NAMES
    return ", ".join(told[:_NAMES]) + (f" and {more} more" if more > 0 else "")


def _pids(pids: list[str]) -> str:
    if len(pids) == 1:
        return f"pid {pids[0]}"
    rest = f" … {len(pids)} in all" if len(pids) > _PARTS else ""
    return f"pids {', '.join(sorted(pids, key=int)[:_PARTS])}{rest}"


def does_what(stack: Stack, *, one: bool) -> str:
    """The sentence without its subject: ``waits in `recv`, called by `step` (train.py:40)``."""
    how = _is(stack)
    if how is None:
        return f"wait{'s' if one else ''}{_waits_for(stack)}"
    return f"{'is' if one else 'are'} {how}"


def _is(stack: Stack) -> str | None:
    """What it is or is in; None where it waits."""
    how, where = held(stack), _where(stack)
    if how is not None:
        return how + (f", in {where}" if where else "")
    if gil_holder(stack) is not None or waits(stack):
        return None
    return f"in {where}" if where else "running"


def _waits_for(stack: Stack) -> str:
    holder, where = gil_holder(stack), _where(stack)
    if holder is None:
        return f" in {where}" if where else ""
    there = where_of(holder)
    return f" for its thread `{holder.name}`, which sleeps with the GIL" + (f" in {there}" if there else "")


def _who(ranks: tuple[int, ...], world: int) -> str:
    """`rank 3`, `ranks 0-2, 4-7`, `all 8 ranks`; of many that do not follow one another the number and the first."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) == world:
        return f"all {world} ranks"
    parts = ranges(ranks).split(", ")
    if len(parts) <= _PARTS + 1:
        return f"ranks {', '.join(parts)}"
    return f"{len(ranks)} of {world} ranks ({', '.join(parts[:_PARTS])} …)"


def held(stack: Stack) -> str | None:
    """What holds a process from outside its program, in words; None for one that runs or waits by itself."""
    if stack.tracer is not None:
        return f"held by a debugger (pid {stack.tracer})"
    return {
        "T": "stopped by a signal (SIGSTOP or SIGTSTP)",
        "t": "held by a debugger",
        "D": "in a system call that cannot be interrupted",
        "Z": _ended(stack),
        "X": "ended",
    }.get(stack.main.state)


def _ended(stack: Stack) -> str:
    others = sum(thread.state not in "ZX" for thread in stack.threads[1:])
    if not others:
        return "ended and not reaped"
    return f"without its main thread, which has ended; {others} other thread{'s live' if others > 1 else ' lives'} on"


def gil_holder(stack: Stack) -> Thread | None:
    """A thread other than the main one that sleeps with the GIL: no Python runs in this process until it wakes."""
    return next((thread for thread in stack.threads[1:] if thread.holds_gil and thread.state in "SD"), None)


def peer_call(frames: tuple[Frame, ...]) -> int | None:
    """Where in own frames a library is asked to wait for other ranks: the outermost such call; None where it is not."""
    own = next((n for n, frame in enumerate(frames) if is_own(frame)), len(frames))
    return next((n for n in reversed(range(own)) if frames[n].function in WAITS_FOR_PEERS), None)


def own_frames(frames: Iterable[Frame]) -> tuple[Frame, ...]:
    """The frames from the innermost to the program's outermost: what started the program is left out."""
    told = tuple(frames)
    own = [n for n, frame in enumerate(told) if is_own(frame)]
    return told[: own[-1] + 1] if own else told


def is_own(frame: Frame) -> bool:
    """A call of the program, not of a library or of us."""
    return frame.file is not None and not any(mark in frame.file for mark in _LIBRARIES)


def _key(stack: Stack) -> object:
    main, alone = stack.main, held(stack) and stack.main.state
    if not main.frames:
        return alone, stack.name, main.state, main.waits_in
    frames, running = own_frames(main.frames), not waits(stack)
    own = next((n for n, frame in enumerate(frames) if is_own(frame)), None)
    first = peer_call(frames)
    if first is None:
        first = max(0, own - 1) if running and own is not None else 0
    noise = own if running and own == 0 else None
    calls = tuple(
        (f.function, f.file, f.line if is_own(f) and n != noise else None) for n, f in enumerate(frames[first:], first)
    )
    holder = gil_holder(stack)
    return alone, calls, holder and holder.frames[:1]


def _common(stacks: Mapping[int, Stack], ranks: list[int]) -> Stack:
    """The stack of the first; without the line on which the others are not."""
    first = stacks[ranks[0]]
    lines = {stacks[rank].main.frames[0].line for rank in ranks if stacks[rank].main.frames}
    if len(lines) < 2 or not is_own(first.main.frames[0]):
        return first
    frames = (first.main.frames[0].replace(line=None), *first.main.frames[1:])
    return first.replace(threads=(first.main.replace(frames=frames), *first.threads[1:]))


def waits(stack: Stack) -> bool:
    """It sleeps, or its interpreter calls it idle."""
    return stack.main.state in "SD" if stack.main.active is None else not stack.main.active


def _where(stack: Stack) -> str:
    return where_of(stack.main)


def where_of(thread: Thread) -> str:
    """The program's innermost line, and the call into a library that it stands in; what tells most is named first."""
    frames = own_frames(thread.frames)
    own = next((n for n, frame in enumerate(frames) if is_own(frame)), None)
    if own is None:
        inner = frames[0] if frames else None
        if inner:
            return f"`{inner.function}` ({place(inner)})"
        on = f" on {thread.waits_on}" if thread.waits_on else ""
        return f"`{thread.waits_in}`{on}" if thread.waits_in else ""
    caller = f"`{frames[own].function}` ({place(frames[own])})"
    if own == 0:
        return caller
    called = next((frame for frame in reversed(frames[:own]) if not _only_wraps(frame)), frames[own - 1])
    telling = _telling(frames[:own], called)
    below = "" if telling is None else f"`{telling.function}` below "
    return f"{below}`{called.function}`, called by {caller}"


def _telling(frames: tuple[Frame, ...], called: Frame) -> Frame | None:
    """What tells more than the call that the program made, which may be a whole trainer's: where it waits for others,
    else where it is in another package.
    """
    peer = peer_call(frames)
    if peer is not None:
        return frames[peer] if frames[peer] is not called else None
    inner = next((frame for frame in frames if _package(frame) is not None), called)
    return inner if _package(called) not in (None, _package(inner)) else None


def _package(frame: Frame) -> str | None:
    """The folder below `site-packages`."""
    _before, found, rest = (frame.file or "").rpartition("-packages/")
    return rest.partition("/")[0] if found else None


def _only_wraps(frame: Frame) -> bool:
    """A decorator's inside: what it wraps is what the program called."""
    return frame.function.rpartition(".")[2] in ("wrapper", "wrapped", "inner", "decorate_context", "__call__")


def place(frame: Frame) -> str:
    """`loader.py:88`."""
    name = (frame.file or "?").rpartition("/")[2]
    return name if frame.line is None else f"{name}:{frame.line}"
