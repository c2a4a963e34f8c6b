"""Ranks that do not go on. They need a clock: `--stall-timeout`, or `--ready-timeout` while they start.

With two ranks of which neither says anything nobody can tell which waits for which.
"""

from collections.abc import Callable

from rankguard.testing.faults.catalogue.expected import failed, says
from rankguard.testing.faults.checks import Expect, Verdict, Words
from rankguard.testing.faults.fault import Cell, Fault
from rankguard.testing.faults.parts.hangs import LOADER_SAID, SYS_CLONE
from rankguard.testing.faults.surroundings import Surroundings, patience

STALL_S = 2.0


def _options(cell: Cell) -> tuple[str, ...]:
    return (
        ("--shutdown-timeout", "1", "--grace", "1") if cell.at == "stopping" else ("--stall-timeout", patience(STALL_S))
    )


_Also = tuple[tuple[str, Callable[[Verdict], bool]], ...]


def _stalled(confidence: Words, more: _Also = ()) -> Callable[[Cell], Expect]:
    def expect(cell: Cell) -> Expect:
        also = (
            ("says where it hangs, or in which call", _has_stack),
            ("says that the others do something else", lambda verdict: len(_of_stacks(verdict)) >= 2),
            *more,
        )
        return failed("stall", "time", 124, ends="SIGKILL", confidence=confidence, also=also)(cell)

    return expect


def _has_stack(verdict: Verdict) -> bool:
    return bool(verdict["culprit"]["stacks"])


def _quotes_loader(verdict: Verdict) -> bool:
    return any(LOADER_SAID in line for line in verdict["culprit"]["log_tail"])


def _of_stacks(verdict: Verdict) -> list[str]:
    return [each["statement"] for each in verdict["culprit"]["cause"]["evidence"] if each["source"] == "stacks"]


def _hang(name: str, what: str, function: str, confidence: Words = "likely", also: _Also = (), **more: object) -> Fault:
    return Fault(
        name, what, f"hangs:{function}", _stalled(confidence, also), options=_options, least_ranks=3, bound_s=45.0
    ).replace(**more)


def _no_vfork(here: Surroundings) -> str | None:
    return None if here.machine in SYS_CLONE else f"the number of clone(2) is not known for {here.machine}"


FAULTS = (
    _hang("hang", "waits for its own lock, the others for it", "hang"),
    _hang("hang-with-gil", "waits in C and holds the GIL", "hang_with_gil"),
    _hang("busy-python", "loops in Python for ever", "busy_python"),
    _hang("busy-with-gil", "loops in C, holds the GIL, sees no signals", "busy_with_gil"),
    _hang("busy-in-c", "is busy in C for hours, without the GIL", "busy_in_c"),
    _hang(
        "exception-unseen", "has a thread that raises, and waits for it", "thread_raised",
        also=(("its last lines quote the exception", _quotes_loader),),
    ),
    _hang("stopped", "is stopped by SIGSTOP", "stopped", "proven"),
    _hang("uninterruptible", "is in state D: its vfork child does not go on", "uninterruptible", "proven", needs=_no_vfork),
    Fault(
        "ready-timeout", "never becomes ready", "hangs:never_ready",
        failed("ready-timeout", "time", 124, "clock", also=says("waiting for the parameter server")), phases=("starting",),
        options=lambda _cell: ("--ready-timeout", patience(STALL_S)),
    ),
)  # fmt: skip
