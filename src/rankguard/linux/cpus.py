"""The CPUs of this process: those it may run on, how much of them its cgroup pays for, how many processes there can be.

Not where they are (`numa.py`). Sources: sched(7), Documentation/admin-guide/cgroup-v2.rst ("cpu.max") and
Documentation/scheduler/sched-bwc.rst.
"""

import os
from collections.abc import Iterator

from rankguard.linux.files import read_text
from rankguard.linux.hierarchies import Group, own_groups

PID_MAX_LIMIT = 4_194_304
"""The kernel's own bound, with 64 bits."""


def usable_cpus() -> int:
    """How many CPUs the scheduler may put us on: what torch counts, too."""
    return len(os.sched_getaffinity(0))


def most_processes(root: str = "") -> int:
    """The highest number of processes that this kernel gives out (proc_sys_kernel(5))."""
    text = (read_text(f"{root}/proc/sys/kernel/pid_max") or "").strip()
    return int(text) if text.isdecimal() else PID_MAX_LIMIT


def cpu_quota(groups: dict[str, Group] | None = None) -> float | None:
    """The CPUs' worth of time that our cgroup and those above it allow; null without a limit."""
    return min(_quotas(own_groups() if groups is None else groups), default=None)


def _quotas(groups: dict[str, Group]) -> Iterator[float]:
    for path in groups["v2"].upwards() if "v2" in groups else ():
        yield from _ratio((read_text(f"{path}/cpu.max") or "").split())
    for path in groups["cpu"].upwards() if "cpu" in groups else ():
        yield from _ratio([read_text(f"{path}/cpu.cfs_{name}_us") or "" for name in ("quota", "period")])


def _ratio(words: list[str]) -> Iterator[float]:
    """Quota and period in microseconds; `max` and -1 are no limit."""
    numbers = [int(word) for word in words if word.strip().isdecimal()]
    if len(numbers) == 2 and numbers[1] > 0:
        yield numbers[0] / numbers[1]
