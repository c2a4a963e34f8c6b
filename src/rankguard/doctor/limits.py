"""Checks of limits on files, processes and cores, compared with the world size that is asked about."""

import os
import resource

from rankguard.doctor.check import Answer, Check, Machine, gib, limited, missing, ok
from rankguard.launchers.limits import fds_for
from rankguard.linux.files import read_text
from rankguard.linux.hierarchies import own_groups

_OURS = 3
"""Front, warden, supervisor."""
_THREADS = 16
"""What a rank starts in threads at least: BLAS, OpenMP, a data loader."""


def _open_files(machine: Machine) -> Answer:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed, wanted = fds_for(machine.ranks)
    found = f"{_shown(soft)} (may be raised to {_shown(hard)}); {machine.ranks} ranks need {needed}"
    if _below(hard, needed):
        return missing(
            found, f"{machine.ranks} ranks cannot be run", f"ulimit -Hn {wanted}; docker run --ulimit nofile={wanted}"
        )
    if _below(hard, wanted):
        return limited(found, "log files are opened anew for each write", f"ulimit -n {wanted}")
    return ok(found)


def _processes(machine: Machine) -> Answer:
    least, usual = machine.ranks + _OURS, machine.ranks * _THREADS + _OURS
    rooms = list(_rooms())
    room, source = min(rooms, default=(None, ""))
    if room is None:
        return ok("no limit is seen")
    found = f"room for {room} more ({source})"
    if room < least:
        return missing(found, f"{machine.ranks} ranks cannot be started", f"{_raise(source)} by {usual - room} or more")
    if room < usual:
        return limited(
            found, f"{machine.ranks} ranks with {_THREADS} threads each do not fit: a rank fails with EAGAIN",
            f"{_raise(source)} by {usual - room} or more, or fewer threads (OMP_NUM_THREADS)",
        )  # fmt: skip
    return ok(found)


def _rooms() -> list[tuple[int, str]]:
    """(how many more processes and threads, whose limit) of each limit that applies."""
    found = []
    groups = own_groups()
    for key in ("pids", "v2"):
        for path in groups[key].upwards() if key in groups else ():
            most, now = (read_text(f"{path}/pids.{what}") or "" for what in ("max", "current"))
            if most.strip().isdecimal() and now.strip().isdecimal():
                found.append((int(most) - int(now), f"pids.max of {path}"))
    soft, _hard = resource.getrlimit(resource.RLIMIT_NPROC)
    capable = os.getuid() == 0
    if soft != resource.RLIM_INFINITY and not capable:  # root is not held to it (setrlimit(2))
        found.append((soft - _threads_of(os.getuid()), "RLIMIT_NPROC"))
    for name in ("threads-max", "pid_max"):
        text = (read_text(f"/proc/sys/kernel/{name}") or "").strip()
        running = (read_text("/proc/loadavg") or "").split("/")[-1].split()[:1]
        if text.isdecimal() and running and running[0].isdecimal():
            found.append((int(text) - int(running[0]), f"kernel.{name}"))
    return found


def _threads_of(uid: int) -> int:
    count = 0
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid:
                count += len(os.listdir(f"/proc/{pid}/task"))
        except OSError:
            continue
    return count


def _raise(source: str) -> str:
    return {"RLIMIT_NPROC": "raise `ulimit -u`"}.get(source, f"raise {source}")


def _cores(_machine: Machine) -> Answer:
    pattern = (read_text("/proc/sys/kernel/core_pattern") or "").strip()
    soft, _hard = resource.getrlimit(resource.RLIMIT_CORE)
    if pattern.startswith("|"):
        return limited(
            f"cores go to a program (`{pattern[1:].split(' ')[0]}`)",
            "a crash is seen when that program has read the whole core: seconds for a large rank, whatever RLIMIT_CORE"
            " says; peers may fail before it, and are then told apart by what the kernel shows",
            "sysctl kernel.core_pattern=core with `ulimit -c 0`, or LimitCORE=0 where systemd-coredump honours it",
        )
    if soft:
        size = "of any size" if soft == resource.RLIM_INFINITY else f"of up to {gib(soft)}"
        return limited(
            f"a crash writes a core {size} (`{pattern}`)",
            "each crash takes the disk space of a whole rank, and is seen only when the core is written",
            "ulimit -c 0, unless the cores are wanted",
        )
    return ok("no cores are written (ulimit -c 0)")


def _file_size(_machine: Machine) -> Answer:
    soft, _hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft == resource.RLIM_INFINITY:
        return ok("no RLIMIT_FSIZE")
    return limited(
        f"no file may grow beyond {gib(soft)} (RLIMIT_FSIZE)",
        "logs stop there, and a rank that writes a larger checkpoint is killed by SIGXFSZ", "ulimit -f unlimited",
    )  # fmt: skip


def _shown(value: int) -> str:
    return "no limit" if value == resource.RLIM_INFINITY else str(value)


def _below(value: int, wanted: int) -> bool:
    return value != resource.RLIM_INFINITY and value < wanted


_G = "limits"
CHECKS = (
    Check("open-files", _G, "RLIMIT_NOFILE against what the world size needs", _open_files, essential=True),
    Check("process-count", _G, "RLIMIT_NPROC, `pids.max` of all ancestors, `threads-max` and `pid_max`", _processes,
          essential=True),
    Check("cores", _G, "`core_pattern` and RLIMIT_CORE", _cores),
    Check("file-size", _G, "RLIMIT_FSIZE", _file_size),
)  # fmt: skip
