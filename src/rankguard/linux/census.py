"""Who is below a process, however deep, whatever session it took and whoever inherited it.

Three sources, all of the kernel, the cheapest of which is asked, by the cost that each has shown:
  groups    the processes of the job's own cgroup, in one file
  listing   every process of the machine (`/proc`); of those that are new, whose child each is
  children  `/proc/PID/task/TID/children` of all that are known, which grows with the threads of the tree
`children` is the whole truth and is asked now and then in any case: the others see nobody who leaves the group, or gets a
number that somebody else had just before.

Orphans of a tree below a subreaper are that one's children (prctl(2)): pass it as `heir`. Without one, as for a tree that
somebody else started, an orphan is only known if it was seen while its parent lived.
Sources: proc(5), cgroups(7). Read next: `roster.py` (holds them).
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from rankguard.linux.files import listed, read_once
from rankguard.linux.freezer import members
from rankguard.linux.tree import children
from rankguard.record import Record

_STAT = 2048
_AGAIN = 32
"""Looks after which the cost of each source is measured anew: trees and machines grow."""
_WHOLE_S, _WHOLE_SHARE = 20.0, 300
"""Seconds between two looks at all children, or that many times what one costs, if that is more."""


_STALE_S = 2.5
"""Seconds for which it is known whose a number is: where few are given, they come round within minutes."""


class Stat(Record):
    """A line of `/proc/PID/stat` (proc(5)). `started`: clock ticks since boot; with the pid it is the identity."""

    pid: int
    comm: str
    state: str
    ppid: int
    started: int


def stat_of(pid: int) -> Stat | None:
    """None when there is no such process, or it cannot be read."""
    text = read_once(f"/proc/{pid}/stat", _STAT)
    # The command may hold spaces and brackets: fields are counted from the last one.
    head, _, tail = text.rpartition(b") ")
    fields = tail.split(None, 20)
    if len(fields) < 20:
        return None
    comm = head.partition(b" (")[2].decode(errors="replace")
    return Stat(pid, comm, fields[0].decode(), int(fields[1]), int(fields[19]))


def tells_children() -> bool:
    """The kernel has `/proc/PID/task/TID/children` (CONFIG_PROC_CHILDREN; not every kernel of a sandbox does)."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


class Census:
    """Counts the tree below `root`. Not the root itself."""

    def __init__(
        self,
        root: int,
        *,
        heir: int | None = None,
        groups: Sequence[str] = (),
        spare: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """`heir`: the subreaper above, which gets the orphans. `spare`: children of the heir that are no part of the tree.
        `groups`: cgroup directories that hold only processes of the tree (the root may be among them).
        """
        self._root, self._heir, self._groups, self._spare = root, heir, tuple(groups), spare
        self._others: set[int] = set()
        """Processes of the machine that are none of ours, and zombies: not to be asked again while they are listed."""
        self._looks = 0
        self._now = self._listed_at = float("-inf")
        self.was_whole = False
        """The last look was one at all children."""
        self._read: dict[int, Stat] = {}
        self._whole_at = float("-inf")
        self._whole_cost = 0.0
        self._costs: dict[Callable[[Collection[int]], Iterable[int]], float] = {}
        self._tells_children = tells_children()
        self._sources: list[Callable[[Collection[int]], Iterable[int]]] = [self._by_listing]
        if self._tells_children:
            self._sources.append(self._by_children)
        if self._groups:
            self._sources.append(self._by_groups)

    def look(self, known: Collection[int], now: float) -> list[Stat]:
        """Members of the tree that are not among `known`, parents before children, as far as one look shows them."""
        self._now = now
        whole = self._tells_children and now - self._whole_at >= max(_WHOLE_S, _WHOLE_SHARE * self._whole_cost)
        found = self._whole(known, now) if whole else self._timed(self._choose(), known)
        self.was_whole = whole
        self._looks += 1
        own = os.getpid()
        read, self._read = self._read, {}
        fresh = (read.get(pid) or stat_of(pid) for pid in found if pid not in known and pid not in (own, self._root))
        told = [stat for stat in fresh if stat is not None]
        self._others.update(stat.pid for stat in told if stat.state in "ZX")
        return sorted((stat for stat in told if stat.state not in "ZX"), key=lambda stat: (stat.started, stat.pid))

    def _whole(self, known: Collection[int], now: float) -> Iterable[int]:
        """By children. Who is listed before and not found is none of ours, without being asked: the first time everybody,
        later those that were none before, since an orphan may change its parent while we look.
        """
        listed_before = _all()
        if now - self._listed_at > _STALE_S:
            self._others.clear()
        self._listed_at = now
        found = set(self._timed(self._by_children, known))
        first = self._whole_at == float("-inf")
        self._whole_at, self._whole_cost = now, self._costs[self._by_children]
        self._others = (listed_before if first else listed_before & self._others) - found - set(known)
        return found

    def _choose(self) -> Callable[[Collection[int]], Iterable[int]]:
        unknown = next((source for source in self._sources if source not in self._costs), None)
        if unknown is not None:
            return unknown
        by_cost = sorted(self._sources, key=self._costs.__getitem__)
        # One that has become cheap is noticed; one that is far dearer is not tried for that.
        if self._looks % _AGAIN == 0 and len(by_cost) > 1 and self._costs[by_cost[1]] < 4 * self._costs[by_cost[0]]:
            return by_cost[1]
        return by_cost[0]

    def _timed(self, source: Callable[[Collection[int]], Iterable[int]], known: Collection[int]) -> Iterable[int]:
        began = time.thread_time()
        found = source(known)
        cost = time.thread_time() - began
        self._costs[source] = (self._costs.get(source, cost) + cost) / 2
        return found

    # ── Sources ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _by_groups(self, known: Collection[int]) -> Iterable[int]:
        spare = self._spare()
        found = {pid for group in self._groups for pid in members(group)} - {0}
        return [pid for pid in found if pid not in spare]

    def _by_children(self, known: Collection[int]) -> Iterable[int]:
        spare = self._spare()
        seen = {self._root, *known}
        queue = list(seen)
        if self._heir is not None:
            queue += [child for child in children(self._heir) if child not in seen and child not in spare]
            seen.update(queue)
        while queue:
            fresh = [child for pid in queue for child in children(pid) if child not in seen]
            queue = list(dict.fromkeys(fresh))
            seen.update(queue)
        return seen

    def _by_listing(self, known: Collection[int]) -> Iterable[int]:
        there = _all()
        if self._now - self._listed_at > _STALE_S:
            self._others.clear()  # any of these numbers may be somebody else's by now
        self._others &= there
        self._listed_at = self._now
        fresh = there - self._others
        fresh.difference_update(known)
        own = os.getpid()
        fresh -= {self._root, own}
        self._read = {pid: stat for pid in fresh if (stat := stat_of(pid)) is not None}
        parents = {pid: stat.ppid for pid, stat in self._read.items()}
        spare = self._spare()
        ours: set[int] = set()
        foreign = {pid for pid in parents if pid in spare}
        grows = True
        while grows:  # a chain of new processes, in any order
            grows = False
            for pid, parent in parents.items():
                if pid in ours or pid in foreign:
                    continue
                if parent in (self._root, self._heir) or parent in known or parent in ours:
                    ours.add(pid)
                elif parent in foreign or parent in self._others or parent in (0, own):
                    foreign.add(pid)
                else:  # its parent ended between two reads: asked again, when the kernel has told who inherits it
                    continue
                grows = True
        self._others |= foreign
        return ours


def _all() -> set[int]:
    return {int(name) for name in listed("/proc") if name.isdecimal()}
