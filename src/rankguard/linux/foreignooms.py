"""Counters of OOM kills for processes in groups of others: those of their own memory groups, where these can be seen.

The kernel counts before it sends the SIGKILL (`__oom_kill_process`). v1 counts in the victim's own group, cgroup2 in all
above it too. Where none can be seen (a container of its own, without the machine's cgroups), the machine's counter remains.
Read next: `hierarchies.py`, `cgroup.py` (groups of our own).
"""

import os

from rankguard.linux.files import read_text
from rankguard.linux.hierarchies import counter, groups_of
from rankguard.model import OomCount

_VMSTAT = "/proc/vmstat"


class ForeignOoms:
    """Of the processes of one tree."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._groups: set[str] = set()

    def add(self, pid: int) -> None:
        """From now on a kill in this one's group counts."""
        text = read_text(f"/proc/{pid}/cgroup") or ""
        if text in self._groups:
            return
        self._groups.add(text)
        path = _counter_of(pid)
        if path is not None and path not in self._before and (count := counter(path)) is not None:
            self._before[path] = count

    def counts(self) -> tuple[tuple[OomCount, ...], bool]:
        """Those that rose since, and whether one that would show a kill could be read. Each is shared by all in it."""
        rose, readable = [], False
        for path, before in self._before.items():
            now = counter(path)
            readable = readable or now is not None
            if now is not None and now > before:
                shown = f"{path} oom_kill" if path == _VMSTAT else path
                rose.append(OomCount(path=shown, before=before, after=now, shared=True))
        return tuple(rose), readable


def _counter_of(pid: int) -> str:
    groups = groups_of(pid)
    if "memory" in groups:
        return f"{groups['memory'].path}/memory.oom_control"
    above = groups["v2"].upwards() if "v2" in groups else ()
    found = next((f"{path}/memory.events" for path in above if os.path.exists(f"{path}/memory.events")), None)
    return found or _VMSTAT
