"""Memory that runs out. How sure the verdict of an OOM kill can be depends on what counts and tells it."""

from collections.abc import Iterator
from contextlib import contextmanager

from rankguard.testing.faults import limits
from rankguard.testing.faults.catalogue.expected import failed
from rankguard.testing.faults.checks import Expect, Verdict
from rankguard.testing.faults.fault import Cell, Fault
from rankguard.testing.faults.parts.memory import HELD, ROOM
from rankguard.testing.faults.stage import Stage
from rankguard.testing.faults.surroundings import Surroundings

_ACTIVE = ("starting", "ready-early", "all-ready")


def _no_own_group(here: Surroundings) -> str | None:
    return None if here.own_groups else "no rank can be given a memory group of its own (control groups are read-only)"


def _no_limit(_here: Surroundings) -> str | None:
    return limits.why_not()


def _not_unseen(here: Surroundings) -> str | None:
    if not here.root:
        return "it needs root, to make control groups read-only for a job"
    return limits.why_not() or limits.why_nothing_unseen()


@contextmanager
def _together(stage: Stage, cell: Cell) -> Iterator[tuple[str, ...]]:
    """The whole job in one limited group: the victim's memory fits, and a part of what the grower takes."""
    mib = limits.OURS_MIB + cell.ranks * limits.RANK_MIB + ((HELD + ROOM) >> 20)
    with limits.limited(mib) as (_how, wrap):
        yield tuple(wrap or ())


@contextmanager
def _together_unseen(stage: Stage, cell: Cell) -> Iterator[tuple[str, ...]]:
    with _together(stage, cell) as wrap:
        yield (*wrap, *limits.unseen(shut_log=False))


@contextmanager
def _together_untold(stage: Stage, cell: Cell) -> Iterator[tuple[str, ...]]:
    with _together(stage, cell) as wrap:
        yield (*wrap, *limits.unseen(shut_log=True))


def _killed(cell: Cell) -> Expect:
    """Seen by the kernel in a group of its own or told by its log: `proven`. Only counted with others: `likely`."""
    proven = cell.here.own_groups or cell.here.kernel_log
    evidence = ("cgroup", *(("kernel log",) if cell.here.kernel_log else ()), "wait status")
    grade = "proven" if proven else "likely"
    return failed("oom-kill", "memory", 137, *evidence, confidence=grade, signal="SIGKILL")(cell)


def _killed_unseen(cell: Cell) -> Expect:
    return _killed(cell.replace(here=cell.here.replace(own_groups=False)))


def _killed_untold(cell: Cell) -> Expect:
    return _killed(cell.replace(here=cell.here.replace(own_groups=False, kernel_log=False)))


def _child_killed(cell: Cell) -> Expect:
    also = (("the one that was killed is a child of the rank", _of_child),)
    return failed("oom-kill", "memory", 1, "cgroup", also=also)(cell)


def _of_child(verdict: Verdict) -> bool:
    subject = verdict["culprit"]["cause"]["subject_pid"]
    return subject != verdict["culprit"]["pid"] and "child" in verdict["culprit"]["cause"]["statement"]


FAULTS = (
    Fault(
        "oom-own-group", "is OOM-killed in a memory group of its own", "memory:oom_own_group",
        _killed, needs=_no_own_group, alone=True,
    ),
    Fault(
        "oom-victim-not-grower", "is OOM-killed for memory that another takes",
        "memory:oom_victim_not_grower", _killed, phases=_ACTIVE, needs=_no_limit, arrange=_together, alone=True,
    ),
    Fault(
        "oom-shared-counter", "is OOM-killed; the counter is shared",
        "memory:oom_victim_not_grower", _killed_unseen, phases=_ACTIVE, needs=_not_unseen, arrange=_together_unseen,
        alone=True,
    ),
    Fault(
        "oom-not-told", "is OOM-killed; only a shared counter tells", "memory:oom_victim_not_grower",
        _killed_untold, phases=_ACTIVE, needs=_not_unseen, arrange=_together_untold, alone=True,
    ),
    Fault(
        "oom-child", "fails of a worker that was OOM-killed", "memory:oom_child",
        _child_killed, needs=_no_own_group, alone=True,
    ),
    Fault(
        "memory-limit", "asks for more than its RLIMIT_AS", "memory:memory_limit",
        failed("memory-limit", "memory", 1, "rank"),
    ),
    Fault(
        "memory-error", "asks for more memory than there is anywhere", "memory:memory_error",
        failed("memory-limit", "memory", 1, "rank"),
    ),
    Fault(
        "cuda-oom", "raises torch's OutOfMemoryError, as recorded", "memory:cuda_oom",
        failed("cuda-oom", "memory", 1, "rank"),
    ),
    Fault(
        "cuda-oom-driver", "raises CUDA's `out of memory`, as recorded", "memory:cuda_oom_driver",
        failed("cuda-oom", "memory", 1, "rank"),
    ),
    Fault(
        "cuda-oom-jax", "raises XLA's RESOURCE_EXHAUSTED, as recorded", "memory:cuda_oom_jax",
        failed("cuda-oom", "memory", 1, "rank"),
    ),
)  # fmt: skip
