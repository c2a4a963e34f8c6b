"""On what the bench ran, and whether anybody else used it: who reads a figure has to know both."""

import os
import platform
import resource
import time
from datetime import UTC, datetime
from pathlib import Path

QUIET_BEFORE, QUIET_DURING = 0.05, 0.10
LOOK_S = 3.0


def describe() -> dict[str, object]:
    """Processor, memory, kernel, Python, date. No name and no address."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = next(int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processors": len(os.sched_getaffinity(0)),
        "model": model or platform.machine(),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "system": next((line[13:-1] for line in _lines("/etc/os-release") if line.startswith("PRETTY_NAME")), ""),
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


class Others:
    """What other processes than ours used of the processors, as a share of all of them, since this was made."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), _busy_s(), _own_s()

    def share(self) -> float:
        """0 … 1; what virtual machines beside us took (steal) counts as others'."""
        took = time.monotonic() - self._began
        others = (_busy_s() - self._busy) - (_own_s() - self._own)
        return round(max(0.0, others / took / (os.cpu_count() or 1)), 3)


def look() -> float:
    """The share of others within the next seconds."""
    others = Others()
    time.sleep(LOOK_S)
    return others.share()


def quiet(before: float, during: float) -> bool:
    return before <= QUIET_BEFORE and during <= QUIET_DURING


def _busy_s() -> float:
    """Of all processors, since the machine started: everything but idle and waiting for a disk (proc(5), `cpu`)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, _lines("/proc/stat")[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Of this process and of all below it that have ended and were waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
