"""The memory limits that the job runs under: whose they are, how full they are.

Not a proof of an OOM kill (`cgroup.py`, `kmsg.py`): these numbers say how near it was and what to change.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
Read next: `footprint.py` (what one rank holds), `memory_news.py` (the kernel's own word when it gets tight).
"""

import os
from collections.abc import Iterable, Iterator
from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit

from rankguard.linux.files import read_text
from rankguard.linux.hierarchies import Group, own_groups
from rankguard.model import MemoryState
from rankguard.record import Record

HOST = "MemTotal of this machine"
ADDRESS_SPACE = "RLIMIT_AS"
V1_LIMIT, V2_LIMIT = "memory.limit_in_bytes", "memory.max"


class Limit(Record):
    """One limit: `source` names its file or what it is, `group` the directory whose usage counts against it."""

    bytes: int
    source: str
    group: str | None = None

    @property
    def is_v2(self) -> bool:
        """Of a group of cgroup2."""
        return self.source.startswith(V2_LIMIT)


class MemoryDomain:
    """The limits found once, so that the state can be read at the moment of a failure."""

    limits: tuple[Limit, ...]
    """All that apply, the smallest first; the machine's own memory is always among them."""

    def __init__(self, groups: dict[str, Group] | None = None) -> None:
        self._find(own_groups() if groups is None else groups, getrlimit(RLIMIT_AS)[0])

    def move(self, groups: dict[str, Group]) -> None:
        """It is about processes in these groups from now on, which are not our own: our limits say nothing of them."""
        self._find(groups, RLIM_INFINITY)

    def _find(self, groups: dict[str, Group], soft: int) -> None:
        total = meminfo().get("MemTotal")
        found = list(_group_limits(groups))
        # No limit is PAGE_COUNTER_MAX pages in v1 and "max" in v2; one above the machine's memory binds nothing either.
        found = [limit for limit in found if total is None or limit.bytes < total]
        found += [Limit(bytes=soft, source=ADDRESS_SPACE)] if soft != RLIM_INFINITY else []
        found += [Limit(bytes=total, source=HOST)] if total else []
        self.limits = tuple(sorted(found, key=lambda limit: limit.bytes))

    def state(self, ranks_bytes: int | None = None) -> MemoryState:
        """The limit with the least room, be it ours or an ancestor's, and the usage that counts against it.

        RLIMIT_AS binds each process for itself, so there is no usage to go with it.
        """
        own = [limit for limit in self.limits if limit.source == ADDRESS_SPACE]
        alone = [MemoryState(limit_bytes=limit.bytes, limit_from=limit.source) for limit in own]
        found = min((*alone, *self.shared_states()), key=_room, default=MemoryState())
        return found.replace(ranks_bytes=ranks_bytes)

    def shared_states(self) -> tuple[MemoryState, ...]:
        """The state of every limit that all ranks share: of each group that has one, and of the machine."""
        host = meminfo()
        shared = (limit for limit in self.limits if limit.source != ADDRESS_SPACE)
        return tuple(_of_group(limit, host) if limit.group else _of_host(limit, host) for limit in shared)


def meminfo() -> dict[str, int]:
    """Memory and swap of the machine (`MemTotal`, `MemAvailable`, `Shmem`, `SwapTotal`, `SwapFree`), in bytes."""
    found = {}
    for line in (read_text("/proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name in ("MemTotal", "MemAvailable", "Shmem", "SwapTotal", "SwapFree"):
            found[name] = int(value.split()[0]) * 1024
    return found


def numbers(path: str, keys: Iterable[str]) -> dict[str, int]:
    """Some of the lines `key number` of a file; those that it lacks are left out."""
    wanted, found = frozenset(keys), {}
    for line in (read_text(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name in wanted and value.isdecimal():
            found[name] = int(value)
    return found


def kills_all_at_once(groups: dict[str, Group]) -> str | None:
    """The group around us, as high as we can see, in which one OOM kill ends every process (`memory.oom.group`)."""
    paths = groups["v2"].upwards() if "v2" in groups else ()
    marked = [path for path in paths if (read_text(f"{path}/memory.oom.group") or "").strip() == "1"]
    return marked[-1] if marked else None


def _room(state: MemoryState) -> int:
    """What is left until the limit, as far as it is known."""
    return (state.limit_bytes or 0) - (state.firm_bytes or 0)


def _of_group(limit: Limit, host: dict[str, int]) -> MemoryState:
    group, total = limit.group, "" if limit.is_v2 else "total_"  # v1: with all that is below
    keys = [f"{total}{key}" for key in ("inactive_file", "active_file", "shmem", "swap")]
    stat = numbers(f"{group}/memory.stat", keys)
    inactive, active, shared, swap = (stat.get(key) for key in keys)
    if limit.is_v2:
        used, peak = _number(f"{group}/memory.current"), _number(f"{group}/memory.peak")
        swap = _number(f"{group}/memory.swap.current")
        most = _number(f"{group}/memory.swap.max")
    else:
        used, peak = _number(f"{group}/memory.usage_in_bytes"), _number(f"{group}/memory.max_usage_in_bytes")
        both = _number(f"{group}/memory.memsw.limit_in_bytes")  # memory and swap together
        most = None if both is None else max(0, both - limit.bytes)
    machine = host.get("SwapTotal", 0)
    most = machine if most is None else min(most, machine)
    return MemoryState(
        limit_bytes=limit.bytes,
        used_bytes=used,
        limit_from=limit.source,
        cache_bytes=inactive,
        peak_bytes=peak,
        firm_bytes=None if used is None else max(0, used - (inactive or 0) - (active or 0)),
        shared_bytes=shared,
        swap_bytes=(swap or 0) if most else None,
        swap_limit_bytes=most or None,
    )


def _of_host(limit: Limit, host: dict[str, int]) -> MemoryState:
    available, swap = host.get("MemAvailable"), host.get("SwapTotal")
    used = None if available is None else limit.bytes - available
    return MemoryState(
        limit_bytes=limit.bytes,
        used_bytes=used,
        limit_from=limit.source,
        firm_bytes=used,
        shared_bytes=host.get("Shmem"),
        swap_bytes=swap - host.get("SwapFree", 0) if swap else None,
        swap_limit_bytes=swap or None,
    )


def _group_limits(groups: dict[str, Group]) -> Iterator[Limit]:
    for key, file in (("memory", V1_LIMIT), ("v2", V2_LIMIT)):
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
