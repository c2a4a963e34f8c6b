"""What ranks print about collectives that time out: their last such lines, which may stand long before the last of all.

NCCL's watchdog says what it waited for and then aborts the process, whose stacks come after it: they would push its words
out of the last lines that are kept. Not here: what the words mean (`diagnosis/collective_words.py`).
"""

from collections import deque

KEPT, LONGEST = 12, 400
_MARKS = (b"atchdog", b"ollective", b"imed out", b"imeout", b"edBarrier")
"""One of them is in every such line. Each is searched for in all that is printed: 0.4 ms a MiB."""
_COLLECTIVE = (
    b"collective",
    b" work",
    b"Timed out waiting",
    b"Timed out after",
    b"wait timeout after",
    b"monitoredBarrier",
    b"Barrier timed out",
    b"ncclUniqueId",
    b"Application timeout",
    b"watchdog",
)


_COMPLAINT = b" hit an exception: "


class Remarks:
    """Of all ranks of a job. `engine`: of one that is watched."""

    def __init__(self, nprocs: int, *, engine: bool = False) -> None:
        self._engine = engine
        self._complaints: list[bytes] = []
        self._kept: list[deque[bytes] | None] = [None] * nprocs

    def take(self, rank: int, part: bytes) -> None:
        """Lines that a rank has printed."""
        if self._engine and _COMPLAINT in part and len(self._complaints) < KEPT:
            told = [line[:LONGEST] for line in part.split(b"\n") if _COMPLAINT in line]
            self._complaints += told[: KEPT - len(self._complaints)]
        if not any(mark in part for mark in _MARKS):
            return
        for line in part.split(b"\n"):
            if any(mark in line for mark in _MARKS) and any(word in line for word in _COLLECTIVE):
                kept = self._kept[rank]
                if kept is None:
                    kept = self._kept[rank] = deque(maxlen=KEPT)
                if line[:LONGEST] not in kept:
                    kept.append(line[:LONGEST])

    def of(self, rank: int) -> tuple[str, ...]:
        """The first complaints, then the last of the others, oldest first."""
        lines = (*self._complaints, *(self._kept[rank] or ()))
        return tuple(line.decode(errors="replace").rstrip("\r") for line in lines)
