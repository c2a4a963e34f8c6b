"""The job's tree: all processes below us, how they are made to end, and the proof that none is left.

The ranks are the launcher's; here is what ranks leave behind: children that outlive them, left sessions, segments of
shared memory. Read next: `../linux/tree.py` (the subreaper's loop), `../linux/cgroup.py` (one stroke), `../linux/leftovers.py`.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable

from rankguard.core.job import Job
from rankguard.launchers.exec import ExecRanks
from rankguard.launchers.warmstart import WarmStart
from rankguard.linux import tree
from rankguard.linux.cgroup import JobGroups
from rankguard.linux.leftovers import SHM, Leftovers
from rankguard.linux.shmowners import ShmOwners
from rankguard.model import Left, Survivor


class JobTree:
    """What the driver asks for when the ranks are to go (`driver.Tree`).

    `end_helpers` ends programs of ours, which are no part of the job; `warm` has one that lives on for the next attempt,
    and `others` are the pids of those that outlive the job.
    `few_fds`: none is left for watching /dev/shm; `earlier`: pids of ranks of attempts before this one.
    """

    def __init__(
        self,
        job: Job,
        wall: float,
        groups: JobGroups,
        ranks: ExecRanks,
        warm: WarmStart,
        end_helpers: Callable[[], object],
        others: Callable[[], frozenset[int]] = frozenset,
        *,
        few_fds: bool,
        earlier: Iterable[int] = (),
    ) -> None:
        self.killed: set[int] = set()
        self._job, self._groups, self._ranks, self._warm, self._end_helpers = job, groups, ranks, warm, end_helpers
        self._earlier, self._others = earlier, others
        self.cleaned: tuple[Left, ...] = ()
        """What was removed before the start, since nobody used it: an earlier life of the container had left it."""
        if job.spec.clean_shm == "all":
            self.cleaned = tuple(left for left in Leftovers(wall, os.getuid()).clean(set(), None) if left.removed)
        self._leftovers = Leftovers(wall, os.getuid())
        self.shm_owners = ShmOwners(SHM, told=not few_fds) if job.spec.clean_shm == "own" else None
        self._kill = False
        self._busy: list[Callable[[], bool]] = []
        self._hurry: list[Callable[[], object]] = []

    def wait_for(self, busy: Callable[[], bool], hurry: Callable[[], object] | None = None) -> None:
        """The tree is not empty while `busy`, and `hurry` ends that before anything is killed."""
        self._busy.append(busy)
        self._hurry += [hurry] if hurry is not None else []

    def note(self) -> None:
        """Look at what could be left behind: a socket whose owner dies is not found afterwards."""
        self._leftovers.note()

    def reap_strays(self) -> None:
        """Descendants of ranks that fell to us and have ended."""
        tree.reap_strays(self._ranks.unreaped() | self.spared)

    def sweep(self, kill: bool) -> None:
        """Ask what the ranks left behind to end, or make everything end."""
        self._end_helpers()
        self._ranks.stop_starting()
        self.note()
        if self.shm_owners is not None:
            self.shm_owners.look_at_all()
        self.reap_strays()  # the fewer there are, the sooner the living are found
        if kill:
            for hurry in self._hurry:
                hurry()
            self._kill = True
            self._groups.forbid_forks()
            self.killed.update(tree.alive(self.spared))
            self._groups.kill()
            self._kill_rest()
        else:
            tree.signal_all(signal.SIGTERM, signal.SIGCONT, spare=self.spared)  # who stands still hears nothing

    def empty(self) -> bool:
        """Every rank reaped and the kernel says that we have no child."""
        if not self._ranks.settle(time.monotonic()):
            return False
        kept, others = self._warm.kept, self._others()
        tree.reap_strays(kept | others)
        if any(busy() for busy in self._busy):
            return False
        if tree.is_empty(kept, others):
            return True
        if self._kill:
            self._kill_rest()
        return tree.is_empty(kept, others)

    def survivors(self) -> tuple[Survivor, ...]:
        """What refused to die."""
        return tree.survivors(self._warm.kept | self._others())

    def left(self) -> tuple[Left, ...]:
        """What outlives the job, after what may be removed has been."""
        pids = {rank.pid for rank in self._job.ranks if rank.pid is not None} | set(self._earlier)
        if self._job.spec.clean_shm == "report":
            return self._leftovers.find(pids)
        return self._leftovers.clean(pids, self.shm_owners)

    def _kill_rest(self) -> None:
        self.killed.update(tree.kill_all(self._ranks.unreaped(), spare=self.spared))

    @property
    def spared(self) -> frozenset[int]:
        """Ours, and no part of the job."""
        return self._warm.pids | self._others()
