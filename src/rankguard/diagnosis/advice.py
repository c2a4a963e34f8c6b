"""What to do about a failure: whom to page, whether to try again, what to change.

Hints are plain strings for people; each has its reason in the case, and each inferred number in it says `about`.
No hint is better than one that fits every failure. Not here: layout (`report/`). Read next: `verdict.py`.
"""

import errno

from rankguard.case import Case, RankCase
from rankguard.diagnosis.evidence import SIGBUS, SIGKILL, code_of, ended_by_itself, peer_death_of, signal_of
from rankguard.diagnosis.exit_status import LIMITS
from rankguard.diagnosis.memory_story import KILLED_INSIDE, domain, oom_kill, used
from rankguard.diagnosis.words import about, ranges, seconds, signal_name, size, whose
from rankguard.facts import Judged
from rankguard.model import Cause, Confidence, Family, Retry

LATE = ("stall", "ready-timeout")
"""Kinds of which an examination may tell more (`facts.Examined`)."""

HEADROOM = 1.1
"""What a limit needs above the ranks' own memory: page cache, kernel memory, the next allocation."""


_OWNERS = {
    Family.MEMORY: "limits",
    Family.PROGRAM: "program",
    Family.TIME: "program",
    Family.OPERATOR: "outside",
    Family.MACHINE: "machine",
    Family.RANKGUARD: "rankguard",
}

_RETRY = {
    "oom-kill": ("no", "the same memory limit would be met again"),
    "memory-limit": ("no", "the same memory limit would be met again"),
    "cuda-oom": ("no", "the same program needs the same GPU memory"),
    "cannot-start": ("no", "the program cannot be executed as it is"),
    "killed": ("yes", "somebody else ended it; the program did not fail by itself"),
    "gpu-error": ("elsewhere", "the GPU or its driver failed, not the program"),
    "disk-full": ("elsewhere", "this machine's disk is full"),
    "supervisor-lost": ("yes", "the job was ended because its launcher was gone, not because it failed"),
    "bug": ("yes", "a fault of rankguard ended the job, not the program"),
    "exception": ("unknown", "an exception may come from the data, the program or the machine"),
    "crash": ("unknown", "a crash may come from the program or the machine"),
    "ready-timeout": ("unknown", "slow and stuck look alike"),
    "stall": ("unknown", "slow and stuck look alike"),
    "collective-timeout": ("unknown", "why a rank did not come to the collective is not known"),
}


def owner(case: Case, rank: RankCase | None, cause: Cause) -> str | None:
    """Who can do something about it; null when nobody can be named."""
    if cause.kind == "cannot-start" and rank and rank.not_spawned and rank.not_spawned.errno in LIMITS:
        return "limits"
    if rank and peer_death_of(rank) and not oom_kill(case, rank) and cause.kind != "collective-timeout":
        return None  # a victim is all that we have: whose fault it was is not known
    if rank and cause.kind in LATE and case.examined is not None:
        from rankguard.diagnosis.stall_hints import holder  # no start waits for it

        return holder(rank, case.examined) or _OWNERS[Family.TIME]
    return _OWNERS.get(cause.family)


def retry(case: Case, rank: RankCase | None, cause: Cause) -> Retry:
    """Whether the same job has a chance if it is started again."""
    if cause.kind == "cannot-start" and rank and rank.not_spawned and rank.not_spawned.errno in LIMITS:
        return Retry(advice="elsewhere", because="this machine met a limit when the rank was started")
    if cause.kind == "oom-kill" and any(k.record.of_whole_machine for r in case.ranks for k in r.ooms):
        return Retry(advice="elsewhere", because="the machine itself ran out of memory, not a limit of the job")
    advice, because = _RETRY.get(cause.kind, ("unknown", "nothing in the case tells whether it would fail again"))
    return Retry(advice=advice, because=because)


def hints(case: Case, rank: RankCase | None, cause: Cause, judged: Judged) -> tuple[str, ...]:
    """What to do, the most useful first."""
    found = []
    if rank:
        found += _HINTS[cause.kind](case, rank, cause) if cause.kind in _HINTS else []
        if peer_death_of(rank) and cause.kind not in ("oom-kill", "collective-timeout"):
            found.append(_peer_that_went(case))
    if cause.kind in LATE and case.examined is not None:
        from rankguard.diagnosis.stall_hints import stall_hints  # no start waits for it

        found += stall_hints(case, rank, case.examined)
    elif judged.either:
        one = len(judged.either) == 1
        whose_logs = f"the log of rank {judged.either[0]}" if one else f"the logs of ranks {ranges(judged.either)}"
        found.append(f"read {whose_logs} too: {'it' if one else 'each'} may as well have been first")
    return tuple(found)


def _peer_that_went(case: Case) -> str:
    """Only victims have failed. One that ended with 0 is no failure, but its connections are closed all the same."""
    left = [each.rank for each in case.ranks if code_of(each) == 0 and ended_by_itself(each)]
    if not left:
        return "look for the peer that went first: it is none of the ranks that rankguard saw failing by themselves"
    which = f"rank {left[0]}" if len(left) == 1 else f"ranks {ranges(left)}"
    return f"see whether the others still needed {which}, which ended with exit code 0"


ALONE = 2
"""From here on a rank is a runaway: a limit for all ranks as large as that one would be no advice."""


def _oom(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    if any(killed.record.of_whole_machine for killed in rank.ooms):
        return [
            "the machine as a whole ran out of memory: use fewer ranks, a larger machine, or stop what else runs there"
        ]
    limit, count = domain(case).limit_bytes, len(case.ranks)
    second, largest = sorted([0, 0, *(used(case, each) for each in case.ranks)])[-2:]
    if not limit:
        return ["raise the memory limit, or let each rank hold less"]
    if second and largest > ALONE * second:
        alone = next(each.rank for each in case.ranks if used(case, each) == largest)
        return [f"rank {alone} alone held {size(largest)}, the next one {size(second)}: see what it allocates"]
    state = domain(case)
    rest = (
        max(0, (state.firm_bytes or 0) - (state.ranks_bytes or 0)) if state.ranks_bytes else 0
    )  # of nobody, or of others
    need = (count * largest + rest) * HEADROOM
    raise_it = f"raise the memory limit from {size(limit)}"
    growing = [each.rank for each in cause.responsible if each.rank is not None and "growing" in each.because]
    if need > limit:
        raise_it += f" to {'more than ' if growing else ''}about {about(need)}"
    if count == 1:
        return [f"{raise_it}, or let the rank hold less than about {about(max(0, limit / HEADROOM - rest))}"]
    return [f"{raise_it}, or cap each rank's host memory at about {about(max(0, limit / HEADROOM - rest) / count)}"]


def _memory_limit(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    limit = domain(case).limit_bytes
    known = f" (the job's limit is {size(limit)})" if limit else ""
    return [f"compare what the rank needs with `ulimit -v` and `ulimit -d` in its environment{known}"]


def _exception(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    """Only for what has no terminal or no stdin here: an exception says by itself what there is to do."""
    spec, raised = case.spec, cause.exception
    if raised is None or spec.adopted:
        return []
    if raised.type == "bdb.BdbQuit" and rank.rank not in (spec.debug_rank, spec.stdin_rank):
        return [f"run again with `--debug {rank.rank}`: `breakpoint()` found nothing to read from, and quit"]
    if raised.type == "EOFError" and raised.message == "EOF when reading a line" and spec.stdin_rank is None:
        return [f"run again with `--stdin {rank.rank}`, which gives it our stdin: it had none to read from"]
    return []


def _cuda_oom(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    return [
        "lower the batch size or the share of GPU memory for caches; `nvidia-smi` shows who else holds memory there"
    ]


def _killed(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    name = signal_name(signal_of(rank) or SIGKILL)
    found = [
        f"ask who sent {name}: the batch system's log, `journalctl`, systemd-oomd or earlyoom, a colleague's shell"
    ]
    if (
        cause.confidence is not Confidence.PROVEN
        and signal_of(rank) == SIGKILL
        and rank.exited
        and not rank.exited.oom_readable
    ):
        found.append("an OOM kill is not ruled out, as no counter of OOM kills was readable: ask the host's kernel log")
    return found


def _crash(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    found = []
    if signal_of(rank) == SIGBUS:
        found.append("SIGBUS often means that /dev/shm is full: give the container more (`--shm-size`, an emptyDir)")
    if rank.exited and rank.exited.ending.core_dumped:
        found.append("a core was dumped: `coredumpctl debug`, or `gdb` with the file that core_pattern names")
    else:
        found.append("no core was dumped: `ulimit -c unlimited` before the next run leaves one for `gdb`")
    return found


def _exit_code(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    code = code_of(rank) or 0
    if code == KILLED_INSIDE:
        return ["exit code 137 is a shell's 128 + 9: a process inside the rank was ended by SIGKILL"]
    if 128 < code < 160:
        inside = f"a process inside the rank was ended by {signal_name(code - 128)}"
        return [f"exit code {code} is a shell's 128 + {code - 128}: {inside}"]
    return []


def _before_ready(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    how = "`rankguard.this_rank().ready()`, or READY=1 on NOTIFY_SOCKET"
    return [f"let {whose(case, rank)} report ready before it ends: {how}"]


def _cannot_start(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    failed = rank.not_spawned
    program = case.spec.argv[0] if case.spec.argv else "the program"
    if not failed:
        return []
    if failed.errno == errno.EMFILE:
        return [f"raise the limit of open files (`ulimit -n`, now {case.spec.nofile[0]})"]
    if failed.errno in LIMITS:
        return ["look at `ulimit -u`, pids.max and free memory: the machine was unable to make another process"]
    if failed.stage == "chdir":
        return [f"check the folder `{case.spec.cwd}`"]
    if failed.errno == errno.ENOENT:
        return [_not_found(program, case.spec.cwd)]
    if failed.errno == errno.EISDIR:
        return [f"name a file in the folder `{program}`"]
    if failed.errno == errno.EACCES:
        return [f"make it executable: `chmod +x {program}`"]
    return ["check that it is a program for this machine, or a script whose first line names its interpreter"]


def _not_found(program: str, cwd: str) -> str:
    if "/" not in program and not program.endswith(".py"):
        return f"check that `{program}` is on PATH, or write `./{program}`"
    return f"check that `{program}` exists, seen from `{cwd}`, and the interpreter in its first line"


def _timed_out(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    limit = case.spec.ready_timeout
    if case.examined is not None:
        return []  # `stall_hints`: also where no rank is named
    look = "py-spy dump --pid PID" if case.spec.adopted else "rankguard stacks"
    found = [f"see what {whose(case, rank)} was doing: the last lines of its log, or `{look}` while it waits"]
    if cause.kind == "ready-timeout" and limit:
        found.append(
            f"if it is only slow, raise --ready-timeout above {seconds(limit)} or let it send EXTEND_TIMEOUT_USEC"
        )
    return found


def _collective(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    if cause.responsible:
        return [f"look at rank {cause.responsible[0].rank}: it {cause.responsible[0].because}"]
    waiting = [each.rank for each in case.ranks if peer_death_of(each)]
    others = [each.rank for each in case.ranks if each.rank not in waiting]
    if not others:
        return [
            "compare the last collective in each rank's log: the rank that is behind is the one that was waited for"
        ]
    return [f"look at what ranks {ranges(others)} did last: the rank that was waited for is probably among them"]


def _disk(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    return [
        "free space on the disk that the message names (`df -h`, `df -i`; in a container /dev/shm and /tmp count too)"
    ]


def _gpu(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    return ["run it on another machine, and look for Xid messages on this one: `dmesg | grep -i xid`, `nvidia-smi -q`"]


_HINTS = {
    "oom-kill": _oom,
    "memory-limit": _memory_limit,
    "cuda-oom": _cuda_oom,
    "killed": _killed,
    "crash": _crash,
    "exit-code": _exit_code,
    "exception": _exception,
    "exit-before-ready": _before_ready,
    "cannot-start": _cannot_start,
    "ready-timeout": _timed_out,
    "stall": _timed_out,
    "collective-timeout": _collective,
    "disk-full": _disk,
    "gpu-error": _gpu,
}
"""Kinds without a row say by themselves what there is to do (a reported failure, a protocol error)."""
