"""What this machine allows, as far as it changes what can be made of a fault or what can be proved of it.

Asked by trying: a job's control groups are made and removed again. `rankguard doctor` tells more, and what to do.
"""

import ctypes
import mmap
import os
import platform
import resource
import sys

from rankguard.linux.cgroup import JobGroups
from rankguard.linux.files import read_text
from rankguard.linux.hierarchies import counter
from rankguard.linux.kmsg import KernelLog, in_init_pid_namespace
from rankguard.record import Record


class Surroundings(Record):
    """The facts that a verdict's grade depends on, and those that make a fault possible."""

    root: bool = True
    """We are root."""
    own_groups: bool = True
    """Each rank gets a memory group of its own: its counter proves an OOM kill."""
    counters: bool = True
    """Some counter of OOM kills can be read: a SIGKILL is known not to be the OOM killer's."""
    kernel_log: bool = True
    """The kernel log names the victims of the OOM killer by pids that are ours."""
    cores: bool = True
    """A crash can write a core into the working folder."""
    machine: str = "x86_64"
    """As `platform.machine()` says it."""
    python: tuple[int, int] = (3, 11)
    """The version that the ranks run under."""


def look() -> Surroundings:
    """What is allowed here and now. Makes control groups and removes them: a few milliseconds."""
    groups = JobGroups.create(f"faults-{os.getpid()}", 2, frozenset({os.getpid()}))
    try:
        for fd in groups.join_fds(0):
            os.close(fd)
        own = groups.tells_ranks_apart
        _rose, readable = groups.oom_counts(0)
    finally:
        groups.remove()
    log = KernelLog()
    readable = readable or counter("/proc/vmstat") is not None
    told = log.readable and in_init_pid_namespace()
    log.close()
    return Surroundings(
        root=os.geteuid() == 0,
        own_groups=own,
        counters=readable,
        kernel_log=told,
        cores=why_no_core() is None,
        machine=platform.machine(),
        python=sys.version_info[:2],
    )


def patience(quiet_s: float) -> str:
    """Seconds for an option: on a quiet machine so many, more where processes queue for a processor (eight times at most).

    A rank that has not had its first instruction yet is as silent as one that hangs.
    """
    queue = os.getloadavg()[0] / (os.cpu_count() or 1)
    return f"{quiet_s * min(max(queue, 1.0), 8.0):.1f}"


def why_no_core() -> str | None:
    """Why a crash writes no core into the working folder (core(5)); null when it does."""
    pattern = (read_text("/proc/sys/kernel/core_pattern") or "").strip()
    if not pattern:
        return "kernel.core_pattern is empty"
    if pattern.startswith(("|", "@", "/")):
        return f"kernel.core_pattern sends cores elsewhere: {pattern}"
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard != resource.RLIM_INFINITY and hard < 64 << 20:
        return f"RLIMIT_CORE cannot be raised above {hard} bytes"
    return None


def why_no_machine_code(machine: str) -> str | None:
    """Why instructions of ours cannot be executed; null when they can."""
    if machine != "x86_64":
        return f"no instructions are known for {machine}"
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError as error:
        return f"memory that can be executed is not given: {error.strerror}"
    return None


def machine_code(code: bytes) -> int:
    """Puts instructions where they can be executed; their address. The memory stays until the process ends."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    _kept.append(page)
    return ctypes.addressof(ctypes.c_char.from_buffer(page))


_kept: list[mmap.mmap] = []
