"""The processes of an engine that is watched as it is, as facts: who takes part, and how each of them ended.

One process is launched (or attached to), the root. Below it a process takes part (`Joined`), with the next free number,
when a rule says that the engine cannot lose it, or when several report readiness, each for itself; of any other it is told
(`Perished`) when it ended by a signal or with a code that is not 0. So what an engine starts and takes back by the hundred
is no fact.

Of those that are alike in one line of descent the topmost takes part: what it forks has the same title and environment.
An orphan that looks like a member is taken for a fork of that member, dead or alive.
Not here: what a title means (`diagnosis/roles.py`, given as `recognise`), what follows of an end (`core/`). Read next:
`../linux/roster.py`.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from selectors import BaseSelector
from typing import Protocol

from rankguard.facts import Exited, Joined, Perished
from rankguard.launchers.allowance import Allowance
from rankguard.launchers.contract import Emit
from rankguard.launchers.limits import raise_towards
from rankguard.linux.census import Census, stat_of
from rankguard.linux.foreign import UNKNOWN
from rankguard.linux.glance import glance
from rankguard.linux.roster import Entry, Roster, ending_of_zombie
from rankguard.linux.tree import children
from rankguard.model import Ending, Memory, OomCount, OomRecord, Process
from rankguard.record import Record

NODES = 64
"""Processes of one picture."""
_SIGNALS, _EXITS = (256, 5.0), (128, 30.0)
"""Processes that were not rank-like and ended badly: an engine may run any number of tools that fail, for weeks."""
_ASKED = (1, 2, 13, 15)
"""SIGHUP, SIGINT, SIGPIPE, SIGTERM: by these processes are ended on purpose, or because nobody reads what they say."""
_ANYBODY = ("none", "multiprocessing")
"""Rules that do not say what a process is for."""
_LASTING_S = 5.0
"""What has run for so long is more than a command that answers by its status, as `grep` does."""
_PAST = 1024
_UNSURE = 64
KILLED = Ending("signal", signal="SIGKILL", number=9)
_OPEN_FILES = 8192
"""Our own limit, if we may: each process of the tree takes one. (Ranks have theirs back: `linux/spawn.py`.)"""
_SAME_KILL_S = 1.0
"""Members that end within so many seconds of a counter's rise may all have been killed by what it counted."""

Above = tuple[str, Mapping[str, str]] | None


class Recognised(Protocol):
    """`diagnosis.roles.Role`."""

    @property
    def role(self) -> str: ...
    @property
    def index(self) -> int | None: ...
    @property
    def ranklike(self) -> bool: ...
    @property
    def rule(self) -> str: ...
    @property
    def group(self) -> str | None: ...
    @property
    def may_end(self) -> bool: ...


class Outlook(Record):
    """What the watch is given by the supervisor. `variables`: all that is ever looked at of a process's environment."""

    root: int
    recognise: Callable[[str, Mapping[str, str], Above], Recognised]
    """`diagnosis.roles.role_of` with the job's rules."""
    name_of: Callable[[str], str]
    variables: tuple[str, ...]
    oom: Callable[[], tuple[tuple[OomCount, ...], bool]]
    """The counters of OOM kills that count the tree's, as `JobGroups.oom_counts` tells them."""
    kernel: Callable[[float, int | None], None] = lambda _now, _number: None
    """Reads on what the kernel has said (`KernelNews.take`), which finds members in `TreeWatch.by_pid`."""
    redact: Callable[[str], str] = str
    note: Callable[[str], None] = lambda _: None
    budget: int | None = None
    """Pidfds that may be held; null for what the limit on open files allows."""


class Member:
    """A process that has a number. `started`: it was first seen then (`kernelnews.py` asks for an interval)."""

    __slots__ = ("ending", "group", "joined", "number", "process", "started")

    def __init__(self, process: Entry, joined: Joined, group: str | None) -> None:
        self.process, self.joined, self.number = process, joined, joined.rank
        self.started = (process.first_seen, process.first_seen)
        self.group = group
        self.ending: Ending | None = None


class TreeWatch:
    """Watches the tree below one process. Give its `wake` and `next_wake` to the loop."""

    def __init__(self, around: Outlook, selector: BaseSelector, census: Census, emit: Emit) -> None:
        self._emit, self._root, self._around = emit, around.root, around
        self.by_pid: dict[int, Member] = {}
        """Members that have not ended."""
        self.members: list[Member] = []
        """All that ever were, in the order of their numbers from 1; the root is number 0."""
        self._roles: dict[int, Recognised] = {}
        self._known: dict[tuple[object, ...], Recognised] = {}
        self._killed: set[int] = set()
        """Of whom the kernel's log tells that it killed them, before their end was seen."""
        self._ending: int | None = None
        """Whose end is being looked into."""
        self._unsure: dict[int, tuple[Entry, Recognised]] = {}
        """Those of whom nobody knows how they ended, the last of them."""
        self._past: dict[int, tuple[str, Mapping[str, str]]] = {}
        self._ready: set[int] = set()
        self._signals, self._exits = Allowance(*_SIGNALS), Allowance(*_EXITS)
        self._counted: dict[str, int] = {}
        self._counts_until: float | None = None
        self._seen: tuple[OomCount, ...] = ()
        self._root_ended: Ending | None = None
        raise_towards(_OPEN_FILES)
        self.roster = Roster(
            selector,
            census,
            on_seen=self._consider,
            on_title=self._consider,
            on_end=self._on_end,
            variables=around.variables,
            budget=around.budget,
            note=around.note,
        )
        self._root_title = self.roster.describe(around.root)[0]

    # ── The loop's side ──────────────────────────────────────────────────────────────────────────────────────────

    def attach(self, now: float) -> bool:
        """The root is not ours either: watch it, too, as number 0. False when it is gone."""
        return self.roster.admit(self._root, now) is not None

    def next_wake(self) -> float:
        """When `wake` wants to be called."""
        return self.roster.next_wake()

    def wake(self, now: float) -> None:
        """Do what is due."""
        self.roster.wake(now)

    def news(self) -> None:
        """A child of ours has ended, a message came: somebody may be new."""
        self.roster.news()

    def settle(self, now: float) -> bool:
        """Tell the ends that are there already; false while how somebody ended is still being learnt."""
        return self.roster.settle(now)

    def close(self) -> None:
        """Let go of everybody."""
        self.roster.close()

    # ── Who takes part ───────────────────────────────────────────────────────────────────────────────────────────

    def ready(self, pid: int, now: float) -> None:
        """A process reported readiness. From the second on, all that did are ranks."""
        if pid == self._root:
            return
        if pid not in self.roster.processes:
            self.roster.look(now)
        process = self.roster.processes.get(pid)
        if process is None:  # it sent its word and left, as `systemd-notify` does
            return
        self._ready.add(pid)
        together = [self.roster.processes[each] for each in self._ready if each in self.roster.processes]
        if len(together) > 1:
            for each in sorted(together, key=lambda each: (each.started, each.pid)):
                if each.pid not in self.by_pid:
                    self._take_in(each, now, because="reported readiness, as others did")

    def _consider(self, process: Entry, now: float) -> None:
        if process.pid == self._root:
            return
        role = self._role_of(process)
        if process.pid in self.by_pid:
            self._rename(self.by_pid[process.pid], role, now)
            return
        if role.ranklike and (parent := self.roster.processes.get(process.origin)) is not None:
            # It may have the title of its parent, whose own new title we have not seen yet.
            self.roster.refresh(parent, now)
            role = self._role_of(process)
        self._roles[process.pid] = role
        if role.ranklike and not self._is_fork_of_member(process, role):
            self._take_in(process, now)

    def _rename(self, member: Member, role: Recognised, now: float) -> None:
        """VLLM's workers are `Worker` while they start, and `Worker_TP1` from then on."""
        was, name = member.joined, self._numbered(member.process.title, role)
        if role.ranklike and (name, role.role, role.index) != (was.name, was.role, was.index):
            member.joined = was.replace(
                at=now, name=name, role=role.role, index=role.index, rule=role.rule, formerly=was.name
            )
            member.group = role.group
            self._emit(member.joined)

    def _role_of(self, process: Entry) -> Recognised:
        """By the rules; the same command again and again is looked up."""
        above = self._above(process)
        title, env = ("", {}) if above is None else above
        key = (process.title, *process.env.items(), title, *env.items(), above is None)
        if key not in self._known:
            if len(self._known) >= _PAST:
                self._known.clear()
            self._known[key] = self._around.recognise(process.title, process.env, above)
        return self._known[key]

    def _above(self, process: Entry) -> Above:
        """What its parent is, or was."""
        parent = self.roster.processes.get(process.origin)
        if parent is not None:
            return parent.title, parent.env
        if process.origin == self._root:
            return self.roster.describe(self._root)
        return self._past.get(process.origin)

    def _is_fork_of_member(self, process: Entry, role: Recognised) -> bool:
        """Its parent is not known, and there is a member that looks the same."""
        if process.origin == self._root or self._above(process) is not None:
            return False
        key = (role.rule, role.role, role.index, role.group)
        return any((each.joined.rule, each.joined.role, each.joined.index, each.group) == key for each in self.members)

    def _take_in(self, process: Entry, now: float, because: str | None = None) -> None:
        role = self._roles[process.pid]
        joined = Joined(
            now,
            len(self.members) + 1,
            process.pid,
            self._numbered(process.title, role),
            role.role,
            role.index,
            rule=because or role.rule,
            parent=process.origin,
            may_end=role.may_end,
        )
        self.roster.keep(process)
        self.by_pid[process.pid] = member = Member(process, joined, role.group)
        self.members.append(member)
        self._emit(joined)

    def _named(self, title: str) -> str:
        return self._around.name_of(self._around.redact(title))

    def _numbered(self, title: str, role: Recognised) -> str:
        """`rank 2 (python train.py)`: a command line does not tell it from its like, a title does."""
        name = self._named(title)
        return name if role.index is None or name == title else f"{role.role} {role.index} ({name})"

    # ── Who ended ────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_end(self, process: Entry, ending: Ending, now: float) -> None:
        if process.pid == self._root:
            self._root_ended = ending
            self._emit(self._exited(now, 0, ending))
            return
        if process.pid not in self.by_pid:
            self._consider_last_name(process, now)
        member, role = self.by_pid.get(process.pid), self._roles.get(process.pid)
        self._remember(process)
        if ending.code != 0:
            self._ending = process.pid
            self._around.kernel(now, ending.number)
            self._ending = None
        if ending == UNKNOWN and process.pid in self._killed:
            ending = KILLED
        self._killed.discard(process.pid)
        if member is not None:
            member.ending = ending
            self._emit(self._exited(now, member.number, ending))
            del self.by_pid[process.pid]
        elif role is not None and _abnormal(ending) and self._may_tell(ending, now):
            self._tell_perished(process, role, ending, now)
        elif role is not None and ending == UNKNOWN:
            self._unsure[process.pid] = process, role
            if len(self._unsure) > _UNSURE:
                del self._unsure[next(iter(self._unsure))]

    def _consider_last_name(self, process: Entry, now: float) -> None:
        """It may have taken a title just now that we have not seen: the first 15 bytes of it are its name, as a rule."""
        known = self._roles.get(process.pid)
        if known is None or known.rule not in _ANYBODY or process.title.startswith(process.comm):
            return
        title, process.title = process.title, process.comm
        if self._role_of(process).rule in _ANYBODY:
            process.title = title
        else:
            self._consider(process, now)

    def _tell_perished(self, process: Entry, role: Recognised, ending: Ending, now: float) -> None:
        rose, readable = self._rose(now)
        name, loud = self._named(process.title), _loud(ending, role, now - process.first_seen)
        self._emit(
            Perished(now, process.pid, name, ending, role.role, role.index, process.origin, rose, readable, loud)
        )

    def killed(self, now: float, record: OomRecord, *, ours: bool) -> None:
        """The kernel's log tells whom it killed for memory, and where a status went with the parent it alone tells how.

        `ours`: it was in the group of the tree; one that had come and gone unseen is told, too.
        """
        pid = record.pid
        if pid in self.roster.processes or pid == self._ending:
            self._killed.add(pid)
        elif (unsure := self._unsure.pop(pid, None)) is not None:
            self._tell_perished(*unsure, KILLED, now)
        elif ours and pid not in self._past and pid != self._root:
            self._keep_past(pid, record.name, {})
            rose, readable = self._rose(now)
            self._emit(Perished(now, pid, self._named(record.name), KILLED, oom=rose, oom_readable=readable))

    def unreaped(self, now: float) -> None:
        """Tell of those that came and went between two looks, badly, and whom their parent has not asked since: an engine
        that waits for children which never began does not know that it waits in vain.
        """
        for parent in (self._root, *self.roster.processes):
            for pid in children(parent):
                stat = None if pid in self.roster.processes or pid in self._past else stat_of(pid)
                ending = ending_of_zombie(pid) if stat is not None and stat.state == "Z" else None
                if stat is None or ending is None or not _abnormal(ending) or not self._may_tell(ending, now):
                    continue
                self._keep_past(pid, stat.comm, {})
                rose, readable = self._rose(now)
                name = self._named(stat.comm)
                self._emit(Perished(now, pid, name, ending, parent=parent, oom=rose, oom_readable=readable, loud=True))

    def _may_tell(self, ending: Ending, now: float) -> bool:
        """Signals are told of longer than exits: tools end with 1 by the thousand, and nobody is killed as often."""
        allowance = self._signals if ending.kind == "signal" else self._exits
        told = allowance.take(now)
        if not told and self._signals.refused + self._exits.refused == 1:
            self._around.note("many processes that are not rank-like end badly: not all of them are told")
        return told

    def _remember(self, process: Entry) -> None:
        """For its orphans: what they look like may be what it looked like."""
        self._roles.pop(process.pid, None)
        self._ready.discard(process.pid)
        self._keep_past(process.pid, process.title, process.env)

    def _keep_past(self, pid: int, title: str, env: Mapping[str, str]) -> None:
        self._past.pop(pid, None)
        self._past[pid] = title, env
        if len(self._past) > _PAST:
            del self._past[next(iter(self._past))]

    def _exited(self, now: float, rank: int, ending: Ending) -> Exited:
        rose, readable = self._rose(now)
        return Exited(now, rank, ending, oom=rose, oom_readable=readable, log=None)

    def _rose(self, now: float) -> tuple[tuple[OomCount, ...], bool]:
        """Counters that rose since the last end for which any did. The whole tree counts there: it is shared."""
        counts, readable = self._around.oom()
        if self._counts_until is not None and now > self._counts_until:
            self._counts_until = None
            self._counted = {count.path: count.after for count in self._seen}
        rose = []
        for count in counts:
            before = max(count.before, self._counted.get(count.path, count.before))
            if count.after > before:
                rose.append(count.replace(before=before, shared=True))
        if rose:
            self._seen = counts
            if self._counts_until is None:
                self._counts_until = now + _SAME_KILL_S
        return tuple(rose), readable

    def names(self) -> dict[int, str]:
        """What everybody is called who is known to live, by pid."""
        named = {pid: self._named(process.title) for pid, process in self.roster.processes.items()}
        members = {pid: member.joined.name for pid, member in self.by_pid.items()}
        return {self._root: self._named(self.roster.describe(self._root)[0])} | named | members

    # ── Looks ────────────────────────────────────────────────────────────────────────────────────────────────────

    def dying(self, pids: Iterable[int]) -> dict[int, str]:
        """Which of them are on their way out, and what shows it (`linux/glance.py`)."""
        told = ((pid, glance(pid)[0]) for pid in pids)
        return {pid: how for pid, how in told if how is not None}

    def look(self) -> tuple[tuple[tuple[int, str], ...], tuple[tuple[int, Memory], ...]]:
        """`dying` and `memory` of a `Looked`, of the rank-like that have not ended."""
        dying: list[tuple[int, str]] = []
        held: list[tuple[int, Memory]] = []
        for member in self.by_pid.values():
            how, memory = glance(member.process.pid)
            if how is not None:
                dying.append((member.number, how))
            if memory.rss_bytes is not None:
                held.append((member.number, memory))
        return tuple(dying), tuple(held)

    def picture(self, limit: int = NODES) -> tuple[Process, ...]:
        """The tree: its root, the dead and the rank-like with those between them and the root, then the oldest of the rest.

        Parents stand before their children, as far as they are there.
        """
        alive = self.roster.processes
        dead = {each.process.pid: each for each in self.members if each.ending and each.process.pid not in alive}
        rest = sorted(alive.values(), key=lambda process: (process.started, process.pid))
        chosen: dict[int, None] = {self._root: None}
        parents: dict[int, int] = {}
        for pid in (*dead, *self.by_pid, *(process.pid for process in rest)):
            if len(chosen) >= limit:
                break
            line = []
            above = pid
            while above not in chosen and (above in alive or above in dead) and above not in line:
                line.append(above)
                parents[above] = self._parent(alive[above], dead) if above in alive else dead[above].process.ppid
                above = parents[above]
            if len(chosen) + len(line) <= limit:
                chosen.update(dict.fromkeys(reversed(line)))
        return tuple(self._drawn(pid, parents.get(pid, 0), dead.get(pid)) for pid in chosen)

    def _parent(self, process: Entry, dead: Container[int]) -> int:
        """As it is now; of the orphan of the root or of a member, that one."""
        stat = stat_of(process.pid)
        if stat is not None and stat.started == process.started:
            process.ppid = stat.ppid
        is_orphan = process.ppid != self._root and process.ppid not in self.roster.processes
        return (
            process.origin if is_orphan and (process.origin in dead or process.origin == self._root) else process.ppid
        )

    def _drawn(self, pid: int, parent: int, dead: Member | None) -> Process:
        if pid == self._root:
            stat = stat_of(pid)
            name = self._named(self.roster.describe(pid)[0] or self._root_title) or "the root"
            return Process(pid, 0 if stat is None else stat.ppid, name, "root", ending=self._root_ended)
        member = dead or self.by_pid.get(pid)
        if member is not None:
            told = member.joined
            return Process(pid, parent, told.name, told.role, told.index, member.ending)
        process, role = self.roster.processes[pid], self._roles[pid]
        return Process(
            pid, parent, self._named(process.title), None if role.role == "process" else role.role, role.index
        )


def _abnormal(ending: Ending) -> bool:
    return ending.kind == "signal" or ending.code not in (0, None)


def _loud(ending: Ending, role: Recognised, lived_s: float) -> bool:
    """Worth a word at once: a crash or a SIGKILL always, a code where it is not an answer to whoever asked."""
    if ending.kind == "signal":
        return ending.number not in _ASKED
    return role.rule not in ("tool", "compiler") and lived_s > _LASTING_S
