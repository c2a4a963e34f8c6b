"""The launcher of a watched engine: its root is one rank (`exec.py`), the processes of its tree take part beside it.

What concerns the root is handed on to the one, what concerns the tree to the other (`treewatch.py`). Before the root's end
is told, ends that are there already are: an engine often ends because of them.
"""

import contextlib
from collections.abc import Callable, Collection, Mapping
from selectors import BaseSelector
from typing import TypeVar

from rankguard.facts import Exited, Fact, KernelKilled, Looked, Silences, Spawned
from rankguard.launchers.contract import Emit, Surroundings
from rankguard.launchers.exec import ExecRanks
from rankguard.launchers.redaction import redacted_tail
from rankguard.launchers.treewatch import Above, Outlook, Recognised, TreeWatch
from rankguard.linux.census import Census
from rankguard.model import Sign
from rankguard.record import Record

ROOT = 0
_LOGGED_S = 0.1
"""The kernel's log has an OOM kill some milliseconds after the event; who ended of it is then known from its end, too."""

R = TypeVar("R")


class Naming(Record):
    """Who is who in a tree (`diagnosis/roles.py` with the job's rules). `variables`: all that is read of environments."""

    recognise: Callable[[str, Mapping[str, str], Above], Recognised]
    name_of: Callable[[str], str]
    variables: tuple[str, ...]


class WatchedTree:
    """Of one engine. `ranks` is set before `spawn`: it emits through `from_root`. `heir` is the subreaper's pid, ours."""

    ranks: ExecRanks

    def __init__(
        self,
        around: Surroundings,
        selector: BaseSelector,
        *,
        from_root: Emit,
        from_tree: Emit,
        naming: Naming,
        heir: int,
        spare: Callable[[], Collection[int]],
        dropped: Callable[[Exception], None],
    ) -> None:
        """`dropped` is told what the watch of the tree raised, and may raise it again; else the root goes on alone."""
        self._around, self._selector, self._naming = around, selector, naming
        self._emit_of_root, self._emit_of_tree = from_root, from_tree
        self._heir, self._spare, self._dropped = heir, spare, dropped
        self._tree: TreeWatch | None = None
        self._log_at: float | None = None
        """When the kernel log is to be read for an OOM whose victim nobody may have known."""

    def from_root(self, fact: Fact) -> None:
        """A fact of the root's launcher."""
        if isinstance(fact, Exited):
            self._of_tree(lambda tree: tree.settle(fact.at), True)
        self._emit_of_root(fact)
        if isinstance(fact, KernelKilled):
            self._of_tree(lambda tree: tree.killed(fact.at, fact.record, ours=fact.is_child), None)
        if isinstance(fact, Spawned):
            try:
                self._begin(fact.pid)
            except Exception as error:  # noqa: BLE001  # whoever asked for it decides
                self.drop(error)

    def drop(self, error: Exception) -> None:
        """Nobody but the root is watched from now on."""
        tree, self._tree = self._tree, None
        self._dropped(error)
        with contextlib.suppress(Exception):
            if tree is not None:
                tree.close()

    def _of_tree(self, call: Callable[[TreeWatch], R], instead: R) -> R:
        """What it tells, if it is there and able to."""
        if self._tree is None:
            return instead
        try:
            return call(self._tree)
        except Exception as error:  # noqa: BLE001  # whoever asked for it decides
            self.drop(error)
            return instead

    def _begin(self, root: int) -> None:
        around, groups = self._around, self._around.groups
        outlook = Outlook(
            root=root,
            recognise=self._naming.recognise,
            name_of=self._naming.name_of,
            variables=self._naming.variables,
            oom=lambda: groups.oom_counts(ROOT),
            kernel=self.ranks.kernel.take,
            redact=around.redact,
            note=around.note,
        )
        census = Census(root, heir=self._heir, groups=groups.directories(ROOT), spare=self._spare)
        self._tree = TreeWatch(outlook, self._selector, census, self._from_tree)
        self.ranks.kernel.watch(self._tree.by_pid)

    def _from_tree(self, fact: Fact) -> None:
        """A process that left with a code has most likely said why, in the output that all share; of one that was killed
        its engine may have.
        """
        if isinstance(fact, Exited) and fact.ending.code != 0:
            tail = self.ranks.hear(ROOT, fact.at)
            fact = fact.replace(log_tail=redacted_tail(tail, self._around.redact))
        self._emit_of_tree(fact)

    # ── The driver's side (`contract.Launcher`) ──────────────────────────────────────────────────────────────────

    def spawn(self, first: int, last: int) -> None:
        self.ranks.spawn(first, last)

    def look(self, now: float) -> Looked:
        looked = self.ranks.look(now)
        return self._of_tree(lambda tree: _with_tree(looked, tree), looked)

    def silences(self, now: float, since: float) -> Silences:
        return self.ranks.silences(now, since)

    def signs(self, now: float) -> tuple[Sign, ...]:
        return self.ranks.signs(now)

    def signal_all(self, number: int, spare: frozenset[int], *, ends: bool) -> int:
        return self.ranks.signal_all(number, spare, ends=ends)

    def signal_rank(self, rank: int, number: int) -> None:
        self.ranks.signal_rank(rank, number)

    def reap(self, rank: int) -> None:
        self.ranks.reap(rank)

    def next_wake(self) -> float | None:
        due = (self.ranks.next_wake(), self._of_tree(lambda tree: tree.next_wake(), None), self._log_at)
        return min((at for at in due if at is not None), default=None)

    def wake(self, now: float) -> None:
        self.ranks.wake(now)
        if self._log_at is not None and self._log_at <= now:
            self._log_at = None
            self.ranks.kernel.take(now)
        self._of_tree(lambda tree: tree.wake(now), None)

    def close(self, now: float) -> None:
        self.ranks.close(now)
        self._of_tree(lambda tree: tree.close(), None)

    # ── The supervisor's side ────────────────────────────────────────────────────────────────────────────────────

    def on_child(self) -> None:
        """A child of ours has ended: an orphan, perhaps, and others may be new."""
        self._of_tree(lambda tree: tree.news(), None)

    def on_oom(self, now: float) -> None:
        """The kernel tells of an OOM; in its log it says of whom, a moment later."""
        self._log_at = now + _LOGGED_S

    def busy(self) -> bool:
        """Ends are there that have not been told yet."""
        return not self._of_tree(lambda tree: tree.settle(self._around.clock()), True)

    def tell_unreaped(self, now: float) -> None:
        """Of processes that ended unseen and that nobody has asked since."""
        self._of_tree(lambda tree: tree.unreaped(now), None)

    def names(self) -> dict[int, str]:
        """What everybody of the tree is called, by pid, as it is now."""
        return self._of_tree(self._named, {})

    def _named(self, tree: TreeWatch) -> dict[int, str]:
        tree.roster.look(self._around.clock())
        return tree.names()

    def heard_at(self, rank: int) -> float | None:  # whichever it is
        """The processes of a tree share the root's output."""
        return self.ranks.heard_at(ROOT)


def _with_tree(looked: Looked, tree: TreeWatch) -> Looked:
    dying, memory = tree.look()
    held = {number: told.held_bytes or 0 for number, told in (*looked.memory, *memory)}
    return looked.replace(
        dying=(*looked.dying, *dying),
        memory=(*looked.memory, *memory),
        state=looked.state.replace(ranks_bytes=sum(held.values())),
        processes=tree.picture(),
    )
