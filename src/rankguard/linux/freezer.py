"""SIGKILL to every process of a group at once, where the kernel has no `cgroup.kill` for it: freeze, kill, thaw.

Sources: Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst (`cgroup.freeze`).
"""

import os
from signal import SIGKILL
from time import monotonic, sleep

from rankguard.linux.files import read_text, write_text
from rankguard.linux.hierarchies import below, counter, processes

_FREEZE = {"cgroup.freeze": ("1", "0"), "freezer.state": ("FROZEN", "THAWED")}
_FREEZE_WAIT = 0.05
"""A v1 group with a task in an uninterruptible call stays FREEZING for as long as that lasts; it is killed all the same."""
_ROUNDS = 20


def freeze_and_kill(path: str) -> bool:
    """SIGKILL to every process below `path`, held still meanwhile so that none forks away. v1 kills upon the thaw."""
    switch = next(name for name in _FREEZE if os.path.exists(f"{path}/{name}"))
    freeze, thaw = _FREEZE[switch]
    killed: set[int] = set()
    for _ in range(_ROUNDS):  # a fork that was under way when the freeze began shows in the next round
        if write_text(f"{path}/{switch}", freeze):
            return False
        until = monotonic() + _FREEZE_WAIT
        while not _frozen(path, switch) and monotonic() < until:
            sleep(0.0002)
        found = members(path)
        for pid in found - {0}:
            try:
                os.kill(pid, SIGKILL)
            except OSError:
                pass
        write_text(f"{path}/{switch}", thaw)
        if found <= killed:
            return True
        killed |= found
    return True


def _frozen(path: str, switch: str) -> bool:
    if switch == "freezer.state":
        return (read_text(f"{path}/{switch}") or "").strip() == "FROZEN"
    return counter(f"{path}/cgroup.events", "frozen") == 1


def members(path: str) -> set[int]:
    return {pid for directory in below(path) for pid in processes(directory)}
