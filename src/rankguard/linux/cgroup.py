"""The control groups of one job: a memory group for each rank, so that the kernel's own counter proves an OOM kill, and
one group over all ranks that ends them in one stroke.

Not a cgroup manager: no limit is set, none of an existing group is touched, and nothing here raises. What cannot be
made is said in `JobGroups.missing` and the job goes on with less: a counter shared with others, no stroke.

Layout below our own group of each hierarchy (cgroup v1, cgroup2, or both at once):
  v1 memory      rankguard-RUN/rank-R   counters are not hierarchical there, so each rank's own group is read
  cgroup2        rankguard-RUN          `cgroup.kill` (5.14); with a memory controller also rankguard-RUN/rank-R
  v1 freezer     rankguard-RUN          only where cgroup2 cannot be written, with v1 pids beside it

Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/{memory,freezer-subsystem,pids}.rst.
Read next: `memory.py` (limits and usage of the same groups), `kmsg.py` (the kernel's other word on an OOM kill).
"""

import os

from rankguard.linux.files import read_text, write_text
from rankguard.linux.freezer import freeze_and_kill, members
from rankguard.linux.hierarchies import Group, below, counter, own_groups, processes, remove_group
from rankguard.model import OomCount

_INIT_CGROUP_NS = "cgroup:[4026531835]"  # include/linux/proc_ns.h, PROC_CGROUP_INIT_INO
_VMSTAT = "/proc/vmstat"


class JobGroups:
    """cgroups of one job: one memory group per rank below our own group, one job-wide group to end all in one stroke."""

    missing: list[str]
    """What could not be made, a sentence each."""
    kill_file: str | None
    """The `cgroup.kill` of the job, for another process that ends it when we are gone (v1: null)."""

    @classmethod
    def create(cls, run_id: str, nprocs: int, ours: frozenset[int] = frozenset()) -> "JobGroups":
        """Makes the job's groups; those of the ranks follow in `join_fds`. Never raises.

        `ours`: processes that may be moved into a group of their own. cgroup2 gives memory counters to children only
        of a group that holds no process itself, so without all of them in `ours` there are none for each rank.
        """
        return cls(f"rankguard-{run_id.replace('/', '_')}", nprocs, ours, own_groups())

    def __init__(self, name: str, nprocs: int, ours: frozenset[int], own: dict[str, Group]) -> None:
        self.missing, self.kill_file = [], None
        self._name, self._nprocs, self._own = name, nprocs, own
        self._jobs: dict[str, str] = {}  # directory of our own group → the job's directory below it
        # What `_enable_memory` changed: our own group, where we are now, the controllers.
        self._vacated: tuple[str, str | None, list[str]] | None = None
        self._ranks: str | None = None  # the directory below which each rank has a memory group
        self._kill_dir: str | None = None
        self._pids_max: str | None = None
        self._joined: list[str] = []
        self._said: set[str] = set()
        self._shared = _shared_counter(own)
        self._make_kill_group()
        self._make_memory_groups(ours)
        self._joined = [job for job in self._joined if job != self._ranks]  # the rank's own group lies below it
        self._start = self._shared_counters()
        self._before: dict[int, dict[str, tuple[int, bool]]] = {}

    @property
    def paths(self) -> list[str]:
        """All directories, deepest first, those of ranks that were not started yet among them: telling it once will do."""
        ranks = [f"{self._ranks}/rank-{rank}" for rank in range(self._nprocs)] if self._ranks else []
        home = self._vacated[1] if self._vacated else None
        return ranks + list(self._jobs.values()) + ([home] if home else [])

    def join_fds(self, rank: int) -> list[int]:
        """Files to which the forked child writes `b"0"` before it executes anything; the caller closes them.

        The child may ignore an error of that write: it then stays in our own group, and that one's counter is read.
        Counters are compared with what they are now, also when the rank is started again.
        """
        wanted = list(self._joined)
        if self._ranks:
            group = f"{self._ranks}/rank-{rank}"
            try:
                os.mkdir(group)
            except FileExistsError:
                pass
            except OSError as error:
                self._say_once("make", f"no memory group for rank {rank}: unable to make {group}: {error.strerror}")
            wanted += [group] if os.path.isdir(group) else []
        self._before[rank] = self._shared_counters() | self._rank_counters(rank)
        fds: list[int] = []
        for path in wanted:
            try:
                fds.append(os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
            except OSError as error:
                self._say_once("join", f"unable to put rank {rank} into {path}: {error.strerror}")
        return fds

    def oom_counts(self, rank: int) -> tuple[tuple[OomCount, ...], bool]:
        """The counters of OOM kills that rose since the rank's start, and whether one that would show it was readable.

        One source is asked, the closest: the rank's own group, else the group we are in (others count there too), else
        the whole machine's counter. The kernel counts before it sends the SIGKILL (`__oom_kill_process`), so a
        readable counter that stands still at the rank's end excludes an OOM kill. All of them count kills for any
        reason, also when the whole machine is out of memory (seen on 6.1), and are no number of processes: with
        `memory.oom.group` the first victim counts twice.
        """
        now, before = self._rank_counters(rank), self._before.get(rank, self._start)
        if not now or not self._joined_own_group(rank):
            now = {path: count for path, count in self._shared_counters().items() if path in before}
        rose = []
        for path, (value, shared) in now.items():
            old = before[path][0] if path in before else 0  # not seen before: a group that the rank made since
            if value > old:
                rose.append(OomCount(path=path, before=old, after=value, shared=shared))
        return tuple(rose), bool(now)

    def rank_of(self, cgroup_path: str) -> int | None:
        """The rank in whose memory group `cgroup_path` lies, as a kernel log line names it (`task_memcg`)."""
        own = self._own.get("memory") or self._own.get("v2")
        if self._ranks is None or own is None:
            return None
        inside = f"/{os.path.basename(self._ranks)}/rank-"
        start = cgroup_path.find(inside)
        if start < 0 or (_sees_whole_paths() and cgroup_path[:start] != own.name.rstrip("/")):
            return None
        digits = cgroup_path[start + len(inside) :].partition("/")[0]
        return int(digits) if digits.isdecimal() and int(digits) < self._nprocs else None

    @property
    def tells_ranks_apart(self) -> bool:
        """Each rank has a memory group of its own."""
        return self._ranks is not None

    def shared_counts(self) -> list[tuple[str, int]]:
        """The counter of OOM kills around the whole job as it stands: file (with the key, where that tells it) and value."""
        return [(path, value) for path, (value, _shared) in self._shared_counters().items()]

    def memory_group(self, rank: int) -> str | None:
        """The directory of a rank's own memory group; null where there is none."""
        return f"{self._ranks}/rank-{rank}" if self._ranks else None

    def directories(self, rank: int) -> tuple[str, ...]:
        """Groups that hold every process of a rank, wherever it went, and of nobody else where a rank is alone; one will do."""
        own = self.memory_group(rank)
        if self._nprocs == 1 and self._kill_dir is not None:
            return (self._kill_dir,)
        return (own,) if own is not None else ()

    @property
    def can_kill(self) -> bool:
        """`kill` will work."""
        return self._kill_dir is not None

    def kill(self) -> bool:
        """Orders the end of every process of the job, also of those that left their session and parent. Does not wait.

        A rank between its fork and its write to `join_fds` is not in the group yet: end the ranks by pidfd as well.
        """
        if self._kill_dir is None:
            return False
        if self.kill_file:
            return write_text(self.kill_file, "1") is None
        return freeze_and_kill(self._kill_dir)

    def forbid_forks(self) -> bool:
        """No process of the job can fork from now on (`pids.max` of the job's group), where that exists."""
        return self._pids_max is not None and write_text(self._pids_max, "0") is None

    def empty(self) -> bool | None:
        """No process of the job lives in its group (zombies do not count); null when there is no such group."""
        if self._kill_dir is None:
            return None
        populated = counter(f"{self._kill_dir}/cgroup.events", "populated")
        return not list(members(self._kill_dir)) if populated is None else populated == 0

    def remove(self) -> None:
        """Removes all groups, those that ranks made below them too. What still holds a process stays."""
        for job in self._jobs.values():
            for path in below(job):
                remove_group(path)
        self._return_home()

    # ── Making ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _make_kill_group(self) -> None:
        why = []
        for hierarchy, switches in (("v2", ("cgroup.kill", "cgroup.freeze")), ("freezer", ("freezer.state",))):
            job, reason = self._make_job(hierarchy)
            switch = next((s for s in switches if job and os.access(f"{job}/{s}", os.W_OK)), None)
            if job and switch:
                self._kill_dir = job
                self._joined.append(job)
                self.kill_file = f"{job}/{switch}" if switch == "cgroup.kill" else None
                break
            why.append(reason or f"{job} has neither {' nor '.join(switches)}")
        else:
            self.missing.append(f"no group that ends all ranks in one stroke: {'; '.join(why)}")
        if (
            self.kill_file is None and "pids" in self._own
        ):  # cgroup.kill leaves no gap that a fork could use; the rest does
            job, _ = self._make_job("pids")
            if job and os.access(f"{job}/pids.max", os.W_OK):
                self._pids_max = f"{job}/pids.max"
                self._joined += [job] if job not in self._joined else []

    def _make_memory_groups(self, ours: frozenset[int]) -> None:
        reason: str | None
        if "memory" in self._own:
            # Before 5.11 a group without use_hierarchy does not bind its children: ours would escape its limit.
            hierarchical = read_text(f"{self._own['memory'].path}/memory.use_hierarchy")
            if hierarchical and hierarchical.strip() == "0":
                reason = f"use_hierarchy of {self._own['memory'].path} is 0, so ranks below it would escape its limit"
            else:
                self._ranks, reason = self._make_job("memory")
        else:
            job, reason = self._make_job("v2")
            reason = reason or (self._enable_memory(self._own["v2"].path, job, ours) if job else None)
            if job and reason is None:
                self._ranks = job
                if os.access(f"{job}/pids.max", os.W_OK):
                    self._pids_max = f"{job}/pids.max"
        if reason:
            self.missing.append(
                f"no memory group for each rank, so OOM kills are counted together with others': {reason}"
            )

    def made(self) -> list[str]:
        """What there is, in words; `missing` is what there is not."""
        told = [f"a memory group for each rank in {self._ranks}"] if self._ranks else []
        how = "cgroup.kill" if self.kill_file else "the group's list of processes"
        return told + ([f"all ranks can be ended in one stroke: {how} of {self._kill_dir}"] if self._kill_dir else [])

    def _make_job(self, hierarchy: str) -> tuple[str | None, str | None]:
        """The job's directory in a hierarchy, made once, or why there is none."""
        own = self._own.get(hierarchy)
        if own is None:
            return (
                None,
                f"no {'cgroup2' if hierarchy == 'v2' else f'v1 {hierarchy}'} hierarchy is mounted where we can see it",
            )
        if own.path in self._jobs:
            return self._jobs[own.path], None
        if hierarchy == "v2" and not os.access(f"{own.path}/cgroup.procs", os.W_OK):
            return (
                None,
                f"{own.path}/cgroup.procs is not writable",
            )  # needed in the common ancestor of source and target
        for attempt in range(10):
            job = f"{own.path}/{self._name}" + (f".{attempt}" if attempt else "")
            try:
                os.mkdir(job)
            except FileExistsError:
                continue
            except OSError as error:
                return None, f"unable to make {job}: {error.strerror}"
            self._jobs[own.path] = job
            return job, None
        return None, f"{own.path}/{self._name} exists already"

    def _enable_memory(self, own: str, job: str, ours: frozenset[int]) -> str | None:
        """Lets the job's ranks have memory groups on cgroup2; the reason why not, else null."""
        offered = (read_text(f"{own}/cgroup.controllers") or "").split()
        if "memory" not in offered:
            return f"the memory controller is not available in {own}"
        if "memory" not in (read_text(f"{own}/cgroup.subtree_control") or "").split():
            home = None
            if os.path.exists(f"{own}/cgroup.type"):  # only the root group lacks it, and may hold processes as well
                others = set(processes(own)) - ours
                if others:
                    return f"{own} holds processes that are not ours ({len(others)}), so cgroup2 allows none"
                home = f"{own}/{os.path.basename(job)}.sup"  # beside the job's group: what ends that must not end us
                try:
                    os.mkdir(home)
                except OSError as error:
                    return f"unable to make {home}: {error.strerror}"
            self._vacated = (own, home, [c for c in ("memory", "pids") if c in offered])
            for pid in processes(own) if home else ():
                write_text(f"{home}/cgroup.procs", str(pid))
            if failed := write_text(f"{own}/cgroup.subtree_control", "+memory"):
                self._return_home()
                return f"unable to enable the memory controller in {own}: {failed.strerror}"
            write_text(f"{own}/cgroup.subtree_control", "+pids")
        failed = write_text(f"{job}/cgroup.subtree_control", "+memory")
        return f"unable to enable the memory controller in {job}: {failed.strerror}" if failed else None

    def _return_home(self) -> None:
        """Undoes `_enable_memory`. Another job that relies on the controller keeps it: the kernel answers EBUSY."""
        if self._vacated is None:
            return
        own, home, controllers = self._vacated
        for controller in controllers:
            write_text(f"{own}/cgroup.subtree_control", f"-{controller}")
        for pid in processes(home) if home else ():
            write_text(f"{own}/cgroup.procs", str(pid))
        remove_group(home or "")
        self._vacated = None

    def _joined_own_group(self, rank: int) -> bool:
        """A group whose peak usage is 0 never had a process. (v2 has memory.peak from 5.19 on; unknown counts as joined.)"""
        file = "memory.max_usage_in_bytes" if "memory" in self._own else "memory.peak"
        return (read_text(f"{self._ranks}/rank-{rank}/{file}") or "1").strip() != "0"

    def _say_once(self, what: str, sentence: str) -> None:
        """What fails for one rank fails for all of them."""
        if what not in self._said:
            self._said.add(what)
            self.missing.append(sentence)

    def _rank_counters(self, rank: int) -> dict[str, tuple[int, bool]]:
        """The counters of the rank's own group and of those made below it: file → (value, shared)."""
        group, file = f"{self._ranks}/rank-{rank}", "memory.oom_control" if "memory" in self._own else "memory.events"
        value = counter(f"{group}/{file}") if self._ranks else None
        if value is None:
            return {}
        found = {f"{group}/{file}": (value, False)}
        # A directory's links tell how many it holds, so the usual rank, which makes no groups, costs one stat.
        if file == "memory.oom_control" and os.stat(group).st_nlink > 2:
            found |= {f"{path}/{file}": (counter(f"{path}/{file}") or 0, False) for path in below(group)}
        return found

    def _shared_counters(self) -> dict[str, tuple[int, bool]]:
        """The counter of the group that we are in ourselves, else that of the machine."""
        for path in (self._shared, _VMSTAT):
            value = counter(path) if path else None
            if path and value is not None:
                return {path if path != _VMSTAT else f"{_VMSTAT} oom_kill": (value, True)}
        return {}


def _shared_counter(own: dict[str, Group]) -> str | None:
    """The file that counts OOM kills in the group that we are in: on cgroup2 the closest with a memory controller."""
    if "memory" in own:
        return f"{own['memory'].path}/memory.oom_control"
    paths = own["v2"].upwards() if "v2" in own else ()
    return next((f"{path}/memory.events" for path in paths if os.path.exists(f"{path}/memory.events")), None)


def _sees_whole_paths() -> bool:
    """Names of groups in our view are the kernel's own: we are in the initial cgroup namespace."""
    try:
        return os.readlink("/proc/self/ns/cgroup") == _INIT_CGROUP_NS
    except OSError:
        return False
