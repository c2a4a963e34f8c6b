"""The supervisor's end of the live view: the screen that it stands on, and what is told of the ranks for it.

The front asks for a glimpse a few times a second and sends back the lines to show (`cli/view.py`). A glimpse is made in one
walk over the ranks and a handful of reads, however many ranks there are: of many ranks only those are told that hold
everybody up. It is no fact and not in the journal: nothing is decided by it. When the front is gone or the job is being
stopped, the view goes, whatever the front says.
Read next: `report/screen.py` (ranks' lines above, a frame below), `cli/frame.py` (what it looks like).
"""

import fcntl
import os
import stat
import struct
from collections.abc import Callable
from typing import Any

from rankguard.core.job import Job, RankState
from rankguard.facts import Fact, StatusTold
from rankguard.linux.console import Console
from rankguard.linux.console import missing as text_missing
from rankguard.linux.memory import MemoryDomain
from rankguard.model import JobSpec, Phase
from rankguard.orders import Order, Tell
from rankguard.report.jsonlines import missing as json_missing
from rankguard.report.output import Output, Sink
from rankguard.report.screen import Screen
from rankguard.wire import Message

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TEXT = 200
"""Characters of a status: more than any line shows."""


_TIOCGDEV = 0x80045432
"""The terminal's own device number, also of one that was opened as `/dev/tty` (asm-generic/ioctls.h)."""


def consoles(spec: JobSpec, out: int, err: int) -> tuple[Console | None, Console | None]:
    """Where stdout and stderr lines go. One terminal or pipe is one console: two queues to it would mix what they hold."""
    if spec.console == "none":
        return None, None
    missing = json_missing if spec.log_format == "json" else text_missing
    error = Console(err, missing)
    return (error, error) if spec.console == "stderr" or _same(out, err) else (Console(out, missing), error)


def losses(both: tuple[Console | None, Console | None]) -> list[str]:
    """What could not be shown, for people: lines, bytes, where and why."""
    out, error = both
    names = [(out, "stdout"), (error, "stderr")] if out is not error else [(out, "stdout and stderr")]
    return [said for console, name in names if console is not None for said in console.losses(name)]


def _same(out: int, err: int) -> bool:
    terminal = _terminal(out)
    if terminal is not None:
        return terminal == _terminal(err)
    one, other = os.fstat(out), os.fstat(err)
    through = stat.S_ISFIFO(one.st_mode) or stat.S_ISSOCK(one.st_mode)
    return through and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


class OnScreen:
    """The terminal that stderr is, if it is one. `sinks` are what the ranks' lines go to, in place of the consoles."""

    def __init__(self, spec: JobSpec, both: tuple[Console | None, Console | None], err: int) -> None:
        self._screen: Screen | None = None
        self._reads = spec.stdin_rank
        self._glimpses: Glimpses | None = None
        self._output: Output | None = None
        self.sinks: tuple[Sink | None, Sink | None] = both
        out, error = both
        if error is not None and _terminal(err) is not None:
            self._screen = Screen(error, self._prompting)
            self.sinks = (self._screen if out is error else out), self._screen

    def answer(self, glimpses: "Glimpses", output: Output) -> dict[str, Callable[[Message, float], Message | None]]:
        """What the front may ask of it."""
        self._glimpses, self._output = glimpses, output
        return {"glimpse": glimpses.ask, "frame": self._frame, "say": self._say}

    def _prompting(self) -> bool:
        """The rank that reads stdin has begun a line: a question, perhaps."""
        return self._reads is not None and self._output is not None and self._output.open_rank() == self._reads

    def _frame(self, ask: Message, _now: float) -> Message | None:
        """`lines`, none wider than `width` cells. An empty frame is answered once it is gone."""
        if self._screen is not None:
            self._screen.show(ask["lines"], ask["width"])
        return None if ask["lines"] else {"is": "cleared"}

    def _say(self, ask: Message, _now: float) -> Message:
        """A line of the front, above everything that is open."""
        if self._screen is not None:
            self._screen.say(ask["text"])
        return {"is": "said", "number": ask["number"]}

    def listen(self, told: Fact | Order) -> None:
        """Of every fact and order: those that end a view, and the first status that one may wait for."""
        if isinstance(told, StatusTold) and self._glimpses is not None:
            self._glimpses.spoken()
        elif isinstance(told, Tell) and told.what in ("judged", "stopping"):  # also when the front is gone
            self.close()

    def idle(self, now: float) -> float | None:
        """Draw again what gave way; when it wants to be called next."""
        due = self._screen.due_at() if self._screen is not None else None
        if due is None or due > now or self._screen is None:
            return due
        self._screen.redraw()
        return self._screen.due_at()

    def close(self) -> None:
        """No view from here on."""
        if self._screen is not None:
            self._screen.close()


class Glimpses:
    """Of one job. `tell` reaches the front; `heard_at(rank)` is when a rank last said or printed anything."""

    def __init__(
        self, job: Job, memory: MemoryDomain, heard_at: Callable[[int], float | None], tell: Callable[[Message], None]
    ) -> None:
        self._job, self._memory, self._heard_at, self._tell = job, memory, heard_at, tell
        self._wanted = False

    def ask(self, ask: Message, now: float) -> Message | None:
        """`{"do": "glimpse", "rows": most ranks to be told}`; with `"when": "spoken"` the front is told once a rank speaks."""
        if ask.get("when") == "spoken":
            self._wanted = True
            return None
        job = self._job
        counts: dict[str, int] = {}
        held_up: list[tuple[bool, float, int]] = []
        heard = told = None
        for rank in job.ranks:
            phase = _shown(job.phase(rank))
            counts[phase] = counts.get(phase, 0) + 1
            at = self._heard_at(rank.rank)
            if at is not None and (heard is None or at > heard):
                heard = at
            said = rank.status
            if said is not None and (told is None or said.at > told):
                told = said.at
            if rank.ready_at is None and rank.exited is None and rank.not_spawned is None:
                held_up.append(_holds_up(rank, at, now))
        return {
            "is": "glimpse",
            "n": len(job.ranks),
            "elapsed": now - _began(job, now),
            "expects": job.expects_ready,
            "ready": job.ready,
            "counts": counts,
            "executing": job.spawned,
            "heard": None if heard is None else now - heard,
            "told": None if told is None else now - told,
            "rows": [self._row(job.ranks[number], now) for number in self._chosen(held_up, ask["rows"])],
            "memory": self._used(),
        }

    def spoken(self) -> None:
        """A rank told a status: the front may wait for that."""
        if self._wanted:
            self._wanted = False
            self._tell({"is": "spoken"})

    def _chosen(self, held_up: list[tuple[bool, float, int]], most: int) -> list[int]:
        """All ranks if there is room for all; else those that hold everybody up, in the order of their numbers."""
        everybody = len(self._job.ranks)
        if everybody <= most:
            return list(range(everybody))
        held_up.sort()
        return sorted(number for _, _, number in held_up[:most])

    def _row(self, rank: RankState, now: float) -> list[Any]:
        """Rank, phase, text, done, total, unit, seconds of silence, resident bytes, seconds until it was ready."""
        said = rank.status
        text = done = total = unit = None
        if said is not None:
            text = said.text[:_TEXT] if said.text is not None else None
            done, total, unit = said.done, said.total, said.unit
        heard = self._heard_at(rank.rank) or rank.spawned_at
        return [
            rank.rank,
            _shown(self._job.phase(rank)),
            text,
            done,
            total,
            unit,
            None if heard is None else now - heard,
            _resident(rank.pid) if rank.exited is None else None,
            None if rank.ready_at is None else rank.ready_at - _began(self._job, now),
        ]

    def _used(self) -> list[int | None]:
        """Used and limit of the job's memory, in bytes. What the kernel gives back first (file cache) is not counted."""
        state = self._memory.state()
        used = state.used_bytes
        if used is not None and state.cache_bytes is not None:
            used = max(0, used - state.cache_bytes)
        return [used, state.limit_bytes]


def _began(job: Job, now: float) -> float:
    return now if job.started_at is None else job.started_at


def _shown(phase: Phase) -> str:
    """As users know it: a rank that does not execute yet is starting, too."""
    return "starting" if phase is Phase.LAUNCHING else str(phase)


def _holds_up(rank: RankState, heard: float | None, now: float) -> tuple[bool, float, int]:
    """To sort by: long silence first, then the least done."""
    silent = now - (heard or rank.spawned_at or now)
    if silent >= 10.0:
        return False, -round(silent, -1), rank.rank
    said = rank.status
    done = said.done / said.total if said is not None and said.done is not None and said.total else 0.0
    return True, round(done, 1), rank.rank


def _resident(pid: int | None) -> int | None:
    """Resident bytes, from `/proc/PID/statm` (proc(5)): cheaper than `status`, and no less exact for one who watches."""
    if pid is None:
        return None
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            pages = int(file.read(128).split()[1])
    except (OSError, IndexError):
        return None
    return pages * _PAGE or None


def _terminal(fd: int) -> int | None:
    """Which terminal this is; None for anything else."""
    try:
        if not os.isatty(fd):
            return None
        return int(struct.unpack("I", fcntl.ioctl(fd, _TIOCGDEV, bytes(4)))[0])
    except OSError:  # before Linux 2.6.36, or in a sandbox's kernel: good enough unless it was opened as /dev/tty
        return os.fstat(fd).st_rdev
