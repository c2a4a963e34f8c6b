"""Words and small layout for everything that people read: ranks, sizes, durations, instants, endings, safe text.

It knows how things are said, not what is said (`text.py`), and hides no secrets (`redact.py`). Pure: it looks at
nothing but its arguments.

Read next: `text.py`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rankguard.diagnosis.words import ranges
from rankguard.model import Ending, Left, Phase, Progress, StoppedBy, Survivor

GIB, MIB = 1 << 30, 1 << 20
LINE_CHARS = 160
"""Longest line of a rank's own text that we repeat."""


# ── Safe text ────────────────────────────────────────────────────────────────────────────────────────────────────


def printable(text: str, limit: int = LINE_CHARS) -> str:
    """One line that no terminal obeys: control characters, escapes, direction marks and broken Unicode are spelt out."""
    head = text[: 4 * limit].expandtabs(4)  # a megabyte without a newline costs no more than a line
    if not head.isprintable():
        head = "".join(c if c.isprintable() else _spelt(c) for c in head)
    return cut(head, limit) if len(text) <= 4 * limit else cut(head + "…", limit)


def _spelt(char: str) -> str:
    code = ord(char)
    named = {"\n": r"\n", "\r": r"\r"}.get(char)
    return named or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def cut(text: str, limit: int) -> str:
    """At most `limit` characters; `…` says that something was cut off."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)].rstrip() + "…"


def cut_bytes(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= limit else data[: max(limit - 3, 0)].decode("utf-8", "ignore") + "…"


def cut_path(path: str, limit: int) -> str:
    """`…/job/memory.max`: of a long path the end says more, in whole components where they fit."""
    if len(path) <= limit:
        return path
    end = path[-(limit - 1) :]
    slash = end.find("/", 0, -1)
    return "…" + (end[slash:] if slash >= 0 else end)


def from_home(path: str, home: str | None) -> str:
    """`~/runs/7f3a`: shorter, and a shell takes it as it stands."""
    whole = (home or "").rstrip("/")
    return f"~{path[len(whole) :]}" if whole and path.startswith(f"{whole}/") else path


def word(text: str, limit: int = 40) -> str:
    """One word for `key=value` lines: ASCII, without blanks, quotes or `=`; `?` when nothing is left."""
    return re.sub(r"[^A-Za-z0-9._:/@+-]", "_", text)[:limit] or "?"


# ── Ranks and numbers ────────────────────────────────────────────────────────────────────────────────────────────


def who(rank: int | None, name: str | None) -> str:
    """`rank 5`; under `watch`, where there are no ranks, the process's name."""
    if rank is not None:
        return f"rank {rank}"
    return printable(name, 60) if name else "a process"


def many(members: Sequence[tuple[int | None, str | None]], shown: int = 6) -> str:
    """`rank 5`, `ranks 0-4, 6, 7`, or names, at most `shown` of them."""
    ranks = [rank for rank, _ in members if rank is not None]
    names = [who(None, name) for rank, name in members if rank is None]
    parts = [f"{'rank' if len(set(ranks)) == 1 else 'ranks'} {ranges(ranks)}"] if ranks else []
    return some(parts + names, shown)


def some(parts: Sequence[str], shown: int, joint: str = ", ") -> str:
    """The first `shown` parts, `and N more`."""
    rest = len(parts) - shown
    return joint.join(parts[:shown]) + (f"{joint.rstrip()} and {rest} more" if rest > 0 else "")


def plural(count: int, noun: str, several: str | None = None) -> str:
    """`1 rank`, `8 ranks`, `2 processes`."""
    return f"{count} {noun if count == 1 else several or noun + 's'}"


def seconds(value: float) -> str:
    """`0.8 ms`, `0.03 s`, `14.2 s`, `12 min 5 s`, `2 h 13 min`."""
    if value < 0.00995:
        return f"{max(value, 0.0) * 1000:.1f} ms"
    if value < 0.995:
        return f"{value:.2f} s"
    if value < 599.95:
        return f"{value:.1f} s"
    return whole_seconds(value)


def whole_seconds(value: float) -> str:
    """`62 s`, `12 min 5 s`, `2 h 13 min`: for lines that are told while one waits."""
    total = int(max(value, 0.0) + 0.5)
    if total < 600:
        return f"{total} s"
    hours, rest = divmod(total, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"


def number(value: float) -> str:
    """`3`, `2.5`: no needless `.0`."""
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


class Unit:
    """GiB, or MiB where the yardstick (the limit, else the largest value) is below one GiB."""

    def __init__(self, yardstick: int) -> None:
        self.name, self.bytes = ("GiB", GIB) if yardstick >= GIB else ("MiB", MIB)

    def of(self, size: int) -> str:
        """The number alone, with one decimal."""
        return f"{size / self.bytes:.1f}"


def size(value: int) -> str:
    """`1.2 GiB`, `640.0 MiB`, `512 bytes`."""
    if value < MIB // 10:
        return plural(value, "byte") if value < 1024 else f"{value / 1024:.1f} KiB"
    unit = Unit(value)
    return f"{unit.of(value)} {unit.name}"


def when(stamp: str | None) -> str | None:
    """`2026-11-22 08:14:03 UTC` of an ISO 8601 instant in UTC; any other text as it is."""
    if not stamp:
        return None
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)", stamp)
    return f"{found[1]} {found[2]} UTC" if found else printable(stamp, 40)


# ── Nouns of the model ───────────────────────────────────────────────────────────────────────────────────────────


def phase(value: Phase) -> str:
    """The word that users know: `launching` is told as `starting`."""
    return Phase.STARTING.value if value is Phase.LAUNCHING else value.value


def ending(value: Ending) -> str:
    """`SIGKILL`, `exit 1`, `still alive`."""
    if value.kind == "alive":
        return "still alive"
    if value.kind == "lost":
        return "lost with its node"
    if value.kind == "signal":
        name = (
            printable(value.signal, 20)
            if value.signal
            else "signal unknown"
            if value.number is None
            else f"signal {value.number}"
        )
        return name + (", core dumped" if value.core_dumped else "")
    return "exit status unknown" if value.code is None else f"exit {value.code}"


def ended(value: Ending) -> str:
    """`ended by SIGKILL`, `ended with exit 1`, `exit status unknown`, `still alive`."""
    known = value.kind == "signal" or (value.kind == "exit" and value.code is not None)
    return f"ended {'by' if value.kind == 'signal' else 'with'} {ending(value)}" if known else ending(value)


def progress(value: Progress) -> str:
    """`1200 of 5000 steps`."""
    of = f" of {number(value.total)}" if value.total is not None else ""
    return f"{number(value.done)}{of} {value.unit or ''}".rstrip()


def stopper(value: StoppedBy) -> str:
    """`by SIGTERM from pid 812, slurmstepd, uid 0`, as far as it is known."""
    sender = [f"pid {value.pid}"] if value.pid is not None else []
    sender += [value.comm] if value.comm else []
    sender += [f"uid {value.uid}"] if value.uid is not None else []
    parts = [f"by {value.signal}" if value.signal else "", f"from {', '.join(sender)}" if sender else ""]
    return " ".join(filter(None, parts))


def survivor(value: Survivor) -> str:
    state = "D, in a system call" if value.state == "D" else value.state
    return f"pid {value.pid} ({value.comm}) refused to end, state {state}"


def left(value: Left) -> str:
    kind = {"shm": "shared memory", "sysv-shm": "System V shared memory"}.get(value.kind, value.kind)
    held = f" ({size(value.bytes)})" if value.bytes is not None else ""
    return f"{kind} {cut_path(value.path, 70)}{held}{', removed' if value.removed else ''}"


def cleaned(removed: Sequence[Left]) -> str:
    """That an earlier life's shared memory was removed before the start, and how much it was."""
    total = size(sum(each.bytes or 0 for each in removed))
    named = some([cut_path(each.path, 60) for each in removed], 3)
    return f"removed before the start: shared memory that nobody used, {total} ({named})"


# ── A rank's own words ───────────────────────────────────────────────────────────────────────────────────────────


def last_frames(traceback: str, most: int) -> list[str]:
    """The end of a Python traceback: the innermost frames and the beginning of the message.

    Not simply the last lines: messages of many lines (CUDA's advice) would push the frames out.
    """
    lines = [line for line in traceback.splitlines() if line.strip() and not re.fullmatch(r"[\s~^]+", line)]
    last_file = max((n for n, line in enumerate(lines) if line.startswith('  File "')), default=None)
    if last_file is None:
        return lines[-most:] if most else []
    message = next((n for n in range(last_file + 1, len(lines)) if not lines[n].startswith(" ")), len(lines))
    told = lines[message : message + max(1, most // 3)]
    room = most - len(told)
    frames = lines[max(message - room, 0) : message] if room > 0 else []
    if frames and len(frames) < message and frames[0].startswith("    "):
        frames = frames[1:]  # a source line whose `File` line did not fit
    return frames + told


def top_of_stack(stacks: str, most: int) -> list[str]:
    """Where a rank hangs: the innermost frames, which are the last ones only where the text says so."""
    lines = [line for line in stacks.splitlines() if line.strip()]
    return lines[-most:] if "most recent call last" in stacks and most else lines[:most]


# ── Layout ───────────────────────────────────────────────────────────────────────────────────────────────────────

INDENT = 10
"""Two blanks, a label of six, two blanks."""
_UNIT = re.compile(r"(?<=\d) (?=(?:s|ms|min|h|%|bytes|[KMG]iB)\b)")


def row(label: str, text: str, width: int) -> list[str]:
    """A labelled cell, wrapped under itself. Words are never broken: a path has to survive copy and paste. Nor is a
    number parted from its unit.
    """
    whole = _UNIT.sub("\u00a0", text)  # textwrap breaks at ASCII blanks only
    from textwrap import wrap  # no start waits for it

    lines = wrap(whole, max(width, 40) - INDENT, break_long_words=False, break_on_hyphens=False) or [""]
    lines = [line.replace("\u00a0", " ") for line in lines]
    return [f"  {label:<6}  {lines[0]}", *(" " * INDENT + line for line in lines[1:])]


def quoted(lines: Iterable[str], limit: int = LINE_CHARS) -> list[str]:
    """A rank's own lines, marked as such so that none can pass for one of ours."""
    return [f"    | {printable(line.rstrip(), limit)}" for line in lines]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells, left-aligned under one another."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip() for cells in rows]


# ── Room: what gives way when a block is too long ────────────────────────────────────────────────────────────────

MAX_BYTES, MAX_LINES = 2048, 25


class Room(NamedTuple):
    """How much of each part may be shown."""

    tail: int
    """Lines of the rank's log."""
    trace: int
    """Lines of its traceback or stack."""
    proofs: int
    cell: int
    """Characters of a labelled cell."""
    table: int
    """Ranks in the memory table."""
    groups: int
    """Consequences, hints and leftovers."""


ROOMS = (
    Room(tail=10, trace=8, proofs=4, cell=480, table=10, groups=3),
    Room(tail=6, trace=8, proofs=4, cell=480, table=10, groups=3),
    Room(tail=4, trace=8, proofs=4, cell=480, table=10, groups=3),
    Room(tail=2, trace=8, proofs=4, cell=480, table=10, groups=3),
    Room(tail=1, trace=6, proofs=3, cell=320, table=8, groups=2),
    Room(tail=1, trace=4, proofs=3, cell=240, table=8, groups=2),
    Room(tail=1, trace=3, proofs=2, cell=160, table=0, groups=1),
    Room(tail=1, trace=2, proofs=1, cell=110, table=0, groups=1),
    Room(tail=0, trace=1, proofs=1, cell=70, table=0, groups=1),
)
"""From all to the least. The log goes first, then the rest of the cells; the cause and the last line never do."""


def fitted(rows: Callable[[Room], list[str]], end: list[str]) -> list[str]:
    """The rows in the largest room that fits, and the end. When none does (wide letters), rows give way from the end."""
    for room in ROOMS:
        lines = rows(room)
        if _fits(lines + end):
            return lines + end
    while len(lines) > 1 and not _fits(lines + end):
        lines.pop()
    return lines + end


def _fits(lines: Sequence[str]) -> bool:
    # One byte is kept for the newline that ends the block.
    return len(lines) <= MAX_LINES and sum(len(line.encode("utf-8", "replace")) + 1 for line in lines) <= MAX_BYTES


class Block:
    """The lines so far, and the room for the next."""

    def __init__(self, width: int, room: Room) -> None:
        self.width, self.room, self.lines = width, room, list[str]()

    def cell(self, label: str, text: str) -> None:
        """A labelled cell, cut to the room and wrapped; nothing for an empty text."""
        if text:
            self.lines += row(label, printable(text, self.room.cell), self.width)

    def cells(self, pairs: Iterable[tuple[str, str]]) -> None:
        for label, text in pairs:
            self.cell(label, text)
