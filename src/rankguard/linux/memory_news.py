"""The kernel's own word when memory gets tight, without polling: an OOM in one of our groups, a limit that comes near.

What can be had depends on the machine, and nothing here raises: `told` says what there is, `missing` what there is not.

  v1       `memory.oom_control` and `memory.pressure_level` (the kernel reclaims), eventfds by `cgroup.event_control`;
           needs a group that can be written. The OOM event goes to every group below the limit that was met.
           Not thresholds of usage: each waits for an RCU grace period, 10 to 20 ms in which we would hear nothing else
  cgroup2  `memory.events`, which is readable for everybody: `oom` and `oom_kill` rose, or `high`, `max`
  any      PSI: `/proc/pressure/memory`, or `memory.pressure` of our group, where a trigger may be set

An OOM event says that there was an OOM, never who was killed. It comes before the victim has ended: a large one needs
long to give its memory back. A limit that comes near is no news to anybody but a reason to look again.

Sources: cgroup-v1/memory.rst (9, 10), cgroup-v2.rst, accounting/psi.rst.
"""

import contextlib
import os
import select
from collections.abc import Iterable

from rankguard.linux.hierarchies import Group
from rankguard.linux.memory import Limit

_PSI = b"some 200000 2000000"
"""Microseconds of stall within microseconds. 2 s is what everybody may ask for (kernel/sched/psi.c, 6.5)."""


class MemoryNews:
    """`fileno` is readable when there is news (-1: the kernel tells nothing here)."""

    told: list[str]
    """What the kernel tells of, in words."""
    missing: list[str]
    """What it does not, and why."""

    def __init__(self, groups: dict[str, Group], limits: Iterable[Limit], *, few_fds: bool = False) -> None:
        self.told, self.missing = [], []
        self._v1: dict[int, str] = {}  # eventfd of OOMs → its group
        self._v2: dict[int, tuple[str, dict[str, int]]] = {}  # memory.events → its group and what it said last
        self._groups = groups
        self._psi = -1
        self._look: dict[int, int] = {}  # eventfd of pressure levels, PSI trigger → what to wait for
        self._epoll: select.epoll | None = None
        if few_fds:
            self.missing.append("no memory events: too few open files (`ulimit -n`)")
            return
        limited = [limit for limit in limits if limit.group is not None]
        try:
            self._epoll = select.epoll()
            if "memory" in groups:
                self._watch_v1(groups["memory"].path, limited)
            self._watch_v2(groups, limited)
        except OSError as error:
            self.missing.append(f"no memory events: {error.strerror}")

    def fileno(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def read(self) -> tuple[list[str], bool]:
        """The groups that an OOM was told of, and whether a limit has come nearer: then memory should be looked at.

        What asks for a look does so once, until `look_done`.
        """
        ooms, look = list[str](), False
        for fd, _event in self._epoll.poll(0) if self._epoll is not None else ():
            if fd in self._v2:
                group, before = self._v2[fd]
                now = _events(fd)
                self._v2[fd] = group, now
                if any(now.get(key, 0) > before.get(key, 0) for key in ("oom", "oom_kill")):
                    ooms.append(group)
                look = True
            elif fd in self._v1:
                with contextlib.suppress(OSError):
                    os.eventfd_read(fd)
                ooms.append(self._v1[fd])
                look = True
            elif fd in self._look:
                with contextlib.suppress(OSError):
                    os.eventfd_read(fd)
                look = True
        return ooms, look

    def look_done(self) -> None:
        """From now on a limit that comes nearer is news again."""
        for fd, mask in self._look.items():
            assert self._epoll is not None
            self._epoll.modify(fd, mask)

    def watch_pressure(self) -> None:
        """Be told of pressure, too. Not at the start: the kernel may take 25 ms to set the first trigger (seen on 6.12)."""
        if self._epoll is not None and self._psi < 0:
            self._watch_psi(self._groups)

    def forget_pressure(self) -> None:
        """The job is being stopped: nobody looks at its memory any more. To close a trigger waits for every processor to
        pass through the scheduler (`psi_trigger_destroy`: synchronize_rcu), 8 to 20 ms, which the ranks' ends take anyway.
        """
        if self._psi >= 0:
            self._look.pop(self._psi, None)
            os.close(self._psi)
            self._psi = -1

    def close(self) -> None:
        for fd in (*self._v1, *self._v2, *self._look):
            os.close(fd)
        self._v1, self._v2, self._look, self._psi = {}, {}, {}, -1
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    def _watch_v1(self, own: str, limited: list[Limit]) -> None:
        assert self._epoll is not None
        if (oom := _eventfd(own, "memory.oom_control")) is not None:
            self._v1[oom] = own
            self._epoll.register(oom, select.EPOLLIN)
            self.told.append(f"OOM events of {own}")
        else:
            self.missing.append(f"no OOM events of {own}: its cgroup.event_control cannot be written")
        for limit in limited:
            if limit.is_v2 or limit.group is None:
                continue
            if (fd := _eventfd(limit.group, "memory.pressure_level", "low")) is not None:
                self._look[fd] = select.EPOLLIN | select.EPOLLONESHOT
                self._epoll.register(fd, self._look[fd])
                self.told.append(f"pressure level of {limit.group}")

    def _watch_v2(self, groups: dict[str, Group], limited: list[Limit]) -> None:
        """Of each group with a limit, and the closest one with a memory controller: its counts are those of all below."""
        assert self._epoll is not None
        paths = [limit.group for limit in limited if limit.is_v2 and limit.group is not None]
        around = groups["v2"].upwards() if "v2" in groups else ()
        paths += [path for path in around if os.path.exists(f"{path}/memory.events")][:1]
        for path in dict.fromkeys(paths):
            try:
                fd = os.open(f"{path}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                self.missing.append(f"no memory events of {path}: {error.strerror}")
                continue
            self._v2[fd] = path, _events(fd)
            self._epoll.register(fd, select.EPOLLPRI)  # EPOLLIN is always there (kernfs)
            self.told.append(f"memory events of {path}")

    def _watch_psi(self, groups: dict[str, Group]) -> None:
        """The machine's pressure, where that of our own group may not be asked."""
        assert self._epoll is not None
        paths = [f"{groups['v2'].path}/memory.pressure"] if "v2" in groups else []
        for path in (*paths, "/proc/pressure/memory"):
            try:
                fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                os.write(fd, _PSI + b"\0")
                self._epoll.register(fd, select.EPOLLPRI | select.EPOLLONESHOT)  # EPOLLIN is always there (kernfs)
            except OSError:
                os.close(fd)
                continue
            self._look[fd] = select.EPOLLPRI | select.EPOLLONESHOT
            self._psi = fd
            self.told.append(f"pressure of {path}")
            return
        self.missing.append("no memory pressure: a trigger could not be set")


def _eventfd(group: str, file: str, words: str = "") -> int | None:
    """An eventfd of cgroup v1 (`cgroup.event_control`); null where it cannot be had."""
    made = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        target = os.open(f"{group}/{file}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            control = os.open(f"{group}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(control, f"{made} {target} {words}".strip().encode())
            finally:
                os.close(control)
        finally:
            os.close(target)
    except OSError:
        os.close(made)
        return None
    return made


def _events(fd: int) -> dict[str, int]:
    """What `memory.events` says; to read it is what makes the next change news."""
    try:
        text = os.pread(fd, 4096, 0).decode()
    except OSError:
        return {}
    words = (line.partition(" ") for line in text.splitlines())
    return {name: int(value) for name, _, value in words if value.isdecimal()}
