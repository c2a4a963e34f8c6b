"""Where PyTorch's flight recorder has left its files, and what they tell: read by a program of its own, in the supervisor.

Nobody waits for it, and it is killed when its time is over. Read next: `../linux/flightrecorder.py` (the program),
`../linux/helper.py` (how it runs), `muster.py` (who asks).
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from selectors import BaseSelector

from rankguard.collective import Entry, Recorded
from rankguard.jobspec import JobSpec
from rankguard.linux import flightrecorder
from rankguard.linux.helper import Helper

PRIORITY = 4
_SLACK_S = 1.0
"""Clocks of file systems are coarse."""


def files(spec: JobSpec, rank: int) -> Iterator[str]:
    """Where the record of a rank may be: torch's `DebugInfoWriter`, of 2.8 and of before."""
    env = {**spec.env, **(spec.rank_env[rank] if spec.rank_env else {})}
    for name in ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"):
        if env.get(name):
            yield os.path.join(spec.cwd, f"{env[name]}{rank}")
    home = env.get("HOME") or "/tmp"  # noqa: S108  # torch's own fallback
    for cache in dict.fromkeys((env.get("XDG_CACHE_HOME") or f"{home}/.cache", f"{home}/.cache")):
        yield f"{cache}/torch/comm_lib_trace_rank_{rank}"
    yield f"/tmp/nccl_trace_rank_{rank}"  # noqa: S108  # torch's default until 2.6


class Records:
    """Of one job. `read` starts one program at a time; `done` when that has ended or could not be started."""

    def __init__(self, spec: JobSpec, selector: BaseSelector, since: float) -> None:
        self._spec, self._selector, self._since = spec, selector, since - _SLACK_S
        self._helper: Helper | None = None
        self._done: Callable[[], None] = lambda: None
        self._known: dict[str, tuple[int, int, int]] = {}  # path → what the file was when it was last read
        self._reading: dict[str, tuple[int, int, int]] = {}
        self.found: tuple[Recorded, ...] = ()

    def read(self, ranks: Iterable[int], done: Callable[[], None]) -> None:
        """Start. Where there is no file that has not been read as it is now, nothing is started."""
        self._done, self._reading, wanted = done, {}, []
        for rank in ranks:
            for path in files(self._spec, rank):
                state = _state(path)
                if state is not None and self._known.get(path) != state:
                    self._reading[path] = state
                    wanted.append(f"{rank}={path}")
        if not wanted or not sys.executable:
            done()
            return
        argv = (sys.executable, "-I", "-S", flightrecorder.__file__, str(self._since), *wanted)
        env = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
        try:
            self._helper = Helper(self._selector, PRIORITY, argv, env, self._on_end)
        except OSError:
            done()

    @property
    def at_work(self) -> bool:
        """False also when it was ended before its time, as with what ranks leave behind; then `done` is not called."""
        return self._helper is not None

    def close(self) -> None:
        """Its time is over. What it has told by now counts."""
        if self._helper is not None:
            told = tuple(_told(self._helper.close().out))
            self._helper = None
            anew = {each.rank for each in told}
            self.found = (*(each for each in self.found if each.rank not in anew), *told)

    def _on_end(self, _now: float) -> None:
        self._known |= self._reading
        self.close()
        self._done()


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _told(output: bytes) -> Iterator[Recorded]:
    """The first file of each rank that tells of a group."""
    known = set()
    for line in output.splitlines():
        try:
            told = json.loads(line)
            for group, enqueued, completed, entries in told["groups"]:
                if (told["rank"], group) not in known:
                    known.add((told["rank"], group))
                    made = tuple(Entry(seq, op, state, where) for seq, op, state, where in entries)
                    yield Recorded(told["rank"], group, enqueued, completed, made)
        except (ValueError, TypeError, KeyError):
            continue
