"""The GPUs as their driver tells of them, asked by a short-lived program of ours (`gpu_program.py`).

A process of its own, since the driver's library starts threads, opens devices and may not answer for long when a GPU is
gone: nothing of that may happen in a process that forks ranks or has deadlines to keep. It is ended after `BOUND_S`, and
ignores SIGTERM, which the job's tree is given while it works. Read next: `helper.py`, `../supervisor/survey.py`.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from selectors import BaseSelector
from typing import Any

from rankguard.circumstances import GpuHolder, GpuState
from rankguard.linux import tree
from rankguard.linux.files import read_text
from rankguard.linux.helper import Helper

BOUND_S = 4.0
_PROGRAM = os.path.join(os.path.dirname(__file__), "gpu_program.py")
_PASSED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "HOME", "VIRTUAL_ENV")
Done = Callable[[tuple[GpuState, ...], str, str | None], None]
"""Gets the GPUs, who told, and why nothing is known."""


class GpuReader:
    """Asks once at a time; `done` is called from the selector's news or from `wake`, never from `ask`."""

    def __init__(self, selector: BaseSelector, priority: int, done: Done) -> None:
        self._selector, self._priority, self._done = selector, priority, done
        self._helper: Helper | None = None
        self._until = 0.0
        self._ranks: Mapping[int, int] = {}

    @property
    def busy(self) -> bool:
        return self._helper is not None

    def ask(self, now: float, ranks: Mapping[int, int], environ: Mapping[str, str]) -> None:
        """Start. `ranks` are pids → numbers. Raises `OSError` when no program can be started."""
        if self.busy:
            return
        if not os.path.basename(sys.executable or "").startswith("python"):
            raise OSError("this Python's executable is not known")
        env = {name: environ[name] for name in _PASSED if name in environ}
        argv = (sys.executable, "-P", _PROGRAM)  # -P: no module is taken from beside the program
        self._helper = Helper(
            self._selector, self._priority, argv, env, lambda _now: self._finish(None), ignore=(signal.SIGTERM,)
        )
        self._until, self._ranks = now + BOUND_S, dict(ranks)

    def next_wake(self) -> float | None:
        return self._until if self.busy else None

    def wake(self, now: float) -> None:
        """End what takes too long."""
        if self.busy and now >= self._until:
            self._finish(f"the driver did not answer within {BOUND_S:g} s")

    def close(self) -> None:
        """The job's tree is about to be killed: say what is known."""
        if self.busy:
            self._finish("the job was ended before the driver answered")

    def _finish(self, why_not: str | None) -> None:
        assert self._helper is not None
        said = self._helper.close().out
        self._helper = None
        if why_not is not None:
            self._done((), "", why_not)
            return
        try:
            told = json.loads(said)
            gpus = tuple(_state(gpu, self._ranks) for gpu in told["gpus"])
            self._done(gpus, told["source"], told.get("why_not"))
        except (ValueError, TypeError, KeyError):
            self._done((), "", "the program that asks the driver said nothing")


def _state(gpu: Mapping[str, Any], ranks: Mapping[int, int]) -> GpuState:
    holders = tuple(_holder(each, ranks) for each in gpu["holders"])
    plain = {name: gpu.get(name) for name in ("uuid", "pci", "total", "used", "ecc")}
    return GpuState(index=int(gpu["index"]), lost=bool(gpu["lost"]), holders=holders, **plain)


def _holder(each: Mapping[str, Any], ranks: Mapping[int, int]) -> GpuHolder:
    """Its name where the driver's pid is one of ours: in a container it may be another namespace's."""
    pid = int(each["pid"])
    above = pid if pid in ranks else tree.nearest(pid, ranks)
    name = (read_text(f"/proc/{pid}/comm") or "").strip() or None
    return GpuHolder(pid, each.get("bytes"), name, None if above is None else ranks[above])
