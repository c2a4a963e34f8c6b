"""The stacks of ranks as text: a sentence for each group of ranks that do the same, then their calls. 80 columns wide.

The odd ones come first (`diagnosis/stacks.py`). Words of ranks (names of functions, files, threads) obey no terminal.
"""

from collections.abc import Mapping

from rankguard.diagnosis.stacks import groups, held, own_frames, place, sentence, subject
from rankguard.diagnosis.words import ranges
from rankguard.report.wording import printable
from rankguard.stacks import Frame, Group, Stack, Thread

_GROUPS, _FRAMES, _THREADS = 12, 30, 16
_WIDTH = 80


def stacks_text(
    stacks: Mapping[int, Stack], asked: int, ended: int, elapsed_s: float, names: Mapping[int, str] | None = None
) -> str:
    """All of it. `asked`: how many ranks the question was about, `ended` of which have no process.

    `names`: of a watched tree, whose processes are told by their names.
    """
    told = groups(stacks, names)
    unread = asked - ended - len(stacks)
    rest = f"; {ended} {'has' if ended == 1 else 'have'} no process" if ended else ""
    rest += f"; {unread} cannot be read" if unread > 0 else ""
    what = f"{len(stacks)} of {asked} ranks" if names is None else f"{len(stacks)} processes of the engine"
    lines = [f"stacks of {what}, {elapsed_s:.1f} s after launch{'' if names else rest}", ""]
    for group in told[:_GROUPS]:
        lines += _folded(sentence(group, asked))
    if len(told) > _GROUPS:
        lines.append(f"and {len(told) - _GROUPS} more groups of ranks")
    lines += _lacking(told)
    for group in told[:_GROUPS]:
        lines += ["", *_group(group)]
    return "\n".join(lines) + "\n"


def _lacking(told: tuple[Group, ...]) -> list[str]:
    """What could not be had, and why."""
    none = sorted({g.stack.lacks for g in told if g.stack.lacks and g.stack.by is None})
    some = sorted({g.stack.lacks for g in told if g.stack.lacks and g.stack.by is not None})
    lines = [f"calls of the main thread only, by faulthandler: {printable(why, 200)}" for why in some]
    return lines + [f"no Python calls are shown: {printable(why, 200)}" for why in none]


def _group(group: Group) -> list[str]:
    stack = group.stack
    what = (
        subject(group, 0)
        if group.names
        else f"rank {group.ranks[0]}"
        if len(group.ranks) == 1
        else f"ranks {ranges(group.ranks)}, as rank {group.ranks[0]}"
    )
    how = held(stack) or _state(stack.main)
    how += f" (the kernel's `{printable(stack.main.channel, 60)}`)" if stack.main.channel else ""
    below = f", child of {stack.child_of}" if stack.child_of is not None else ""
    lines = [f"{what}: pid {stack.pid} ({printable(stack.name, 40)}{below}), {how}"]
    if stack.main.state == "T" and stack.tracer is None:
        lines.append(f"  `kill -CONT {stack.pid}` lets it go on")
    if stack.main.frames and stack.main.waits_on:
        lines.append(f"  on {printable(stack.main.waits_on, 200)}")
    if stack.main.locked_by is not None:
        lines.append(f"  the lock is held by pid {stack.main.locked_by}")
    for thread in stack.threads[:_THREADS]:
        if thread.frames or thread is stack.main:
            lines += _thread(thread, stack)
    bare = [thread for thread in stack.threads if not thread.frames and thread is not stack.main]
    if bare:
        names = sorted({printable(thread.name, 20) for thread in bare})
        shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        lines.append(f"  {len(bare)} thread{'' if len(bare) == 1 else 's'} without Python: {shown}")
    return lines


def _thread(thread: Thread, stack: Stack) -> list[str]:
    frames = own_frames(thread.frames)
    lines = []
    if thread is not stack.main:
        gil = ", holds the GIL" if thread.holds_gil else ""
        lines.append(f"  thread {printable(thread.name, 40)}: {_state(thread)}{gil}")
    names = [printable(frame.function, 60) for frame in frames[:_FRAMES]]
    width = min(28, max(map(len, names), default=0))
    lines += [f"    {name:{width}}  {_file(frame, width)}" for name, frame in zip(names, frames, strict=False)]
    if len(frames) > _FRAMES:
        lines.append(f"    and {len(frames) - _FRAMES} more calls")
    return lines


def _file(frame: Frame, width: int) -> str:
    """The end of the path that fits: a file's name is never cut."""
    room = _WIDTH - width - 6
    path = printable(frame.file or "?", 1000) + ("" if frame.line is None else f":{frame.line}")
    while len(path) > room and "/" in path.removeprefix("…/"):
        path = "…/" + path.removeprefix("…/").partition("/")[2]
    return path if frame.file is not None else place(frame)


def _state(thread: Thread) -> str:
    """What the kernel says of it."""
    word = {"R": "runs", "S": "sleeps", "D": "waits without interruption", "T": "stopped", "t": "traced", "Z": "ended"}
    where = f" in `{printable(thread.waits_in, 60)}`" if thread.waits_in else ""
    return word.get(thread.state, f"state {thread.state}") + where


def _folded(text: str) -> list[str]:
    """At words, to 80 columns; what follows is indented."""
    from textwrap import wrap

    return wrap(printable(text, 1000), _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
