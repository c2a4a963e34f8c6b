"""What the kernel tells of processes that we only watch: who is dying, who holds what memory, who was killed for it.

No control group is made for other people's processes, so the counters of OOM kills are shared ones: that of our own
group for processes in it, else the whole machine's. The kernel log, where it can be read, names the process itself.

Read next: `linux/cgroup.py`, `linux/kmsg.py`, `diagnosis/memory_story.py` (what is concluded from these).
"""

import select
from collections.abc import Iterable, Sequence
from time import monotonic

from rankguard.adopted.process import Adopted, have_pidfds
from rankguard.facts import KernelKilled, Looked
from rankguard.linux.files import read_text
from rankguard.linux.glance import glance
from rankguard.linux.hierarchies import counter, own_groups, parse_groups
from rankguard.linux.kmsg import KernelLog, in_init_pid_namespace
from rankguard.linux.memory import MemoryDomain
from rankguard.model import Memory, MemoryState, OomCount

_VMSTAT = "/proc/vmstat"


class Witnesses:
    """Made before anything fails: all that can be found out in advance is, so that a look costs little."""

    def __init__(self) -> None:
        groups = own_groups() if have_pidfds() else {}
        self._domain = MemoryDomain(groups) if have_pidfds() else None
        self._log = KernelLog()
        self._same_pids = in_init_pid_namespace()
        # Of our own group: its name, the file of its counter, whether that counts for the groups below as well.
        self._own: tuple[str, str, bool] | None = None
        if "memory" in groups:
            self._own = groups["memory"].name, f"{groups['memory'].path}/memory.oom_control", False
        elif "v2" in groups:
            files = (f"{path}/memory.events" for path in groups["v2"].upwards())
            if (file := next((file for file in files if counter(file) is not None), None)) is not None:
                self._own = groups["v2"].name, file, True
        self._mountinfo = read_text("/proc/self/mountinfo") or ""
        self._counters: dict[str, str | None] = {}  # `/proc/PID/cgroup` → the file that counts for it
        self._before: dict[int, tuple[str, int]] = {}  # rank → the file that counts its OOM kills, and the count then

    def add(self, process: Adopted) -> None:
        """From now on a risen counter is about this process too."""
        for path in (self._counter_of(process.pid), _VMSTAT):
            if path is not None and (count := counter(path)) is not None:
                self._before[process.rank] = path, count
                return

    def _counter_of(self, pid: int) -> str | None:
        if self._own is None:
            return None
        text = read_text(f"/proc/{pid}/cgroup") or ""
        if text not in self._counters:  # most are in the same groups
            group = parse_groups(text, self._mountinfo).get("v2" if self._own[2] else "memory")
            self._counters[text] = self._own[1] if group is not None and self._counts(group.name) else None
        return self._counters[text]

    def _counts(self, group: str | None) -> bool:
        """A kill in this group shows in our group's counter."""
        if self._own is None or group is None:
            return False
        name, _file, below = self._own
        return group == name or (below and group.startswith(name.rstrip("/") + "/"))

    def oom(self, process: Adopted) -> tuple[tuple[OomCount, ...], bool]:
        """The shared counter if it rose since `add`, and whether one that would show a kill could be read."""
        if process.rank not in self._before or process.late:
            return (), False
        path, before = self._before[process.rank]
        now = counter(path)
        if now is None:
            return (), False
        shown = f"{path} oom_kill" if path == _VMSTAT else path
        return ((OomCount(path=shown, before=before, after=now, shared=True),) if now > before else ()), True

    def kills(self, now: float, processes: Iterable[Adopted]) -> list[KernelKilled]:
        """OOM kills in the kernel log since the last call: of these processes, and others that our counters count too.

        Where the log's pids are not ours (a container), nothing of it can be told to be about these processes.
        """
        records = self._log.drain()
        if not records or not self._same_pids:
            return []
        ranks = {each.pid: each.rank for each in processes}
        kills = [KernelKilled(now, ranks.get(record.pid), record) for record in records]
        whole_machine = any(path == _VMSTAT for path, _count in self._before.values())
        return [kill for kill in kills if kill.rank is not None or whole_machine or self._counts(kill.record.cgroup)]

    def look(self, processes: Sequence[Adopted]) -> Looked:
        """Every process that is not known to have ended: is it dying, and what memory does it hold?"""
        if not have_pidfds():
            return Looked(monotonic())
        dying: dict[int, str] = {}
        held: list[tuple[int, Memory]] = []
        ended = select.poll()
        for each in processes:
            how, memory = glance(each.pid)
            if how is not None:
                dying[each.rank] = how
            if memory.rss_bytes is not None:
                held.append((each.rank, memory))
            ended.register(each.pidfd, select.POLLIN)
        # A pid may have come to mean another process since: what its pidfd says now holds for what was read before.
        readable = {fd for fd, _event in ended.poll(0)}
        for each in processes:
            if each.pidfd in readable:
                dying.setdefault(each.rank, "zombie")
        live = tuple((rank, memory) for rank, memory in held if dying.get(rank) != "zombie")
        total = sum(memory.rss_bytes or 0 for _rank, memory in live)
        return Looked(monotonic(), tuple(sorted(dying.items())), live, self.state(total))

    def state(self, ranks_bytes: int | None = None) -> MemoryState:
        """The memory that we live in ourselves."""
        return MemoryState(ranks_bytes=ranks_bytes) if self._domain is None else self._domain.state(ranks_bytes)

    def close(self) -> None:
        """No further news."""
        self._log.close()
