"""Python tracebacks in log text: the last one, its exception, its frames and the chain behind it.

Not a judge: what an exception means is `peers.py` and `causes.py`. Used where a rank's interpreter could not report by
itself (no bootstrap, `os._exit`, another launcher). Read next: `peers.py`.
"""

import re
from collections.abc import Sequence

from rankguard.model import ExceptionInfo
from rankguard.record import Record


class LoggedException(Record):
    """The exception that ends the last traceback of a log. `line` is the index of its `Type: message` line."""

    exception: ExceptionInfo
    line: int


def last_traceback(lines: Sequence[str]) -> LoggedException | None:
    """The last traceback in `lines` (see `clean`), with those that it names as its cause or context; null if none.

    Of an exception group the chain has its leaves first, as in a rank's own report (`inside/lastwords.py`).
    """
    blocks: list[_Block] = []
    at = 0
    while at < len(lines):
        block = _group(lines, at) or _block(lines, at)
        if block:
            blocks.append(block)
        at = block.end if block else at + 1
    if not blocks:
        return None
    linked = [blocks[-1]]
    for earlier, later in zip(blocks[-2::-1], blocks[:0:-1], strict=True):
        if not any(_is_link(line) for line in lines[earlier.final : later.start + 1]):
            break
        linked.append(earlier)
    last, root = linked[0], linked[-1]
    path, _, name = last.type.rpartition(".")
    exception = ExceptionInfo(
        type=name,
        message=last.message,
        module=path or None,
        traceback="\n".join(lines[root.start : last.end]).rstrip(),
        frames=last.frames,
        chain=(*last.leaves, *(_words(b.type, b.message) for b in linked[1:])),
    )
    return LoggedException(exception=exception, line=last.final)


def fatal_frames(lines: Sequence[str]) -> tuple[str, ...]:
    """The frames that faulthandler wrote of the thread that crashed (`Fatal Python error`), the innermost last."""
    starts = [n for n, line in enumerate(lines) if line.startswith("Fatal Python error: ")]
    frames: list[str] = []
    inside = False
    for line in lines[starts[-1] :] if starts else ():
        if line.startswith("Current thread "):
            inside = True
        elif inside and (found := _FATAL_FRAME.match(line)):
            frames.append(f"{found['file']}:{found['line']} {found['function']}")
        elif inside:
            break
    return tuple(reversed(frames))


def clean(text: str) -> list[str]:
    """The lines of a log without colours, and without what torch (`[rank3]:`) and Ray put before each line."""
    return [_PREFIX.sub("", _ANSI.sub("", line)).rstrip() for line in text.splitlines()]


_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PREFIX = re.compile(r"^(?:\(\w+ pid=\d+[^)]*\) ?)?(?:\[rank\d+\]: ?)?")
_START = "Traceback (most recent call last):"
_FRAME = re.compile(r'^\s+File "(?P<file>.+)", line (?P<line>\d+)(?:, in (?P<function>.+))?$')
_FATAL_FRAME = re.compile(r'^\s+File "(?P<file>.+)", line (?P<line>\d+|\?\?\?) in (?P<function>.+)$')
_FINAL = re.compile(r"^(?!rankguard: )(?P<type>[A-Za-z_]\w*(?:\.\w+)*)(?:: ?(?P<message>.*))?$")
_LINKS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_MESSAGE_LINES = 12  # NCCL's and CUDA's messages have up to ten lines; more is the program's next output


_GROUP = re.compile(r"^\s*\+ Exception Group Traceback \(most recent call last\):$")
_INSIDE = re.compile(r"^\s*(?:\||\+[-+])(?P<text>.*)$")
_LEAF = re.compile(
    r"^ (?P<type>[A-Za-z_][\w.]*(?:Error|Exception|Group|Interrupt|Exit|Iteration|Timeout|Empty|Full))(?:: ?(?P<message>.*))?$"
)


class _Block(Record):
    start: int
    final: int
    end: int
    type: str
    message: str
    frames: tuple[str, ...]
    leaves: tuple[str, ...] = ()


def _group(lines: Sequence[str], start: int) -> _Block | None:
    """The traceback of an exception group that begins at `start`, as `traceback.TracebackException` prints it: each line
    has its margin, and the exceptions in it follow, groups among them with theirs.
    """
    if not _GROUP.match(lines[start]):
        return None
    inside: list[str] = []
    for line in lines[start + 1 :]:
        if not (found := _INSIDE.match(line)):
            break
        inside.append(found["text"])
    said = [(at, found) for at, text in enumerate(inside) if (found := _LEAF.match(text))]
    if not said:
        return None
    at, own = said[0]
    above = (_FRAME.match(text[1:]) for text in inside[:at])
    frames = tuple(f"{frame['file']}:{frame['line']} {frame['function'] or '?'}" for frame in above if frame)
    leaves = tuple(_words(f["type"], f["message"] or "") for _, f in said[1:] if not f["type"].endswith("Group"))
    final, end = start + 1 + at, start + 1 + len(inside)
    return _Block(start, final, end, own["type"], (own["message"] or "").strip(), frames, leaves)


def _words(type_name: str, message: str) -> str:
    return f"{type_name.rpartition('.')[2]}: {message}".removesuffix(": ")


def _block(lines: Sequence[str], start: int) -> _Block | None:
    """The traceback that begins at `start`: with its heading, or with a frame where the log's cut took the heading."""
    if not lines[start].endswith(_START) and not _FRAME.match(lines[start]):
        return None
    frames = []
    at = start + 1 if lines[start].endswith(_START) else start
    while at < len(lines) and (lines[at].startswith((" ", "\t")) or not lines[at]):
        if frame := _FRAME.match(lines[at]):
            frames.append(f"{frame['file']}:{frame['line']} {frame['function'] or '?'}")
        at += 1
    final = _FINAL.match(lines[at]) if at < len(lines) else None
    if not final:
        return None
    end = at + 1
    while end < min(len(lines), at + _MESSAGE_LINES) and not _ends_message(lines, end):
        end += 1
    message = "\n".join([final["message"] or "", *lines[at + 1 : end]]).strip()
    return _Block(start=start, final=at, end=end, type=final["type"], message=message, frames=tuple(frames))


def _ends_message(lines: Sequence[str], at: int) -> bool:
    line = lines[at]
    return line.endswith(_START) or _is_link(line) or line.startswith("terminate called") or not line


def _is_link(line: str) -> bool:
    return line.strip() in _LINKS
