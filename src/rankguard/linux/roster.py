"""Every process below another one, each held by a pidfd from its first sight to its end, and how it ended.

It does not know what a process is for (`diagnosis/roles.py`) and ends nobody. The kernel tells of an end, through the
pidfd; of a beginning it is asked, at intervals that adapt to the cost: 50 ms at first, since engines fork their ranks early,
then 250 ms, 1 s when nothing has changed for a while, and in any case at most 1 % of a processor. `news` asks at once.
Processes that come and go between two looks cost nothing and are never told of.

The status of a process that is not our child is learnt in steps: a look without reaping (an orphan that we inherited),
the kernel's word after the reap (Linux 6.15), the zombie's `/proc` stat, on older kernels the statistics of its exit where
they are sent to us; tried again for 50 ms, while other news is handled; then it is unknown. Read next: `census.py` (who
there is), `foreign.py` and `exitstatus.py` (the steps).
"""

import heapq
import os
import resource
import select
import time
from collections.abc import Callable, Collection
from selectors import EVENT_READ, BaseSelector

from rankguard.linux import exitstatus
from rankguard.linux.census import Census, Stat, stat_of
from rankguard.linux.exitstatus import ExitStatuses
from rankguard.linux.files import listed, read_once
from rankguard.linux.foreign import UNKNOWN, ending_of
from rankguard.model import Ending

TITLE = 300
"""Characters of a title that are kept."""
PATIENCE_S = 0.05
"""For the status of one that has ended, as everywhere (`adopted/process.py`)."""
SHARE = 100
"""An interval is this many times what a look costs."""
_EAGER_S, _EAGER_FOR_S = 0.05, 10.0
_USUAL_S = 0.25
_CALM_S, _CALM_AFTER_S = 1.0, 60.0
_NEWS_S = 0.02
_NEW_S = 2.0
"""What has to be read of new processes is paid once: it delays the next look by no more than that."""
_SLICE, _SLICE_S = 32, 0.002
"""New processes taken in before other news is handled, and the pause between two such slices."""
_FIRST_STEP_S = 0.0005
_TITLES = 64
"""Titles read again in one look."""
_TITLE_SOON_S, _TITLE_LATE_S, _TITLE_AGE = 0.05, 5.0, 100
"""A title is read again when a hundredth of the process's age has passed, within these bounds."""
_YOUNG_S = 2.0
"""Until then an exec may not be seen by the title: what is forked and executes its parent's own command line."""
_PART, _ENVIRON = 16 << 10, 64
"""Bytes of an environment that are read at once, and how many times."""
_VALUE = 200
_OTHERS, _OTHERS_SHARE = 16, 8
"""Descriptors that are left to the rest of us, at least, or that part of all."""


class Entry:
    """A process of the tree. `origin`: its parent at first sight; `ppid` is who is now. `comm`: its name in 15 bytes, as
    it was at first sight, and as it is at its end if it can still be read then.
    """

    __slots__ = (
        "comm", "ended", "env", "first_seen", "kept", "origin", "pid", "pidfd", "ppid", "started", "title", "title_at",
    )  # fmt: skip

    def __init__(self, stat: Stat, now: float) -> None:
        self.pid, self.started, self.comm = stat.pid, stat.started, stat.comm
        self.ppid = self.origin = stat.ppid
        self.title = ""
        self.env: dict[str, str] = {}
        """Those variables that the roster was asked to look at, as they were at its last exec."""
        self.pidfd = -1
        self.kept = self.ended = False
        self.first_seen = self.title_at = now


class Roster:
    """The processes below `root`, as the census finds them. Callbacks come from `wake` and from the selector's news."""

    def __init__(
        self,
        selector: BaseSelector,
        census: Census,
        *,
        on_seen: Callable[[Entry, float], None],
        on_title: Callable[[Entry, float], None],
        on_end: Callable[[Entry, Ending, float], None],
        variables: Collection[str] = (),
        budget: int | None = None,
        priority: int = 1,
        note: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`variables`: all that is looked at of environments. `budget`: pidfds that may be held; by default most of those
        that this process may still open. `priority`: of the news in the driver's loop. `note` is told once what fails.

        `on_end(process, ending, now)`: `ending` is `UNKNOWN` where nobody can tell.
        """
        self.processes: dict[int, Entry] = {}
        self.cost_s = 0.0
        """CPU seconds of a look, lately."""
        self._selector, self._census, self._clock, self._note, self._priority = selector, census, clock, note, priority
        self._on_seen, self._on_title, self._on_end = on_seen, on_title, on_end
        self._variables = tuple((name, b"\0" + os.fsencode(name) + b"=") for name in variables)
        self._budget = _room() if budget is None else budget
        self._held = 0
        self._titles: list[tuple[float, int, int]] = []
        self._waiting: list[tuple[Entry, float, float]] = []
        """Ended, and how is not known yet: until when it is asked, and the next step."""
        self._waits_at: float | None = None
        self._began = self._changed_at = self._looked_at = clock()
        self._look_at = self._began
        self._said = False
        self._statuses = ExitStatuses() if exitstatus.wanted() else None
        self._admitting_s = 0.0
        self._pause = _NEWS_S
        self._new: list[Stat] = []
        self._new_at: float | None = None

    # ── The loop's side ──────────────────────────────────────────────────────────────────────────────────────────

    def next_wake(self) -> float:
        """When `wake` wants to be called."""
        at = self._look_at if self._new_at is None else self._new_at
        return at if self._waits_at is None else min(at, self._waits_at)

    def wake(self, now: float) -> None:
        """Do what is due."""
        if self._waits_at is not None and self._waits_at <= now:
            self._ask_again(now)
        if self._new_at is not None:
            if self._new_at <= now:
                self._admit_some(now)
        elif self._look_at <= now:
            self._look(now)

    def news(self) -> None:
        """Something happened in the tree: look soon, within the same share of a processor."""
        self._look_at = min(self._look_at, self._looked_at + self._pause)

    def look(self, now: float) -> None:
        """Ask who there is, and take in everybody who is new."""
        self._look(now)
        while self._new:
            self._admit_some(now)

    def _look(self, now: float) -> None:
        """Ask who there is, and read the titles that are due."""
        began = time.thread_time()
        if self._statuses is not None:
            self._statuses.read(now)
        self._new = self._census.look(self.processes.keys(), now)
        self._new.reverse()
        self._look_at_unheld(now)
        self._read_titles(now)
        cost = time.thread_time() - began
        if not self._census.was_whole:  # that comes seldom, and has a share of its own
            self.cost_s = (self.cost_s + cost) / 2 if self.cost_s else cost
        self._looked_at, self._admitting_s = now, 0.0
        self._admit_some(now)

    def settle(self, now: float) -> bool:
        """Take the ends that are there already; false while how somebody ended is still being learnt."""
        poll = select.poll()
        held = {process.pidfd: process for process in self.processes.values() if process.pidfd >= 0}
        for pidfd in held:
            poll.register(pidfd, select.POLLIN)
        for pidfd, _event in poll.poll(0):
            self._on_pidfd(held[pidfd], now)
        return not self._waiting

    def keep(self, process: Entry) -> None:
        """Hold this one rather than others when descriptors are short."""
        process.kept = True
        if process.pidfd < 0 and not process.ended:
            if self._held >= self._budget:
                others = (each for each in self.processes.values() if each.pidfd >= 0 and not each.kept)
                youngest = max(others, key=lambda each: (each.started, each.pid), default=None)
                if youngest is not None:
                    self._release(youngest)
            self._hold(process)

    def admit(self, pid: int, now: float) -> Entry | None:
        """One that the census does not count, such as the root of a tree that somebody else started; None when it is gone."""
        stat = stat_of(pid)
        if stat is not None and stat.state not in "ZX":
            self._admit(stat, now)
        return self.processes.get(pid)

    def describe(self, pid: int) -> tuple[str, dict[str, str]]:
        """Title and environment (the variables asked for) of any process, as they are now."""
        return title_of(pid), self._environment(pid)

    def refresh(self, process: Entry, now: float) -> None:
        """Read its title now, and what may have changed with it; `on_title` if it is another one."""
        if process.ended:
            return
        title = title_of(process.pid)
        process.title_at = now + min(_TITLE_LATE_S, max(_TITLE_SOON_S, (now - process.first_seen) / _TITLE_AGE))
        if not title or (title == process.title and now - process.first_seen > _YOUNG_S):
            return
        env = {**process.env, **self._environment(process.pid)}
        if (title, env) != (process.title, process.env):
            process.title, process.env = title, env
            self._changed_at = now
            self._on_title(process, now)

    def close(self) -> None:
        """Let go of everybody."""
        for process in self.processes.values():
            self._release(process)
        for process, _until, _step in self._waiting:
            os.close(process.pidfd)
        if self._statuses is not None:
            self._statuses.close()
        self.processes, self._waiting, self._titles, self._waits_at = {}, [], [], None

    # ── Coming ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _interval(self, now: float) -> float:
        if now - self._began < _EAGER_FOR_S or now - self._changed_at < _USUAL_S:
            return _EAGER_S
        return _CALM_S if now - self._changed_at > _CALM_AFTER_S else _USUAL_S

    def _admit_some(self, now: float) -> None:
        """Many at once are taken in slices, so that other news is not kept waiting."""
        began = time.thread_time()
        for _ in range(min(_SLICE, len(self._new))):
            stat = self._new.pop()
            if stat.pid not in self.processes:
                self._admit(stat, now)
        self._admitting_s += time.thread_time() - began
        self._new_at = now + _SLICE_S if self._new else None
        self._pause = max(_NEWS_S, SHARE * self.cost_s, min(_NEW_S, SHARE * self._admitting_s))
        self._look_at = self._looked_at + max(self._interval(now), self._pause)

    def _admit(self, stat: Stat, now: float) -> None:
        process = Entry(stat, now)
        if not self._hold(process):
            return
        process.title = title_of(stat.pid) or stat.comm
        process.env = self._environment(stat.pid)
        self.processes[stat.pid] = process
        self._changed_at = now
        process.title_at = now + _TITLE_SOON_S
        heapq.heappush(self._titles, (process.title_at, stat.pid, stat.started))
        self._on_seen(process, now)

    def _hold(self, process: Entry) -> bool:
        """False when it has gone. Without a descriptor it is looked for at each look."""
        if self._held < self._budget:
            try:
                process.pidfd = os.pidfd_open(process.pid)
            except ProcessLookupError:
                return process.pid in self.processes
            except OSError as error:
                self._say(f"unable to open a pidfd: {error.strerror}")
                return True
            try:
                self._selector.register(
                    process.pidfd, EVENT_READ, (self._priority, lambda now: self._on_pidfd(process, now))
                )
            except OSError as error:  # epoll has a limit of its own (/proc/sys/fs/epoll/max_user_watches)
                os.close(process.pidfd)
                process.pidfd = -1
                self._say(f"unable to wait for a pidfd: {error.strerror}")
                return True
            self._held += 1
        else:
            self._say(f"{self._budget} processes are held, as many as the limit on open files allows")
        return True

    def _say(self, why: str) -> None:
        if not self._said:
            self._said = True
            self._note(f"the end of some processes is seen late, and how they ended is not known: {why}")

    def _release(self, process: Entry) -> None:
        if process.pidfd >= 0:
            self._selector.unregister(process.pidfd)
            os.close(process.pidfd)
            process.pidfd = -1
            self._held -= 1

    # ── Titles ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _read_titles(self, now: float) -> None:
        for _ in range(_TITLES):
            if not self._titles or self._titles[0][0] > now:
                return
            _due, pid, started = heapq.heappop(self._titles)
            process = self.processes.get(pid)
            if process is None or process.started != started:
                continue
            self.refresh(process, now)
            heapq.heappush(self._titles, (max(process.title_at, now + _TITLE_SOON_S), pid, started))

    def _environment(self, pid: int) -> dict[str, str]:
        if not self._variables:
            return {}
        text = b"\0" + _environ(pid)
        found = {}
        for name, key in self._variables:
            at = text.find(key)
            if at >= 0:
                at += len(key)
                end = text.find(b"\0", at)
                found[name] = text[at : min(end if end >= 0 else len(text), at + _VALUE)].decode(errors="replace")
        return found

    # ── Going ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_pidfd(self, process: Entry, now: float) -> None:
        if process.ended:
            return
        pidfd = process.pidfd
        self._selector.unregister(pidfd)
        self._held -= 1
        stat = stat_of(process.pid)
        if stat is not None and stat.started == process.started:
            process.comm = stat.comm  # a zombie has no title any more, and still this
        ending = ending_of(process.pid, pidfd) or self._from_statistics(process.pid, now)
        self._gone(process)
        if ending is not None:
            self._tell(process, ending, now)
        else:
            self._waiting.append((process, now + PATIENCE_S, _FIRST_STEP_S))
            self._waits_at = min(self._waits_at or now + _FIRST_STEP_S, now + _FIRST_STEP_S)

    def _from_statistics(self, pid: int, now: float) -> Ending | None:
        return None if self._statuses is None else self._statuses.of(pid, now)

    def _gone(self, process: Entry) -> None:
        process.ended = True
        del self.processes[process.pid]
        self.news()  # its children have another parent now, and its parent may start another one

    def _tell(self, process: Entry, ending: Ending, now: float) -> None:
        if process.pidfd >= 0:
            os.close(process.pidfd)
            process.pidfd = -1
        self._changed_at = now
        self._on_end(process, ending, now)

    def _ask_again(self, now: float) -> None:
        waiting, self._waiting, self._waits_at = self._waiting, [], None
        for process, until, step in waiting:
            ending = ending_of(process.pid, process.pidfd)
            if ending is not None or now >= until:
                self._tell(process, ending or UNKNOWN, now)
                continue
            self._waiting.append((process, until, step * 2))
            at = min(until, now + step)
            self._waits_at = at if self._waits_at is None else min(self._waits_at, at)

    def _look_at_unheld(self, now: float) -> None:
        """Those without a pidfd: gone, or now there is one for them, the oldest first."""
        if self._held == len(self.processes):
            return
        for process in sorted(
            (p for p in self.processes.values() if p.pidfd < 0), key=lambda p: (not p.kept, p.started, p.pid)
        ):
            stat = stat_of(process.pid)
            if stat is None and os.path.exists(f"/proc/{process.pid}"):
                continue  # it cannot be read: no file can be opened at this moment
            if stat is None or stat.started != process.started or stat.state in "ZX":
                ending = None if stat is None or stat.started != process.started else ending_of_zombie(process.pid)
                self._gone(process)
                self._tell(process, ending or UNKNOWN, now)
            elif self._held < self._budget:
                self._hold(process)


def title_of(pid: int) -> str:
    """A process's command line, or what it has put in its place (setproctitle), as one line of at most `TITLE` characters.

    Empty for a zombie, a kernel thread, and one that is gone.
    """
    raw = read_once(f"/proc/{pid}/cmdline", 4 * TITLE)
    text = " ".join(raw.replace(b"\0", b" ").decode(errors="replace").split())[:TITLE]
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _environ(pid: int) -> bytes:
    """The environment of its last exec; nothing where we may not read it."""
    parts: list[bytes] = []
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while len(parts) < _ENVIRON and (part := os.read(fd, _PART)):
                parts.append(part)
        finally:
            os.close(fd)
    except OSError:
        pass
    return b"".join(parts)


def ending_of_zombie(pid: int) -> Ending | None:
    """How one that has not been reaped ended; null where it has been, or the kernel does not tell."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        return ending_of(pid, pidfd)
    finally:
        os.close(pidfd)


def _room() -> int:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 20
    return max(0, soft - len(listed("/proc/self/fd")) - max(_OTHERS, soft // _OTHERS_SHARE))
