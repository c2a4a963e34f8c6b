"""Hints that follow from the kind of the cause: memory, signals, exit codes, time-outs, programs that cannot start.

Numbers that are inferred say `about`. Causes known by words have their hints in the other files.
"""

import errno

from rankguard.case import Case, RankCase
from rankguard.diagnosis.evidence import SIGKILL, code_of, ended_by_itself, peer_death_of, signal_of
from rankguard.diagnosis.exit_status import LIMITS
from rankguard.diagnosis.hints import Row, Told
from rankguard.diagnosis.hints.machine import _open_files, _threads
from rankguard.diagnosis.memory_story import KILLED_INSIDE, domain, matters, memory_of, used
from rankguard.diagnosis.words import about, seconds, several, signal_name, size, whose
from rankguard.facts import NOEXEC
from rankguard.model import Confidence

HEADROOM = 1.1
"""What a limit needs above the ranks' own memory: page cache, kernel memory, the next allocation."""
ALONE = 2
"""From here on a rank is a runaway: a limit for all ranks as large as that one would be no advice."""


def _oom(told: Told) -> str:
    case = told.case
    if any(killed.record.of_whole_machine for killed in told.rank.ooms):
        return (
            "the machine as a whole ran out of memory: use fewer ranks, a larger machine, or stop what else runs there"
        )
    here = case.beside(told.rank.rank)
    limit, count = domain(case).limit_bytes, len(here)
    second, largest = sorted([0, 0, *(used(case, each) for each in here)])[-2:]
    if not limit:
        return "raise the memory limit, or let each rank hold less"
    if second and largest > ALONE * second:
        alone = next(each for each in here if used(case, each) == largest)
        growth = memory_of(case, alone).growth_bytes_s or 0
        still = f" and was growing by {size(growth)}/s" if growth * 10 > largest / 10 else ""
        return f"see what {whose(case, alone)} allocates: it alone held {size(largest)}{still}, the next one {size(second)}"
    state = domain(case)
    rest = max(0, (state.firm_bytes or 0) - (state.ranks_bytes or 0)) if state.ranks_bytes else 0  # of others
    need = (count * largest + rest) * HEADROOM
    raise_it = f"raise the memory limit from {size(limit)}"
    if need > limit:
        more = "more than " if any(_may_grow(case, each) for each in here) else ""
        others = f", {size(rest)} of others" if rest else ""
        each = f"{count} × {size(largest)}" if count > 1 else size(largest)
        raise_it += f" to {more}about {about(need)} ({each}{others}, and a tenth)"
    if count == 1:
        return f"{raise_it}, or let the rank hold less than about {about(max(0, limit / HEADROOM - rest))}"
    return f"{raise_it}, or cap each rank's host memory at about {about(max(0, limit / HEADROOM - rest) / count)}"


def _may_grow(case: Case, rank: RankCase) -> bool:
    """What it held is less than what it needs: it was growing, or was killed too soon for anybody to know."""
    growth = memory_of(case, rank).growth_bytes_s
    return growth is None or matters(case, growth)


def _oom_where(told: Told) -> str | None:
    """The name of that limit where this job runs."""
    host, limit = told.host, domain(told.case)
    if any(killed.record.of_whole_machine for killed in told.rank.ooms) or not _of_group(limit.limit_from):
        return None
    now = f", which is {size(limit.limit_bytes)} now" if limit.limit_bytes else ""
    if host.container == "kubernetes":
        whole = "; memory.oom.group is set, so the next one may end the whole container" if host.oom_group else ""
        return f"the limit is `resources.limits.memory` of the container{now}; `kubectl describe pod` says OOMKilled{whole}"
    if host.slurm_job is not None:
        return f"the limit is Slurm's `--mem`{now}: `sacct -j {host.slurm_job} -o JobID,State,ReqMem,MaxRSS`"
    if host.container is not None:
        return f"the limit is the container's (`{host.container} run --memory`{now})"
    return None


def _of_group(source: str | None) -> bool:
    """Somebody's control group has it; ours have none but in a drill."""
    return source is not None and source.startswith("memory.") and "/rankguard-" not in source


def _memory_limit(told: Told) -> str:
    limit = domain(told.case).limit_bytes
    known = f" (the job's limit is {size(limit)})" if limit else ""
    return f"compare what the rank needs with `ulimit -v` and `ulimit -d` in its environment{known}"


def _killed(told: Told) -> str:
    name = signal_name(signal_of(told.rank) or SIGKILL)
    host = told.host
    if host.slurm_job is not None:
        job = host.slurm_job
        return f"ask Slurm who sent {name}: `sacct -j {job} -o JobID,State,ExitCode` (CANCELLED, TIMEOUT, PREEMPTED, OUT_OF_MEMORY)"
    if host.container == "kubernetes":
        return f"ask Kubernetes who sent {name}: `kubectl describe pod`, `kubectl get events` (eviction, a probe that failed)"
    return f"ask who sent {name}: the batch system's log, `journalctl`, systemd-oomd or earlyoom, a colleague's shell, the program itself"


def _killed_unseen(told: Told) -> str | None:
    rank = told.rank
    if told.cause.confidence is Confidence.PROVEN or signal_of(rank) != SIGKILL:
        return None
    if not rank.exited or rank.exited.oom_readable:
        return None
    return "an OOM kill is not ruled out, as no counter of OOM kills was readable: ask the host's kernel log"


def _exit_code(told: Told) -> str | None:
    code = code_of(told.rank) or 0
    if code == KILLED_INSIDE:
        where = {
            "kubernetes": "; `kubectl describe pod` says OOMKilled if it was the memory limit",
            "docker": "; `dmesg` on the host says whether it was the memory limit",
        }.get(told.host.container or "", "")
        return f"exit code 137 is a shell's 128 + 9: a process inside the rank was ended by SIGKILL{where}"
    if 128 < code < 160:
        inside = f"a process inside the rank was ended by {signal_name(code - 128)}"
        return f"exit code {code} is a shell's 128 + {code - 128}: {inside}"
    if code in (126, 127) and not told.case.spec.python:
        what = "was not found" if code == 127 else "cannot be executed"
        return f"exit code {code} is a shell's word for a command inside the rank that {what}: see the end of its log"
    return None


def _before_ready(told: Told) -> str:
    how = "`rankguard.this_rank().ready()`, or READY=1 on NOTIFY_SOCKET"
    return f"let {whose(told.case, told.rank)} report ready before it ends: {how}"


def _cannot_start(told: Told) -> str | None:
    case, failed = told.case, told.rank.not_spawned
    program = told.program or "the program"
    if not failed:
        return None
    if failed.errno == errno.EMFILE:
        return _open_files(told)
    if failed.errno in LIMITS:
        limit = _threads(told) if failed.errno == errno.EAGAIN and told.host.processes_limit is not None else None
        return limit or "look at `ulimit -u`, pids.max and free memory: the machine was unable to make another process"
    if failed.stage == "chdir":
        return f"check the folder `{case.spec.cwd}`"
    if failed.errno == errno.ENOENT:
        return _not_found(program, case.spec.cwd)
    if failed.errno == errno.EISDIR:
        return f"name a file in the folder `{program}`"
    if failed.errno == errno.EACCES:
        return _not_permitted(program, failed.statement)
    return "check that it is a program for this machine, or a script whose first line names its interpreter"


def _not_permitted(program: str, statement: str) -> str:
    if NOEXEC in statement:
        return f"copy `{program}` to a folder where programs may be executed, such as an emptyDir, and start it there"
    return f"make it executable: `chmod +x {program}`"


def _not_found(program: str, cwd: str) -> str:
    if "/" not in program and not program.endswith(".py"):
        return f"check that `{program}` is on PATH, or write `./{program}`"
    return f"check that `{program}` exists, seen from `{cwd}`, and the interpreter in its first line"


def _look_at_it(told: Told) -> str | None:
    case = told.case
    if case.examined is not None:
        return None  # `stall_hints`: also where no rank is named
    look = "py-spy dump --pid PID" if case.spec.adopted else "rankguard stacks"
    return f"see what {whose(case, told.rank)} was doing: the last lines of its log, or `{look}` while it waits"


def _only_slow(told: Told) -> str | None:
    limit = told.case.spec.ready_timeout if told.case.examined is None else None
    return (
        f"if it is only slow, raise --ready-timeout above {seconds(limit)} or let it send EXTEND_TIMEOUT_USEC"
        if limit
        else None
    )


def _peer_that_went(told: Told) -> str | None:
    """Only victims have failed. One that ended with 0 is no failure, but its connections are closed all the same."""
    if not peer_death_of(told.rank) or told.cause.kind in ("oom-kill", "collective-timeout"):
        return None
    left = [each.rank for each in told.case.ranks if code_of(each) == 0 and ended_by_itself(each)]
    if not left:
        return "look for the peer that went first: it is none of the ranks that rankguard saw failing by themselves"
    return f"see whether the others still needed {several(told.case, left)}, which ended with exit code 0"


ROWS = (
    Row(_oom, None, ("oom-kill",)),
    Row(_oom_where, None, ("oom-kill",)),
    Row(_memory_limit, None, ("memory-limit",)),
    Row(_killed, None, ("killed",)),
    Row(_killed_unseen, None, ("killed",)),
    Row(_exit_code, None, ("exit-code",)),
    Row(_before_ready, None, ("exit-before-ready",)),
    Row(_cannot_start, None, ("cannot-start",)),
    Row(_look_at_it, None, ("ready-timeout", "stall")),
    Row(_only_slow, None, ("ready-timeout",)),
    Row(_peer_that_went),
)
"""Kinds without a row say by themselves what there is to do (a reported failure, a protocol error)."""
