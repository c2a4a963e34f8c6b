"""`--numa-binding`: which CPUs and which memory are near each rank, and how a forked child takes them on.

`plan` is pure: a topology, the CPUs that we may use and the ranks' NUMA nodes in, one `Binding` a rank out. It is made
once for a job. `bind` is called in the child before it executes; no helper program is needed.

Memory is *preferred* near the rank, not bound: a full node then costs speed, where a strict policy would have the
kernel kill the rank while other nodes are empty. A kernel that refuses (seccomp, as Docker's default profile does for
set_mempolicy(2)) leaves the rank unbound and running: a binding makes it faster, never possible.

Sources: set_mempolicy(2), sched_setaffinity(2), Documentation/admin-guide/cputopology.rst, the kernel's ABI file
sysfs-devices-node; meanings of the four modes: torch 2.13 `numa/binding.py`. Read next: `devices.py`, `spawn.py`.
"""

import ctypes
import os
import platform
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from rankguard.linux.devices import numa_node, visible_gpus
from rankguard.linux.files import read_text
from rankguard.record import Record

MPOL_DEFAULT, MPOL_PREFERRED, MPOL_PREFERRED_MANY = 0, 1, 5
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237, "riscv64": 237, "ppc64le": 261, "s390x": 270}
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_NODES = 1024
"""Bits of a node mask: the kernel's own limit (MAX_NUMNODES)."""


class Cpu(Record):
    """Where one logical CPU is: `core` and `cache` are the lowest CPUs that share its core and its last-level cache."""

    number: int
    node: int
    package: int
    core: int
    cache: int


class Topology(Record):
    """The machine's online CPUs, and its NUMA nodes, those without CPUs too."""

    cpus: tuple[Cpu, ...]
    nodes: tuple[int, ...]


class Binding(Record):
    """What one rank is bound to: its CPUs, and the nodes that its memory is preferred on, if any."""

    cpus: tuple[int, ...]
    nodes: tuple[int, ...]


class Impossible(ValueError):
    """A binding that cannot be made as it was asked for."""


class Bound(Record):
    """The bindings of a job's ranks. `no_memory`: why the kernel does not let us choose memory; then only CPUs are."""

    ranks: tuple[Binding, ...]
    no_memory: str | None = None


def bindings(mode: str, nprocs: int, env: Mapping[str, str], root: str = "") -> Bound:
    """One for each rank of a job that starts from here with this environment. Raises `Impossible`."""
    topology = read_topology(root)
    gpus = [numa_node(gpu.pci, root) for gpu in visible_gpus(env, root)]
    made = plan(mode, rank_nodes(nprocs, topology, gpus), topology, os.sched_getaffinity(0))
    refused = memory_refused(made[0].nodes)
    if refused is None:
        return Bound(made)
    return Bound(tuple(binding.replace(nodes=()) for binding in made), refused.strerror)


def rank_nodes(nprocs: int, topology: Topology, gpu_nodes: Sequence[int]) -> tuple[int, ...]:
    """The node of each rank: of its GPU (ranks beyond the last begin again with the first), or in equal blocks."""
    if gpu_nodes:
        return tuple(gpu_nodes[rank % len(gpu_nodes)] for rank in range(nprocs))
    nodes = sorted({cpu.node for cpu in topology.cpus})
    return tuple(nodes[rank * len(nodes) // nprocs] if nodes else 0 for rank in range(nprocs))


def plan(mode: str, nodes: Sequence[int], topology: Topology, allowed: Collection[int]) -> tuple[Binding, ...]:
    """A binding for each rank, whose node is `nodes[rank]`. Only CPUs in `allowed`. Raises `Impossible`."""
    usable = [cpu for cpu in topology.cpus if cpu.number in allowed]
    members = {node: [rank for rank, its in enumerate(nodes) if its == node] for node in set(nodes)}
    made: list[Binding] = []
    for rank, node in enumerate(nodes):
        near = [cpu for cpu in usable if cpu.node == node]
        if not near:
            raise Impossible(f"rank {rank} belongs to NUMA node {node}, of whose CPUs none may be used")
        memory: tuple[int, ...] = (node,)
        place, count = members[node].index(rank), len(members[node])
        if mode == "socket":
            package = near[0].package
            near = [cpu for cpu in usable if cpu.package == package]
            memory = tuple(sorted({cpu.node for cpu in near}))
        elif mode == "exclusive":
            near = _share(near, place, count, node)
        elif mode == "core-complex":
            caches = _grouped(near, lambda cpu: cpu.cache)
            largest = sorted(caches, key=lambda cache: (-len(caches[cache]), cache))
            near = caches[largest[place % len(largest)]]
        made.append(Binding(tuple(sorted(cpu.number for cpu in near)), memory))
    return tuple(made)


def _share(near: list[Cpu], place: int, count: int, node: int) -> list[Cpu]:
    """Whole cores, as many for each; the first ranks get those that are left over."""
    cores = _grouped(near, lambda cpu: cpu.core)
    if len(cores) < count:
        raise Impossible(f"{count} ranks cannot have cores of their own on NUMA node {node}: {len(cores)} may be used")
    each, more = divmod(len(cores), count)
    first = place * each + min(place, more)
    mine = sorted(cores)[first : first + each + (place < more)]
    return [cpu for core in mine for cpu in cores[core]]


def _grouped(cpus: Iterable[Cpu], key: Callable[[Cpu], int]) -> dict[int, list[Cpu]]:
    groups: dict[int, list[Cpu]] = {}
    for cpu in cpus:
        groups.setdefault(key(cpu), []).append(cpu)
    return groups


# ── What the machine is ──────────────────────────────────────────────────────────────────────────────────────────


def read_topology(root: str = "") -> Topology:
    """From sysfs. Offline CPUs are left out; a kernel without NUMA has one node, 0, with all CPUs."""
    system = f"{root}/sys/devices/system"
    online = ranges(read_text(f"{system}/cpu/online") or "") or sorted(os.sched_getaffinity(0))
    nodes = ranges(read_text(f"{system}/node/online") or "0")
    node_of = {cpu: node for node in nodes for cpu in ranges(read_text(f"{system}/node/node{node}/cpulist") or "")}
    cpus = []
    for number in online:
        here = f"{system}/cpu/cpu{number}"
        package = (read_text(f"{here}/topology/physical_package_id") or "").strip()
        cpus.append(
            Cpu(
                number=number,
                node=node_of.get(number, nodes[0]),
                package=int(package) if package.isdecimal() else 0,
                core=_lowest(read_text(f"{here}/topology/thread_siblings_list"), number),
                cache=_last_cache(here, number),
            )
        )
    return Topology(tuple(cpus), tuple(nodes))


def ranges(text: str) -> list[int]:
    """`0-2,4` → 0, 1, 2, 4: lists of CPUs and nodes in sysfs."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _dash, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def in_ranges(numbers: Iterable[int]) -> str:
    """The opposite of `ranges`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _lowest(text: str | None, number: int) -> int:
    return min(ranges(text or ""), default=number)


def _last_cache(cpu: str, number: int) -> int:
    """The lowest CPU that shares the cache of the highest level; the CPU itself where the kernel shows none."""
    best, lowest = -1, number
    try:
        names = os.listdir(f"{cpu}/cache")
    except OSError:
        return number
    for name in names:
        kind = (read_text(f"{cpu}/cache/{name}/type") or "").strip()
        level = (read_text(f"{cpu}/cache/{name}/level") or "").strip()
        if kind in ("Unified", "Data") and level.isdecimal() and int(level) > best:
            best, lowest = int(level), _lowest(read_text(f"{cpu}/cache/{name}/shared_cpu_list"), number)
    return lowest


# ── In the child ─────────────────────────────────────────────────────────────────────────────────────────────────


def bind(binding: Binding) -> str | None:
    """Bind this process, which has one thread, to its CPUs and memory; what was refused, or null."""
    refused = []
    try:
        os.sched_setaffinity(0, binding.cpus)
    except OSError as error:
        refused.append(f"CPUs {in_ranges(binding.cpus)}: {error.strerror}")
    no_memory = prefer_memory(binding.nodes) if binding.nodes else None
    if no_memory is not None:
        refused.append(f"memory of NUMA node {in_ranges(binding.nodes)}: {no_memory.strerror}")
    return "; ".join(refused) or None


def prefer_memory(nodes: Sequence[int]) -> OSError | None:
    """The memory policy of this thread, which execve(2) keeps; of no nodes: the default. Several nodes need Linux 5.15;
    before, the first is preferred.
    """
    if not nodes:
        return _set_mempolicy(MPOL_DEFAULT, ())
    if len(nodes) > 1 and _set_mempolicy(MPOL_PREFERRED_MANY, nodes) is None:
        return None
    return _set_mempolicy(MPOL_PREFERRED, nodes[:1])


def memory_refused(nodes: Sequence[int]) -> OSError | None:
    """Whether the kernel lets this process choose its memory: tried, and taken back."""
    error = prefer_memory(nodes)
    prefer_memory(())
    return error


def _set_mempolicy(mode: int, nodes: Sequence[int]) -> OSError | None:
    number = _SET_MEMPOLICY.get(platform.machine())
    if number is None:
        return OSError(38, f"not known on {platform.machine()}")
    bits = ctypes.sizeof(ctypes.c_ulong) * 8
    mask = (ctypes.c_ulong * (_NODES // bits))()
    for node in nodes:
        mask[node // bits] |= 1 << node % bits
    pointer = ctypes.byref(mask) if nodes else None
    if _syscall(ctypes.c_long(number), ctypes.c_long(mode), pointer, ctypes.c_ulong(_NODES + 1 if nodes else 0)) == 0:
        return None
    return OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
