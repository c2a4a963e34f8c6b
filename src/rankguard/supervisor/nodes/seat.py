"""The coordinator of a watch over several nodes, as node 0's supervisor has it: a child, started again when it is lost.

So the engine of node 0 is watched as on any other node, and nothing that happens to the coordinator happens to it.
Read next: `council.py` (what it does), `../../launchers/placer.py` (the child), `watchlink.py` (who owns this).
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from selectors import BaseSelector
from typing import Any

from rankguard.errors import SpawnFailed
from rankguard.jobspec import JobSpec
from rankguard.launchers.placer import Placer
from rankguard.record import to_data

COMMAND = (sys.executable, "-P", "-m", "rankguard.supervisor.nodes.council")
"""-P: a `random.py` in the current folder is not Python's."""
_PAUSE, _LONGEST = 0.2, 10.0
"""Seconds before it is started again, twice as long each time."""


class Seat:
    """Of one run. `tell` takes what is to be said on this node: (`joining` or `note`, text)."""

    def __init__(
        self, spec: JobSpec, selector: BaseSelector, clock: Callable[[], float], tell: Callable[[str, str], None]
    ) -> None:
        assert spec.share is not None
        self._spec, self._selector, self._clock, self._tell = spec, selector, clock, tell
        plan = spec.share.coordinator
        assert plan is not None  # else nobody makes one
        told = JobSpec(
            run_id=spec.run_id, command=spec.command, argv=(), nprocs=plan.count, env={}, cwd="/", role=spec.role,
            grace=spec.grace, shutdown_timeout=spec.shutdown_timeout, labels=spec.labels, on_lost=spec.on_lost,
            exit_codes=spec.exit_codes, nodes=plan,
        )  # fmt: skip
        self._asked = json.dumps(to_data(told)).encode() + b"\n"
        self._child: Placer | None = None
        self._pause, self._again_at = _PAUSE, None if self._start() else clock() + _PAUSE

    @property
    def pids(self) -> frozenset[int]:
        return frozenset() if self._child is None else frozenset({self._child.pid})

    def _start(self) -> bool:
        try:
            self._child = Placer(COMMAND, self._spec, self._asked, self._selector, self._on_said)
        except SpawnFailed as error:
            self._tell("note", f"the other nodes cannot be met: {error.statement}")
            return False
        return True

    def _on_said(self, said: dict[str, Any] | None, now: float) -> None:
        """A line of it, or null: it has ended, and we still need it."""
        if said is not None:
            self._tell("note" if "failed" in said else "joining", str(said.get("failed") or said.get("told") or ""))
            return
        words = self._drop()
        self._tell("joining", f"the coordinator has ended{f' ({words})' if words else ''}; it is started again")
        self._again_at = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST)

    def _drop(self) -> str:
        child, self._child = self._child, None
        if child is None:
            return ""
        words = child.last_words()
        with contextlib.suppress(OSError):
            child.close()
        return words

    def next_wake(self) -> float | None:
        return self._again_at

    def wake(self, now: float) -> None:
        if self._again_at is not None and now >= self._again_at:
            self._again_at = None if self._start() else now + self._pause

    def replace(self) -> None:
        """It does not answer: it is killed, and another one is started with the news of its end."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, signal.SIGKILL)

    def close(self) -> None:
        """It is needed no more."""
        self._again_at = None
        self._drop()
