"""Who it was that answered: when an engine has become ready by an answer on a port of this machine, whose port is it?

An engine of yesterday that still listens there answers as well, while today's cannot bind the port. Looked for once, in
slices, after the fact: it may be a proxy in front of the engine, so it is told and decides nothing. Not known (another
user's process, another container's) is not told. Read next: `readiness.py`, `../linux/portuse.py` (the search).
"""

import time
from collections.abc import Callable, Iterator, Mapping

from rankguard.circumstances import PortUse
from rankguard.linux.portuse import search
from rankguard.linux.target import Target

_SLICE_S = 0.002


class ReadyPort:
    """`tree` gives the pids of the engine; `warn` takes a sentence."""

    def __init__(
        self, targets: list[Target], tree: Callable[[], Mapping[int, int]], warn: Callable[[str], None]
    ) -> None:
        self._targets = [each for each in targets if each.is_loopback]
        self._tree, self._warn = tree, warn
        self._search: Iterator[None] | None = None
        self._told: list[PortUse] = []

    @property
    def going(self) -> bool:
        """There is more to do."""
        return bool(self._targets)

    def wake(self) -> None:
        """Look on, for a moment."""
        until = time.monotonic() + _SLICE_S
        while self._targets and time.monotonic() < until:
            if self._search is None:
                self._told = []
                self._search = search(self._targets[0].port, self._tree(), self._told)
            if next(self._search, self._told) is self._told:
                self._tell(self._targets.pop(0))
                self._search = None

    def _tell(self, target: Target) -> None:
        for use in self._told:
            if use.state == "listening" and use.pid is not None and use.rank is None:
                who = f"{use.name} (pid {use.pid})" if use.name else f"pid {use.pid}"
                self._warn(f"{target.name} is served by {who}, which is no process of this engine")
