"""The nouns of collectives: what a rank's own records say of where it stood in them. Frozen values, no behaviour.

Read next: `linux/flightrecorder.py` (reads PyTorch's), `diagnosis/collectives.py` (compares those of all ranks).
"""

from rankguard.record import Record


class Entry(Record):
    """One collective of a process group, as its flight recorder has it. `where`: the program's line, `train.py:40 step`."""

    seq: int
    op: str
    state: str | None = None
    """`scheduled`, `started`, `completed`."""
    where: str | None = None


class Recorded(Record):
    """What one rank's flight recorder tells of one process group. Numbers are the group's own count of collectives.

    `entries`: the last ones, oldest first; those between two ranks (send, receive) are not among them.
    """

    rank: int
    group: str
    enqueued: int | None = None
    completed: int | None = None
    entries: tuple[Entry, ...] = ()


class Remark(Record):
    """What a rank has printed about collectives: its last such lines."""

    rank: int
    lines: tuple[str, ...]
