"""Which CPUs and memory are near each rank: on machines made of files, and on this one, as the kernel sees it."""

import ctypes
import os
import select
from pathlib import Path

import pytest

from rankguard.linux import numa, spawn
from rankguard.linux.numa import Binding, Impossible, in_ranges, plan, ranges, rank_nodes, read_topology

MODES = ("node", "socket", "exclusive", "core-complex")


def machine(root: Path, *, nodes, packages, cores=None, caches=None, online=None, memory_only=()) -> str:
    """sysfs of a machine. `nodes`, `packages`, `cores`, `caches`: lists of CPU lists, such as `0-3,8-11`."""
    system = root / "sys/devices/system"
    every = sorted(cpu for text in nodes for cpu in ranges(text))
    put(system / "cpu/online", online or in_ranges(every))
    put(system / "node/online", in_ranges([*range(len(nodes)), *memory_only]))
    kept = set(ranges(online)) if online else set(every)
    for node, text in enumerate(nodes):
        put(system / f"node/node{node}/cpulist", in_ranges(set(ranges(text)) & kept))
    for node in memory_only:
        put(system / f"node/node{node}/cpulist", "\n")
    for cpu in every:
        here = system / f"cpu/cpu{cpu}"
        put(here / "topology/physical_package_id", str(holder(packages, cpu)))
        put(
            here / "topology/thread_siblings_list",
            (cores or [str(n) for n in every])[holder(cores, cpu)] if cores else str(cpu),
        )
        for index, (level, kind, group) in enumerate(
            [(1, "Data", str(cpu)), (1, "Instruction", str(cpu)), (2, "Unified", str(cpu))]
            + ([(3, "Unified", caches[holder(caches, cpu)])] if caches else [])
        ):  # fmt: skip
            put(here / f"cache/index{index}/level", str(level))
            put(here / f"cache/index{index}/type", kind)
            put(here / f"cache/index{index}/shared_cpu_list", group)
    return str(root)


def holder(groups, cpu) -> int:
    return next(n for n, text in enumerate(groups) if cpu in ranges(text))


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def two_sockets(root: Path, **more) -> str:
    """2 sockets × 2 nodes × 4 cores with 2 threads each, as an EPYC in NPS2 counts them; 2 cores share a cache."""
    return machine(
        root,
        nodes=["0-3,16-19", "4-7,20-23", "8-11,24-27", "12-15,28-31"],
        packages=["0-7,16-23", "8-15,24-31"],
        cores=[f"{n},{n + 16}" for n in range(16)],
        caches=[f"{n}-{n + 1},{n + 16}-{n + 17}" for n in range(0, 16, 2)],
        **more,
    )


def cpus(made: tuple[Binding, ...]) -> list[str]:
    return [in_ranges(binding.cpus) for binding in made]


EVERY = range(1024)


def test_node(tmp_path):
    made = plan("node", [0, 1, 3, 3], read_topology(two_sockets(tmp_path)), EVERY)

    assert cpus(made) == ["0-3,16-19", "4-7,20-23", "12-15,28-31", "12-15,28-31"]
    assert [binding.nodes for binding in made] == [(0,), (1,), (3,), (3,)]


def test_socket(tmp_path):
    made = plan("socket", [0, 1, 2], read_topology(two_sockets(tmp_path)), EVERY)

    assert cpus(made) == ["0-7,16-23", "0-7,16-23", "8-15,24-31"]
    assert [binding.nodes for binding in made] == [(0, 1), (0, 1), (2, 3)]


def test_exclusive_gives_whole_cores_and_the_rest_to_the_first(tmp_path):
    made = plan("exclusive", [0, 0, 0, 2], read_topology(two_sockets(tmp_path)), EVERY)

    assert cpus(made) == ["0-1,16-17", "2,18", "3,19", "8-11,24-27"]
    taken = [cpu for binding in made for cpu in binding.cpus]
    assert len(taken) == len(set(taken))


def test_exclusive_with_more_ranks_than_cores_is_impossible(tmp_path):
    with pytest.raises(Impossible, match="5 ranks cannot have cores of their own on NUMA node 1: 4 may be used"):
        plan("exclusive", [1] * 5, read_topology(two_sockets(tmp_path)), EVERY)


def test_core_complex_deals_the_caches_out_in_turn(tmp_path):
    made = plan("core-complex", [0, 0, 0, 1], read_topology(two_sockets(tmp_path)), EVERY)

    assert cpus(made) == ["0-1,16-17", "2-3,18-19", "0-1,16-17", "4-5,20-21"]


def test_core_complex_prefers_the_cache_with_more_cpus_that_may_be_used(tmp_path):
    made = plan("core-complex", [0, 0], read_topology(two_sockets(tmp_path)), set(EVERY) - {0, 16})

    assert cpus(made) == ["2-3,18-19", "1,17"]


@pytest.mark.parametrize("mode", MODES)
def test_only_cpus_that_may_be_used(tmp_path, mode):
    allowed = {1, 2, 17, 24, 25, 26, 27}

    made = plan(mode, [0, 2], read_topology(two_sockets(tmp_path)), allowed)

    assert all(set(binding.cpus) <= allowed and binding.cpus for binding in made)


@pytest.mark.parametrize("mode", MODES)
def test_a_node_of_which_no_cpu_may_be_used(tmp_path, mode):
    with pytest.raises(Impossible, match="rank 1 belongs to NUMA node 3, of whose CPUs none may be used"):
        plan(mode, [0, 3], read_topology(two_sockets(tmp_path)), range(8))


def test_offline_cpus_are_left_out(tmp_path):
    topology = read_topology(two_sockets(tmp_path, online="0-3,16-17,20-31"))

    assert cpus(plan("node", [0, 1], topology, EVERY)) == ["0-3,16-17", "20-23"]


def test_memory_without_cpus_is_no_place_for_a_rank(tmp_path):
    topology = read_topology(machine(tmp_path, nodes=["0-3", "4-7"], packages=["0-3", "4-7"], memory_only=(2, 3)))

    assert topology.nodes == (0, 1, 2, 3)
    assert rank_nodes(4, topology, []) == (0, 0, 1, 1)
    assert cpus(plan("socket", [0, 1], topology, EVERY)) == ["0-3", "4-7"]


def test_without_caches_in_sysfs_each_core_is_its_own_complex(tmp_path):
    topology = read_topology(machine(tmp_path, nodes=["0-3"], packages=["0-3"], cores=["0,2", "1,3"]))
    no_cache = topology.replace(cpus=tuple(cpu.replace(cache=cpu.number) for cpu in topology.cpus))

    assert cpus(plan("core-complex", [0, 0], no_cache, EVERY)) == ["0", "1"]
    assert cpus(plan("exclusive", [0, 0], topology, EVERY)) == ["0,2", "1,3"]


def test_a_kernel_without_numa(tmp_path):
    put(tmp_path / "sys/devices/system/cpu/online", "0-1")

    assert cpus(plan("node", [0], read_topology(str(tmp_path)), EVERY)) == ["0-1"]


@pytest.mark.parametrize(
    ("nprocs", "gpus", "expected"),
    [
        (4, [0, 0, 1, 1], (0, 0, 1, 1)),
        (2, [1, 0, 1], (1, 0)),
        (5, [0, 1], (0, 1, 0, 1, 0)),
        (8, [], (0, 0, 1, 1, 2, 2, 3, 3)),
        (3, [], (0, 1, 2)),
        (1, [], (0,)),
    ],
)
def test_the_node_of_each_rank(tmp_path, nprocs, gpus, expected):
    assert rank_nodes(nprocs, read_topology(two_sockets(tmp_path)), gpus) == expected


def test_from_gpus_to_cpus(tmp_path):
    root = two_sockets(tmp_path)
    for minor, (pci, node) in enumerate([("0000:07:00.0", 3), ("0000:87:00.0", 0)]):
        put(tmp_path / f"proc/driver/nvidia/gpus/{pci}/information", f"Device Minor: \t {minor}")
        put(tmp_path / f"sys/bus/pci/devices/{pci}/numa_node", str(node))
        put(tmp_path / f"dev/nvidia{minor}", "")
    nodes = {name: [binding.nodes for binding in plan_for(root, env)] for name, env in {
        "as they are": {}, "turned round": {"CUDA_VISIBLE_DEVICES": "1,0"}, "none": {"CUDA_VISIBLE_DEVICES": ""},
    }.items()}  # fmt: skip

    assert nodes == {"as they are": [(3,), (0,)], "turned round": [(0,), (3,)], "none": [(0,), (2,)]}


def plan_for(root, env):
    topology = read_topology(root)
    gpus = [numa.numa_node(gpu.pci, root) for gpu in numa.visible_gpus(env, root)]
    return plan("node", rank_nodes(2, topology, gpus), topology, EVERY)


@pytest.mark.parametrize("text", ["0", "0-3", "0-3,8,10-11"])
def test_ranges_there_and_back(text):
    assert in_ranges(ranges(text + "\n")) == text


# ── This machine ─────────────────────────────────────────────────────────────────────────────────────────────────

ALLOWED = sorted(os.sched_getaffinity(0))
choosing_memory = pytest.mark.skipif(
    numa.memory_refused((0,)) is not None or not os.path.exists("/proc/self/numa_maps"),
    reason="the kernel does not let this process choose its memory (seccomp, or a kernel without NUMA)",
)
SAY = "grep -E '^Cpus_allowed_list' /proc/self/status; head -1 /proc/self/numa_maps | cut -d' ' -f2"


def said_by(binding: Binding | None) -> tuple[str, str]:
    """(stdout, stderr) of a child that was started with this binding and tells its own."""
    out, out_end = os.pipe2(os.O_CLOEXEC)
    err, err_end = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    command = spawn.Command(
        argv=("sh", "-c", SAY), env=dict(os.environ), cwd="/", stdio=(null, out_end, err_end), binding=binding
    )
    started = spawn.spawn(command)
    for fd in (out_end, err_end, null, started.news):
        os.close(fd)
    texts = read_all(out), read_all(err)
    assert select.select([started.pidfd], [], [], 20)[0]
    os.waitid(os.P_PIDFD, started.pidfd, os.WEXITED)
    os.close(started.pidfd)
    return texts


def read_all(fd: int) -> str:
    with open(fd) as file:
        return file.read()


@choosing_memory
def test_a_child_is_bound_before_it_executes():
    binding = Binding((ALLOWED[-1],), (0,))

    out, err = said_by(binding)

    assert out.split() == ["Cpus_allowed_list:", str(ALLOWED[-1]), "prefer:0"]
    assert err == ""
    assert sorted(os.sched_getaffinity(0)) == ALLOWED  # and we are not


@choosing_memory
def test_a_child_that_cannot_be_bound_runs_and_says_so():
    out, err = said_by(Binding((1023,), (0,)))

    assert out.split() == ["Cpus_allowed_list:", in_ranges(ALLOWED), "prefer:0"]
    assert err == "rankguard: this rank is not bound to CPUs 1023: Invalid argument\n"


@choosing_memory
def test_a_node_that_is_not_there_is_refused_by_the_kernel():
    _out, err = said_by(Binding(tuple(ALLOWED), (999,)))

    assert err == "rankguard: this rank is not bound to memory of NUMA node 999: Invalid argument\n"


@choosing_memory
def test_trying_leaves_no_trace():
    assert numa.memory_refused((0,)) is None
    assert numa.memory_refused((999,)) is not None
    mode = ctypes.c_int(-1)
    ctypes.CDLL(None).syscall(
        ctypes.c_long({"x86_64": 239}.get(os.uname().machine, 236)), ctypes.byref(mode), None, 0, None, 0
    )
    assert mode.value == numa.MPOL_DEFAULT


def test_every_mode_on_this_machine():
    for mode in MODES:
        (made,) = numa.bindings(mode, 1, {"CUDA_VISIBLE_DEVICES": ""}).ranks
        assert set(made.cpus) <= set(ALLOWED), mode
