"""Checks of network, terminal, CPUs, clocks, Python and the optional packages."""

import os
import platform
import socket
import sys
import time
from importlib.util import find_spec

from rankguard.doctor.check import Answer, Check, Machine, limited, missing, ok, unknown
from rankguard.linux import numa
from rankguard.linux.files import read_text
from rankguard.linux.hierarchies import own_groups
from rankguard.linux.ports import hold_free_port
from rankguard.linux.stacks import find_py_spy

_PACKAGES = (
    ("rich", "a live view of the start on a terminal; progress lines take its place"),
    ("cloudpickle", "`launch` of functions from notebooks and of lambdas"),
    ("debugpy", "`--debug` with an editor; pdb works without"),
    ("pynvml", "memory and processes of NVIDIA GPUs without calling nvidia-smi (package nvidia-ml-py)"),
)


def _master_port(_machine: Machine) -> Answer:
    span = (read_text("/proc/sys/net/ipv4/ip_local_port_range") or "").split()
    try:
        port, lock = hold_free_port()
    except OSError as error:
        return limited(str(error), "`run` starts only with a port that is given", "--master-port PORT")
    lock.close()
    below = f"; outgoing connections use {'-'.join(span)}" if len(span) == 2 else ""
    if len(span) == 2 and port >= int(span[0]):
        return limited(
            f"{port} is free{below}", "an outgoing connection may take the port before rank 0 listens",
            'sysctl net.ipv4.ip_local_port_range="32768 60999"',
        )  # fmt: skip
    return ok(f"{port} is free and can be held{below}")


def _loopback(_machine: Machine) -> Answer:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(1)
            with socket.create_connection(server.getsockname(), 1):
                server.accept()[0].close()
    except OSError as error:
        return limited(
            f"127.0.0.1: {error.strerror or error}",
            "ranks of torch cannot meet (MASTER_ADDR is 127.0.0.1)",
            "ip link set lo up",
        )
    return ok("127.0.0.1 answers")


def _hostname(_machine: Machine) -> Answer:
    name = socket.gethostname()
    try:
        address = socket.getaddrinfo(name, None)[0][4][0]
    except OSError as error:
        return limited(
            f"`{name}` has no address: {error.strerror or error}",
            "gloo and NCCL may not find an address to listen on; rankguard itself needs none",
            f"a line `127.0.0.1 {name}` in /etc/hosts, or GLOO_SOCKET_IFNAME=lo and NCCL_SOCKET_IFNAME=lo",
        )
    return ok(f"`{name}` is {address}")


def _terminal(_machine: Machine) -> Answer:
    shown = [name for fd, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")) if os.isatty(fd)]
    term = os.environ.get("TERM")
    plain = "NO_COLOR" if os.environ.get("NO_COLOR") else f"TERM={term}" if term in (None, "", "dumb") else ""
    if "stderr" not in shown:
        return ok("stderr is no terminal: progress as lines, no colours")
    if plain:
        return ok(f"stderr is a terminal without colours ({plain})")
    size = os.get_terminal_size(2)
    return ok(f"{' and '.join(shown)}; {term}, {size.columns}x{size.lines}")


def _cpus(machine: Machine) -> Answer:
    usable, online = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    quota = _quota()
    found = f"{usable} of {online} CPUs" + (f", for {quota:.1f} of them in time" if quota and quota < usable else "")
    held = min(usable, quota or usable)
    if machine.ranks > held:
        return limited(
            f"{found}; {machine.ranks} ranks",
            "ranks wait for one another's CPU: starts take longer, and time-outs have to be longer",
            "fewer ranks, more CPUs, or a larger quota (cpu.max)",
        )
    return ok(found)


def _quota() -> float | None:
    """CPUs that the group's quota allows, of all ancestors the smallest."""
    found = []
    groups = own_groups()
    for path in groups["v2"].upwards() if "v2" in groups else ():
        most, _, period = (read_text(f"{path}/cpu.max") or "").partition(" ")
        if most.isdecimal():
            found.append(int(most) / int(period))
    for path in groups["cpu"].upwards() if "cpu" in groups else ():
        most, period = (read_text(f"{path}/cpu.cfs_{what}_us") or "" for what in ("quota", "period"))
        if most.strip().isdecimal() and period.strip().isdecimal():
            found.append(int(most) / int(period))
    return min(found, default=None)


def _numa(_machine: Machine) -> Answer:
    topology = numa.read_topology()
    nodes = len(topology.nodes)
    if nodes <= 1:
        return ok("one node: `--numa-binding` changes nothing")
    refused = numa.memory_refused(topology.nodes)
    if refused is not None:
        return limited(
            f"{nodes} nodes; set_mempolicy: {refused.strerror}",
            "`--numa-binding` binds CPUs, and memory follows only by first touch",
            "docker run --security-opt seccomp=… that lets set_mempolicy(2) through, or --cap-add SYS_NICE",
        )
    return ok(f"{nodes} nodes with {len(topology.cpus)} CPUs; memory can be preferred near a rank")


def _clock(_machine: Machine) -> Answer:
    resolution = time.clock_getres(time.CLOCK_MONOTONIC)
    source = (read_text("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "?").strip()
    began = time.perf_counter()
    for _ in range(1000):
        time.monotonic()
    cost = (time.perf_counter() - began) / 1000
    found = f"{source}; steps of {resolution * 1e9:.0f} ns, {cost * 1e9:.0f} ns a look"
    if resolution > 1e-4 or cost > 5e-6:
        return limited(
            found, "two failures at nearly the same time cannot be ordered", "a faster clock source (tsc, kvm-clock)"
        )
    return ok(found)


def _python(_machine: Machine) -> Answer:
    found = (
        f"{platform.python_implementation()} {platform.python_version()} ({sys.executable or 'no executable is known'})"
    )
    if not sys.executable:
        return missing(found, "rankguard's own processes cannot be started", "call Python by its full path")
    if sys.version_info < (3, 12):
        return limited(
            found,
            "an exception of a rank is seen when it leaves the program, not when it is raised",
            "Python 3.12 or newer for the ranks",
        )
    return ok(found)


def _py_spy(_machine: Machine) -> Answer:
    found = find_py_spy()
    if found is None:
        return limited(
            "not found", "`rankguard stacks` and SIGQUIT show threads without Python frames", "pip install py-spy"
        )
    return ok(found)


def _packages(_machine: Machine) -> Answer:
    there = [name for name, _what in _PACKAGES if find_spec(name) is not None]
    gone = [(name, what) for name, what in _PACKAGES if name not in there]
    found = f"there are {', '.join(there)}" if there else "there is none"
    if not gone:
        return ok(found)
    pip = {"pynvml": "nvidia-ml-py"}
    return limited(
        f"{found}; not {', '.join(name for name, _what in gone)}",
        "; ".join(f"{name}: {what}" for name, what in gone),
        f"pip install {' '.join(pip.get(name, name) for name, _what in gone)}",
    )


def _kernel(_machine: Machine) -> Answer:
    told = os.uname()
    if not told.release.partition(".")[0].isdecimal():
        return unknown(told.release, "its abilities are probed one by one all the same", "nothing")
    return ok(f"{told.sysname} {told.release} {told.machine}")


CHECKS = (
    Check("master-port", "network", "find a free port and hold it; `ip_local_port_range`", _master_port),
    Check("loopback", "network", "connect to 127.0.0.1", _loopback),
    Check("hostname", "network", "look up this machine's own name", _hostname, limit_s=6.0),
    Check("terminal", "terminal", "terminal, TERM, NO_COLOR", _terminal),
    Check("kernel", "machine", "the kernel's version, for reports", _kernel),
    Check("cpus", "machine", "CPUs that may be used, and the group's quota, against the world size", _cpus),
    Check("numa", "machine", "NUMA nodes, and whether set_mempolicy(2) is let through", _numa),
    Check("clock", "machine", "the monotonic clock's steps and cost", _clock),
    Check("python", "python", "the version that ranks run under", _python, essential=True),
    Check("py-spy", "python", "whether py-spy is there", _py_spy),
    Check("packages", "python", "optional packages", _packages),
)
