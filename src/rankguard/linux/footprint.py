"""What one rank holds, looked at again and again: its process, what is below it, its cgroup where it has one.

Files are kept open and read at offset 0: a fifth of the cost of opening them anew (`statm`: 0.8 us against 2.7). Where
descriptors are scarce they are opened each time. What costs more (`status`, `memory.stat`, the processes below) is read
by `look_closer`, which is called more seldom.

A process's resident memory counts pages that others map as well: ranks that share a cache would seem to hold more than
there is. So what is told of a rank is its private memory (`resident` less `shared`, proc_pid_statm(5)); in a group of
its own the group's usage less its file pages, which the kernel counts once and with all children.

Read next: `memory.py` (the limit that all share), `glance.py` (one look, at the moment of a failure).
"""

import contextlib
import os
import resource

from rankguard.linux import tree
from rankguard.linux.glance import glance
from rankguard.linux.hierarchies import processes
from rankguard.linux.memory import numbers

_PAGE = os.sysconf("SC_PAGE_SIZE")
_BELOW = 256
"""Processes below a rank that are looked at."""


class Footprint:
    """Of one rank's process. `group`: the directory of its own memory group; `keep`: files may stay open; `alone`: what is
    below it is not its own.
    """

    __slots__ = (
        "_alone",
        "_below",
        "_extra",
        "_group",
        "_keep",
        "_statm",
        "_usage",
        "_v2",
        "held",
        "own",
        "peak",
        "pid",
        "rss",
    )

    def __init__(self, pid: int, group: str | None = None, *, keep: bool = True, alone: bool = False) -> None:
        self._alone = alone
        self.pid, self._group, self._keep = pid, group, keep
        self._v2 = group is not None and not os.path.exists(f"{group}/memory.usage_in_bytes")
        self._statm = self._usage = -1
        self._extra: int | None = None  # file pages in its group, which do not count
        self._below = 0
        self.rss: int | None = None
        self.own = 0
        """Private memory of the process itself, the part of `held` that `glance` sees as well."""
        self.held: int | None = None
        self.peak: int | None = None

    def read(self) -> bool:
        """Look; false, with the last values as they were, once it holds nothing any more."""
        words = self._read("_statm", f"/proc/{self.pid}/statm").split()
        if len(words) < 3 or words[1] == b"0":  # gone, a zombie, or its memory is being taken down
            return False
        rss, shared = int(words[1]) * _PAGE, int(words[2]) * _PAGE
        self.rss, self.own = rss, max(0, rss - shared)
        usage = b""
        if self._group is not None:
            name = "memory.current" if self._v2 else "memory.usage_in_bytes"
            usage = self._read("_usage", f"{self._group}/{name}").strip()
        if usage.isdigit() and self._extra is not None:
            self.held = max(0, int(usage) - self._extra)
        else:
            self.held = self.own + self._below
        return True

    def look_closer(self) -> None:
        """What changes slowly: the kernel's maximum, file pages in the group, the processes below. Once before `read`."""
        _how, memory = glance(self.pid)
        if memory.peak_bytes is not None:
            self.peak = memory.peak_bytes
        self._extra = None
        if self._group is not None and processes(self._group):  # nobody: it could not join (`cgroup.py` says so)
            names = ("inactive_file", "active_file") if self._v2 else ("total_inactive_file", "total_active_file")
            stat = numbers(f"{self._group}/memory.stat", names)
            self._extra = sum(stat.values()) if stat else None
        if self._extra is None and not self._alone:
            self._below = sum(map(_private, tree.descendants(self.pid)[:_BELOW]))

    def limits(self) -> tuple[tuple[str, int, int], ...]:
        """Limits of its own, which it may have set itself: name, bytes in use, limit. Usually none (setrlimit(2))."""
        words = self._read("_statm", f"/proc/{self.pid}/statm").split()
        if len(words) < 6:
            return ()
        found = []
        for name, number, pages in (("RLIMIT_AS", resource.RLIMIT_AS, 0), ("RLIMIT_DATA", resource.RLIMIT_DATA, 5)):
            with contextlib.suppress(OSError, ValueError):
                soft, _hard = resource.prlimit(self.pid, number)
                if soft != resource.RLIM_INFINITY:
                    found.append((name, int(words[pages]) * _PAGE, soft))
        return tuple(found)

    def close(self) -> None:
        """Let go of the files; the last values stay."""
        for name in ("_statm", "_usage"):
            if (fd := getattr(self, name)) >= 0:
                os.close(fd)
                setattr(self, name, -1)

    def _read(self, name: str, path: str) -> bytes:
        fd = getattr(self, name)
        try:
            if fd < 0:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                if self._keep:
                    setattr(self, name, fd)
            try:
                return os.pread(fd, 128, 0)
            finally:
                if not self._keep:
                    os.close(fd)
        except OSError:
            return b""


def _private(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            words = file.read(128).split()
        return max(0, int(words[1]) - int(words[2])) * _PAGE
    except (OSError, IndexError):
        return 0
