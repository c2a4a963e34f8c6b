"""The launcher of an engine that somebody else has started (`rankguard watch --pid`, `--match`): found, held and watched.

It is not our child: no output, no notify socket, nothing to reap, and how it ended is what the kernel tells a stranger
(`../linux/foreign.py`). It is touched only when the core orders its end after a failure, and then by pidfds alone, so that
a number that has come to mean another process is never hit. Whoever stops or loses us leaves it as it is: nothing of ours
ends with it, and it does not end with us.

Read next: `treewatch.py` (its processes), `../core/stopping.py` (`leave`), docs/attach.md.
"""

import os
import re
import signal
import time
from collections.abc import Mapping
from selectors import BaseSelector

from rankguard.facts import Exited, Fact, Joined, Looked, NotSpawned, Ready, Reaped, Silences, Spawned, Warned
from rankguard.jobspec import WatchPlan
from rankguard.launchers.contract import Emit, Surroundings
from rankguard.launchers.kernelnews import KernelNews
from rankguard.launchers.signs import silences
from rankguard.launchers.treewatch import Outlook, TreeWatch
from rankguard.launchers.watched import Naming
from rankguard.linux.census import Census, stat_of
from rankguard.linux.find import Found, find, named
from rankguard.linux.foreignooms import ForeignOoms
from rankguard.linux.glance import glance
from rankguard.linux.hierarchies import groups_of
from rankguard.linux.roster import Entry
from rankguard.model import Sign, Survivor

ROOT = 0
_LOOK_S, _SHARE = 0.25, 100
"""From one look for the engine to the next, or so many times what one costs, if that is more."""
_ASK = (signal.SIGTERM, signal.SIGCONT)
"""Who stands still hears nothing."""


class _Root:
    """The engine's own process, as `KernelNews` wants it."""

    number = ROOT

    def __init__(self, now: float) -> None:
        self.started = (now, now)


class AttachedTree:
    """Of one engine. `emit` takes the facts of its root and of its processes."""

    def __init__(self, around: Surroundings, selector: BaseSelector, *, emit: Emit, naming: Naming) -> None:
        assert around.spec.watch is not None  # nobody else comes here
        self._plan: WatchPlan = around.spec.watch
        self._around, self._selector, self._emit, self._naming = around, selector, emit, naming
        self._pattern = None if self._plan.match is None else re.compile(self._plan.match)
        self._look_at: float | None = None
        self._root: Found | None = None
        self._tree: TreeWatch | None = None
        self._ooms = ForeignOoms()
        self._roots: dict[int, _Root] = {}
        self._kernel = KernelNews(around, self._roots, emit)
        self._exited = self._reaped = self._ending = self._said = False

    # ── Attaching ────────────────────────────────────────────────────────────────────────────────────────────────

    def spawn(self, first: int, last: int) -> None:
        self._look_at = 0.0
        self.wake(self._around.clock())

    def next_wake(self) -> float | None:
        due = (self._look_at, None if self._tree is None else self._tree.next_wake())
        return min((at for at in due if at is not None), default=None)

    def wake(self, now: float) -> None:
        if self._look_at is not None and self._look_at <= now:
            self._look_for_it(now)
        if self._tree is not None:
            self._tree.wake(now)

    def _look_for_it(self, now: float) -> None:
        if self._pattern is None:
            self._begin(named(self._plan.attached or 0), now)
            return
        began = time.thread_time()
        try:
            found = find(self._pattern)
        except TimeoutError:
            self._warn_once("the expression of --match takes too long for the titles of this machine's processes")
            found = None
        cost = time.thread_time() - began
        self._look_at = now + max(_LOOK_S, _SHARE * cost)
        if found is not None:
            self._begin(found, now)

    def _begin(self, found: Found | None, now: float) -> None:
        """Watch it from now on, if it is still who it was when it was chosen."""
        known = self._plan.attached_started
        self._look_at = None
        if found is None or (known is not None and found.started != known):
            self._not_there(now, f"no process {self._plan.attached} is there any more")
            return
        around = self._around
        outlook = Outlook(
            root=found.pid,
            recognise=self._naming.recognise,
            name_of=self._naming.name_of,
            variables=self._naming.variables,
            oom=self._ooms.counts,
            kernel=self._kernel.take,
            redact=around.redact,
            note=around.note,
        )
        self._ooms.add(found.pid)
        around.memory.move(groups_of(found.pid))
        tree = TreeWatch(outlook, self._selector, Census(found.pid), self._told)
        entry = tree.attach(now) and tree.roster.processes.get(found.pid)
        if not entry or entry.started != found.started:
            tree.close()
            if self._pattern is None:
                self._not_there(now, f"process {found.pid} has just ended")
            else:
                self._look_at = now  # it went while we looked at it: perhaps there is another one
            return
        self._root, self._tree = found, tree
        self._roots[found.pid] = _Root(now)
        self._kernel.watch(tree.by_pid)
        self._emit(Spawned(now, ROOT, found.pid))
        if found.others:
            others = "another process matches" if found.others == 1 else f"{found.others} other processes match"
            self._warn_once(f"{others}, too; the oldest is watched, pid {found.pid}")
        if around.spec.expect_ready and not self._plan.probed:
            self._emit(Ready(now, ROOT))  # it is there, and nothing else was asked for
        tree.roster.look(now)

    def _not_there(self, now: float, why: str) -> None:
        self._exited = self._reaped = True
        self._emit(NotSpawned(now, ROOT, "attach", 3, why))  # ESRCH

    def _told(self, fact: Fact) -> None:
        """A fact of the tree. Before the root's end is told, ends that are there already are."""
        if isinstance(fact, Joined):
            self._ooms.add(fact.pid)
        if isinstance(fact, Exited) and fact.rank == ROOT and self._tree is not None:
            self._exited = True
            self._tree.settle(fact.at)
        self._emit(fact)

    def _warn_once(self, statement: str) -> None:
        if not self._said:
            self._said = True
            self._emit(Warned(self._around.clock(), statement))

    # ── The driver's side (`contract.Launcher`) ──────────────────────────────────────────────────────────────────

    def look(self, now: float) -> Looked:
        self._kernel.take(now)
        if self._tree is None or self._root is None:
            return Looked(self._around.clock(), state=self._around.memory.state())
        dying, memory = self._tree.look()
        if not self._exited:
            how, held = glance(self._root.pid)
            dying = ((ROOT, how), *dying) if how is not None else dying
            memory = ((ROOT, held), *memory) if held.rss_bytes is not None else memory
        total = sum(told.held_bytes or 0 for _number, told in memory)
        state = self._around.memory.state(total)
        return Looked(self._around.clock(), dying, memory, state, self._tree.picture())

    def signs(self, now: float) -> tuple[Sign, ...]:
        return () if self._root is None or self._exited else (Sign(ROOT, None, None),)

    def silences(self, now: float, since: float) -> Silences:
        return silences(self.signs(now), now, since)

    def signal_all(self, number: int, spare: frozenset[int], *, ends: bool) -> int:
        """To end it, its root alone; nothing else is passed on to it."""
        now = self._around.clock()
        if ends and self._look_at is not None:
            self._look_at = None
            self._exited = self._reaped = True
            self._emit(NotSpawned(now, ROOT, "cancelled", 0, "the watch was told to end before it was found"))
        self._ending = self._ending or ends
        wanted = ends or (self._ending and number == signal.SIGCONT)
        entry = None if self._tree is None or self._root is None else self._tree.roster.processes.get(self._root.pid)
        return int(self._signal(entry, number)) if entry is not None and wanted and ROOT not in spare else 0

    def signal_rank(self, rank: int, number: int) -> None:
        """What is meant for one rank is meant for ranks of ours."""

    def reap(self, rank: int) -> None:
        """Whoever started it does."""
        self._reaped = True
        self._emit(Reaped(self._around.clock(), rank))

    def close(self, now: float) -> None:
        self._look_at = None
        self._kernel.close()
        if self._tree is not None:
            self._tree.close()

    # ── The end of its tree (`../supervisor/heldtree.py`) ────────────────────────────────────────────────────────

    def sweep(self, *, kill: bool) -> list[int]:
        """Ask all that are held to end, or end them; who was reached. Nobody, unless the core has ordered the root's end."""
        if self._tree is None or not self._ending:
            return []
        self._tree.roster.look(self._around.clock())
        numbers = (signal.SIGKILL,) if kill else _ASK
        held = sorted(self._tree.roster.processes.values(), key=lambda each: (each.started, each.pid))
        return [entry.pid for entry in held if all(self._signal(entry, number) for number in numbers)]

    def settle(self, now: float) -> bool:
        """Tell the ends that are there already; true when the root has ended and, if its end was ordered, all of its tree."""
        if self._tree is None:
            return self._reaped
        if not self._tree.settle(now) or not self._reaped:
            return False
        if self._ending and not self._tree.roster.processes:
            self._tree.roster.look(now)  # what was forked last
        return not self._ending or not self._tree.roster.processes

    def left(self) -> tuple[Survivor, ...]:
        """Those of its tree that are still there, though they were to end."""
        if self._tree is None or not self._ending:
            return ()
        told = ((entry, stat_of(entry.pid)) for entry in self._tree.roster.processes.values())
        return tuple(Survivor(entry.pid, entry.comm, stat.state if stat else "?") for entry, stat in told)

    def _signal(self, entry: Entry, number: int) -> bool:
        """False when we may not. By its pidfd; without one (none was free) by one that is opened now and is proven to be the same process."""
        pidfd = entry.pidfd
        try:
            if pidfd < 0:
                pidfd = os.pidfd_open(entry.pid)
                stat = stat_of(entry.pid)
                if stat is None or stat.started != entry.started:
                    return True
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return True  # it has ended, and that will be told
        except OSError as error:
            self._said = False
            why = "it is another user's, and we may not" if isinstance(error, PermissionError) else error.strerror
            self._warn_once(f"unable to send {signal.Signals(number).name} to {entry.comm} (pid {entry.pid}): {why}")
            return False
        finally:
            if entry.pidfd < 0 <= pidfd:
                os.close(pidfd)
        return True

    # ── The supervisor's side ────────────────────────────────────────────────────────────────────────────────────

    def on_child(self) -> None:
        """A child of ours has ended, which is none of the engine's."""

    def on_oom(self, now: float) -> None:
        """The kernel tells of an OOM."""
        self._kernel.take(now)

    def busy(self) -> bool:
        """Ends are there that have not been told yet."""
        return self._tree is not None and not self._tree.settle(self._around.clock())

    def tell_unreaped(self, now: float) -> None:
        """Of processes that ended unseen and that nobody has asked since."""
        if self._tree is not None:
            self._tree.unreaped(now)

    def heard_at(self, rank: int) -> float | None:
        """It says nothing to us."""
        return None

    def names(self) -> Mapping[int, str]:
        """What everybody of the tree is called, by pid, as it is now."""
        if self._tree is None:
            return {}
        self._tree.roster.look(self._around.clock())
        return self._tree.names()

    def unreaped(self) -> set[int]:
        """No child of ours is a rank."""
        return set()

    def pause_output(self, paused: bool) -> None:
        """There is none."""

    def look_at_traced(self, now: float) -> None:
        """None is our child."""

    def complaint(self, pid: int, number: int, now: float) -> bool:
        """It does not know us; whoever signals us means it."""
        return False
