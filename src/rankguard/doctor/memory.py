"""Checks of what can be known of memory and OOM kills: control groups, counters, the kernel log, limits, swap."""

import os

from rankguard.doctor.check import Answer, Check, Machine, gib, limited, missing, ok
from rankguard.linux.cgroup import JobGroups
from rankguard.linux.files import read_text
from rankguard.linux.hierarchies import counter, own_groups
from rankguard.linux.kmsg import KernelLog
from rankguard.linux.memory import ADDRESS_SPACE, HOST, MemoryDomain, meminfo

_DELEGATE = (
    "systemd-run --user --scope -p Delegate=yes rankguard run …; in a container a writable /sys/fs/cgroup"
    " (privileged, podman --security-opt unmask=/sys/fs/cgroup, containerd cgroup_writable)"
)


def _version(_machine: Machine) -> Answer:
    groups = own_groups()
    v1 = sorted(key for key in groups if key != "v2")
    if not groups:
        return limited(
            "no control group hierarchy is mounted where we can see it",
            "limits of the memory cannot be found, and an OOM kill is `likely` at most",
            "mount cgroup2 at /sys/fs/cgroup (read-only is enough to read limits and counters)",
        )
    where = {key: groups[key].path for key in ("v2", "memory", "freezer") if key in groups}
    kind = "v2" if not v1 else "v1" if "v2" not in groups else "v1 beside v2"
    names = ", ".join(f"{groups[key].name} ({key})" for key in where)
    return ok(f"{kind}; we are in {names}", groups=where)


def _job_groups(machine: Machine) -> tuple[JobGroups, list[str]]:
    """The groups of a job of two ranks, made as `run` makes them, and what could not be."""
    made = JobGroups.create(f"doctor-{machine.pid}", 2, frozenset({machine.pid, os.getpid()}))
    for fd in made.join_fds(0):
        os.close(fd)
    return made, made.missing


def _rank_groups(machine: Machine) -> Answer:
    """Both abilities of a job's groups are asked of one set of groups: two at a time would be in each other's way."""
    made, why = _job_groups(machine)
    try:
        apart, stroke = made.tells_ranks_apart, made.kill_file or made.can_kill
        counts, readable = made.oom_counts(0)
    finally:
        made.remove()
    reasons = "; ".join(why)
    if apart and stroke and readable and not counts:
        how = "cgroup.kill" if made.kill_file else "freeze, kill, thaw"
        return ok(f"each rank gets a memory group of its own, and all end in one stroke ({how})")
    if apart:
        return limited(
            f"each rank gets a memory group; {reasons}",
            "the end of a job is proved by looking through its tree, which a fork storm can outrun for a while",
            _DELEGATE,
        )
    return limited(
        reasons or "no memory group for each rank",
        "an OOM kill is counted together with others': `likely` instead of `proven`, unless the kernel log can be read"
        + ("" if stroke else "; there is no stroke that ends all ranks at once"),
        _DELEGATE,
    )


def _oom_counter(_machine: Machine) -> Answer:
    groups = own_groups()
    near = [f"{groups['memory'].path}/memory.oom_control"] if "memory" in groups else []
    near += [f"{path}/memory.events" for path in (groups["v2"].upwards() if "v2" in groups else ())]
    for path in [*near, "/proc/vmstat"]:
        value = counter(path)
        if value is not None:
            return ok(f"oom_kill of {path} is {value}", path=path, value=value)
    return missing(
        "no counter of OOM kills can be read",
        "a SIGKILL cannot be told from an OOM kill: `killed` is `likely` at most",
        "mount cgroup v1 memory or cgroup2, or a kernel of 4.13 or newer (oom_kill in /proc/vmstat)",
    )


def _oom_group(_machine: Machine) -> Answer:
    groups = own_groups()
    if "v2" not in groups:
        return ok("no cgroup2 here")
    for path in groups["v2"].upwards():
        if (read_text(f"{path}/memory.oom.group") or "").strip() == "1":
            return limited(
                f"memory.oom.group of {path} is 1",
                "an OOM kill ends everything in that group, rankguard included: no report, only what the journal holds",
                "kubelet: singleProcessOOMKill: true; or a writable cgroup, where ranks get groups of their own;"
                " keep --run-dir on a volume that outlives the container",
            )
    return ok("an OOM kill ends one process")


def _kernel_log(_machine: Machine) -> Answer:
    log = KernelLog()
    if log.readable:
        return ok("/dev/kmsg can be read: OOM kills come with pid, size and group")
    restricted = (read_text("/proc/sys/kernel/dmesg_restrict") or "").strip() == "1"
    return limited(
        (log.why_not or "it cannot be read") + (" (kernel.dmesg_restrict = 1)" if restricted else ""),
        "an OOM kill is proven by counters of a rank's own group only, and has no size; GPU faults (Xid) are not seen",
        "sysctl kernel.dmesg_restrict=0, or CAP_SYSLOG; docker run --device /dev/kmsg --cap-add SYSLOG",
    )


def _limit(machine: Machine) -> Answer:
    domain = MemoryDomain()
    limits = [limit for limit in domain.limits if limit.source != ADDRESS_SPACE]
    if not limits:
        return missing(
            "no limit can be read", "`memory` is null in a verdict, and no hint can say how much is needed",
            "mount /proc and the control groups",
        )  # fmt: skip
    state = domain.state()
    each = [{"bytes": limit.bytes, "source": limit.source} for limit in limits]
    total, used = limits[0].bytes, state.used_bytes if domain.limits[0] is limits[0] else None
    free = f", {gib(max(0, total - used + (state.cache_bytes or 0)))} of it free" if used is not None else ""
    found = f"{gib(total)} ({limits[0].source}){free}"
    if used is not None and total - used + (state.cache_bytes or 0) < machine.ranks * (64 << 20):
        return limited(
            found, f"{machine.ranks} ranks of plain Python hardly fit", "free memory, or raise the limit", limits=each
        )
    return ok(found if limits[0].source != HOST else f"{gib(total)}, the machine's own{free}", limits=each)


def _swap(_machine: Machine) -> Answer:
    fields = dict(line.split(":", 1) for line in (read_text("/proc/meminfo") or "").splitlines() if ":" in line)
    total = int(fields.get("SwapTotal", "0 kB").split()[0]) * 1024
    if not total:
        return ok("none: memory that runs out ends in an OOM kill at once")
    free = int(fields.get("SwapFree", "0 kB").split()[0]) * 1024
    return limited(
        f"{gib(total)}, {gib(free)} of it free",
        "ranks that need too much memory crawl for minutes before one is killed: it looks like a hang",
        "memory.swap.max=0 for the job (systemd-run -p MemorySwapMax=0), or swapoff -a",
        total_bytes=total,
    )


def _overcommit(_machine: Machine) -> Answer:
    mode = (read_text("/proc/sys/vm/overcommit_memory") or "?").strip()
    if mode != "2":
        return ok({"0": "heuristic (0)", "1": "always (1)"}.get(mode, mode))
    return limited(
        "never (vm.overcommit_memory = 2)",
        "large reservations (CUDA, sanitizers, preallocated caches) fail early, as `memory-limit` and not as `oom-kill`",
        "sysctl vm.overcommit_memory=0",
    )


def _oom_score(_machine: Machine) -> Answer:
    path = "/proc/self/oom_score_adj"
    try:
        with open(path, "r+") as file:
            score = int(file.read())
            file.seek(0)
            file.write(str(min(1000, score + 300)))
    except (OSError, ValueError) as error:
        return limited(
            f"{path}: {error}", "the OOM killer may choose rankguard itself instead of a rank", "mount /proc writable"
        )
    if score >= 700:
        return limited(
            f"ours is {score} already", "ranks cannot be made more likely victims than rankguard itself",
            "start with a lower oom_score_adj (Kubernetes: the Guaranteed or Burstable class)",
        )  # fmt: skip
    return ok(f"ours is {score}; ranks get {min(1000, score + 300)}, so that they go first")


def _address_space(_machine: Machine) -> Answer:
    found = [limit for limit in MemoryDomain().limits if limit.source == ADDRESS_SPACE]
    if not found:
        return ok("no RLIMIT_AS")
    total = meminfo().get("MemTotal") or 0
    return limited(
        f"{gib(found[0].bytes)} for each process" + (f", of {gib(total)} in the machine" if total else ""),
        "a rank that needs more raises MemoryError (`memory-limit`); CUDA and torch reserve far more than they use",
        "ulimit -v unlimited",
    )


_G = "memory"
CHECKS = (
    Check("cgroups", _G, "which hierarchies there are, and where we are", _version),
    Check("rank-groups", _G, "make a job's control groups, a memory group for each rank, and remove them", _rank_groups,
          lasting=True),
    Check("oom-counter", _G, "read the counter of OOM kills that is next to us", _oom_counter),
    Check("oom-group", _G, "`memory.oom.group` of our group and its ancestors", _oom_group),
    Check("kernel-log", _G, "open /dev/kmsg", _kernel_log),
    Check("memory-limit", _G, "every limit that applies, of all ancestors, and how full it is", _limit),
    Check("address-space", _G, "RLIMIT_AS", _address_space),
    Check("swap", _G, "how much swap there is", _swap),
    Check("overcommit", _G, "`vm.overcommit_memory`", _overcommit),
    Check("oom-score", _G, "raise a process's own `oom_score_adj`", _oom_score),
)  # fmt: skip
