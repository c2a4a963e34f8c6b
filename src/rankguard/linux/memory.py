"""The memory limit that the job runs under: whose it is, how full it is.

Not a proof of an OOM kill (`cgroup.py`, `kmsg.py`): these numbers say how near it was and what to change.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
Read next: `cgroup.py`, which finds our own groups.
"""

import os
from collections.abc import Iterator
from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit

from rankguard.linux.files import read_text
from rankguard.linux.hierarchies import Group, counter, own_groups
from rankguard.model import MemoryState
from rankguard.record import Record

HOST = "MemTotal of this machine"
ADDRESS_SPACE = "RLIMIT_AS"


class Limit(Record):
    """One limit: `source` names its file or what it is, `group` the directory whose usage counts against it."""

    bytes: int
    source: str
    group: str | None = None


class MemoryDomain:
    """The limits found once, so that the state can be read at the moment of a failure."""

    limits: tuple[Limit, ...]
    """All that apply, the smallest first; the machine's own memory is always among them."""

    def __init__(self, groups: dict[str, Group] | None = None) -> None:
        total = meminfo().get("MemTotal")
        soft, _ = getrlimit(RLIMIT_AS)
        found = list(_group_limits(own_groups() if groups is None else groups))
        # No limit is PAGE_COUNTER_MAX pages in v1 and "max" in v2; one above the machine's memory binds nothing either.
        found = [limit for limit in found if total is None or limit.bytes < total]
        found += [Limit(bytes=soft, source=ADDRESS_SPACE)] if soft != RLIM_INFINITY else []
        found += [Limit(bytes=total, source=HOST)] if total else []
        self.limits = tuple(sorted(found, key=lambda limit: limit.bytes))

    def state(self, ranks_bytes: int | None = None) -> MemoryState:
        """The smallest limit and the usage that counts against it.

        `cache_bytes` is the part of a group's usage that the kernel gives back first (inactive file pages; the kubelet
        leaves it out as well). RLIMIT_AS binds each process for itself, so there is no usage to go with it.
        """
        if not self.limits:
            return MemoryState(ranks_bytes=ranks_bytes)
        limit = self.limits[0]
        used = cache = peak = None
        if limit.group and limit.source.startswith("memory.max"):
            used, peak = _number(f"{limit.group}/memory.current"), _number(f"{limit.group}/memory.peak")
            cache = counter(f"{limit.group}/memory.stat", "inactive_file")
        elif limit.group:
            used = _number(f"{limit.group}/memory.usage_in_bytes")
            peak = _number(f"{limit.group}/memory.max_usage_in_bytes")
            cache = counter(f"{limit.group}/memory.stat", "total_inactive_file")
        elif limit.source == HOST:
            available = meminfo().get("MemAvailable")
            used = limit.bytes - available if available is not None else None
        return MemoryState(
            limit_bytes=limit.bytes,
            used_bytes=used,
            limit_from=limit.source,
            cache_bytes=cache,
            ranks_bytes=ranks_bytes,
            peak_bytes=peak,
        )


def meminfo() -> dict[str, int]:
    """`MemTotal` and `MemAvailable` of the machine, in bytes."""
    found = {}
    for line in (read_text("/proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            found[name] = int(value.split()[0]) * 1024
    return found


def _group_limits(groups: dict[str, Group]) -> Iterator[Limit]:
    for key, file in (("memory", "memory.limit_in_bytes"), ("v2", "memory.max")):
        for path in groups[key].upwards() if key in groups else ():
            value = _number(f"{path}/{file}")
            if value is not None:
                yield Limit(bytes=value, source=f"{file} of {path}", group=path)
            parent = os.path.dirname(path)
            if key == "memory" and (read_text(f"{parent}/memory.use_hierarchy") or "1").strip() == "0":
                break  # before 5.11: the groups above do not bind ours


def _number(path: str) -> int | None:
    text = (read_text(path) or "").strip()
    return int(text) if text.isdecimal() else None
