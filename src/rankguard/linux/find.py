"""Find a process that somebody else has started by what it is called: its command line, or the title in its place.

The kernel tells nobody of a process that begins elsewhere, so all are looked at, now and then, by whoever waits for one.
Never found: this process and those above it (a shell whose command line holds the same words), and other rankguards.
"""

import os
import re
from typing import NamedTuple

from rankguard.linux.census import stat_of
from rankguard.linux.child import state
from rankguard.linux.cpulimit import cpu_limit
from rankguard.linux.files import listed, read_once, read_text

LONGEST = 16 << 10
_OURS = re.compile(r"\brankguard\b.* (watch|run)\b")
_LIMIT_S = 0.5
"""CPU time for one look: titles are words of any user of this machine, and some expressions need years for some words."""


class Found(NamedTuple):
    """A process, by pid and start (clock ticks since boot), which together no other one has. `others`: how many more match."""

    pid: int
    started: int
    title: str
    others: int = 0


def named(pid: int) -> Found | None:
    """The process of this pid; None when there is none, it has ended, or it is none (a kernel thread)."""
    stat, title = stat_of(pid), whole_title(pid)
    return None if stat is None or stat.state in "ZX" or not title else Found(pid, stat.started, title)


def process_of(pid: int) -> int | None:
    """The process that a thread is of, and itself of a process (`Tgid`, proc_pid_status(5)); None when it is gone."""
    for line in (read_text(f"/proc/{pid}/status") or "").splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return None


def is_hidden(pid: int) -> bool:
    """There is such a process, which we may not look at: `/proc` is mounted with `hidepid` (proc(5))."""
    try:
        os.close(os.pidfd_open(pid))
    except OSError:
        return False
    return not os.path.exists(f"/proc/{pid}")


def find(pattern: "re.Pattern[str]", spare: frozenset[int] = frozenset()) -> Found | None:
    """The topmost process whose title matches; of several that are not below one another the oldest. `spare`: not these.

    Raises `TimeoutError` when the expression takes too long.
    """
    titles = {int(name): whole_title(int(name)) for name in listed("/proc") if name.isdecimal()}
    not_these = spare | above(os.getpid())
    with cpu_limit(_LIMIT_S):
        alike = {
            pid for pid, title in titles.items()
            if title and pid not in not_these and pattern.search(title) and not _OURS.search(title)
        }  # fmt: skip
    tops = [found for pid in alike if not above(pid, own=False) & alike and (found := named(pid)) is not None]
    if not tops:
        return None
    first = min(tops, key=lambda each: (each.started, each.pid))
    return first._replace(others=len(tops) - 1)


def above(pid: int, *, own: bool = True) -> frozenset[int]:
    """A process's ancestors, as far as they can be seen; with itself, if `own`."""
    found = {pid} if own else set()
    told = state(pid)
    while told is not None and told[1] > 0 and told[1] not in found:
        found.add(told[1])
        told = state(told[1])
    return frozenset(found)


def whole_title(pid: int) -> str:
    """As `roster.title_of`, and longer: an engine's options count as well."""
    return read_once(f"/proc/{pid}/cmdline", LONGEST).replace(b"\0", b" ").decode(errors="replace").strip()
