"""The stacks of many ranks compared: who does the same, who does something else. Pure; the odd ones come first.

Two ranks do the same when their main threads do: the same calls, the program's own on the same lines (in libraries a
line is noise: one recv loops over another). A rank that is stopped, traced, in an uninterruptible system call or ended
is by itself whatever its calls are. Layout is `report/stacks.py`'s.
"""

from collections.abc import Iterable, Mapping

from rankguard.diagnosis.words import ranges
from rankguard.stacks import Frame, Group, Stack

_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python3", "<frozen ", "/rankguard/inside/")


def groups(stacks: Mapping[int, Stack]) -> tuple[Group, ...]:
    """The fewest ranks first; among equals those that something holds, then by rank."""
    found: dict[object, list[int]] = {}
    for rank in sorted(stacks):
        found.setdefault(_key(stacks[rank]), []).append(rank)
    made = [Group(tuple(ranks), stacks[ranks[0]]) for ranks in found.values()]
    return tuple(sorted(made, key=lambda group: (len(group.ranks), held(group.stack) is None, group.ranks)))


def sentence(group: Group, world: int) -> str:
    """``rank 3 is in `load_shard` (loader.py:88)``; ``ranks 0-2, 4-7 wait in `recv`, called by `step` (train.py:40)``."""
    one = len(group.ranks) == 1
    who = f"rank {group.ranks[0]}" if one else f"ranks {ranges(group.ranks)}"
    if not one and len(group.ranks) == world:
        who = f"all {world} ranks"
    be, how, where = "is" if one else "are", held(group.stack), _where(group.stack)
    if how is not None:
        return f"{who} {be} {how}" + (f", in {where}" if where else "")
    if waits(group.stack):
        return f"{who} wait{'s' if one else ''}" + (f" in {where}" if where else "")
    return f"{who} {be} in {where}" if where else f"{who} {be} running"


def held(stack: Stack) -> str | None:
    """What holds a process from outside its program, in words; None for one that runs or waits by itself."""
    if stack.tracer is not None:
        return f"held by a debugger (pid {stack.tracer})"
    return {
        "T": "stopped (SIGSTOP or the terminal)",
        "t": "held by a debugger",
        "D": "in a system call that cannot be interrupted",
        "Z": "ended and not reaped",
        "X": "ended",
    }.get(stack.main.state)


def own_frames(frames: Iterable[Frame]) -> tuple[Frame, ...]:
    """The frames from the innermost to the program's outermost: what started the program is left out."""
    told = tuple(frames)
    own = [n for n, frame in enumerate(told) if is_own(frame)]
    return told[: own[-1] + 1] if own else told


def is_own(frame: Frame) -> bool:
    """A call of the program, not of a library or of us."""
    return frame.file is not None and not any(mark in frame.file for mark in _LIBRARIES)


def _key(stack: Stack) -> object:
    main = stack.main
    if main.frames:
        calls = tuple((f.function, f.file, f.line if is_own(f) else None) for f in own_frames(main.frames))
        return held(stack) and main.state, calls
    return held(stack) and main.state, stack.name, main.state, main.waits_in


def waits(stack: Stack) -> bool:
    """It sleeps, or its interpreter calls it idle."""
    return stack.main.state in "SD" if stack.main.active is None else not stack.main.active


def _where(stack: Stack) -> str:
    """The program's innermost line, and the call into a library that it stands in."""
    frames = own_frames(stack.main.frames)
    own = next((n for n, frame in enumerate(frames) if is_own(frame)), None)
    if own is None:
        inner = frames[0] if frames else None
        call = stack.main.waits_in
        return f"`{inner.function}` ({place(inner)})" if inner else f"`{call}`" if call else ""
    caller = f"`{frames[own].function}` ({place(frames[own])})"
    if own == 0:
        return caller
    called = next((frame for frame in reversed(frames[:own]) if not _only_wraps(frame)), frames[own - 1])
    return f"`{called.function}`, called by {caller}"


def _only_wraps(frame: Frame) -> bool:
    """A decorator's inside: what it wraps is what the program called."""
    return frame.function.rpartition(".")[2] in ("wrapper", "wrapped", "inner", "decorate_context", "__call__")


def place(frame: Frame) -> str:
    """`loader.py:88`."""
    name = (frame.file or "?").rpartition("/")[2]
    return name if frame.line is None else f"{name}:{frame.line}"
