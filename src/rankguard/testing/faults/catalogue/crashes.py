"""Crashes in C, with a core and without."""

from collections.abc import Iterator

from rankguard.testing.faults.catalogue.expected import failed
from rankguard.testing.faults.checks import Verdict
from rankguard.testing.faults.fault import Fault
from rankguard.testing.faults.surroundings import Surroundings, why_no_core, why_no_machine_code

_CRASHES = (
    # name, what it does, function, signal, its number
    ("segfault", "reads address 0", "segfault", "SIGSEGV", 11),
    ("bus-error", "reads a mapped file behind its end", "bus_error", "SIGBUS", 7),
    ("illegal-instruction", "executes an illegal instruction", "illegal_instruction", "SIGILL", 4),
    ("divide-by-zero", "divides by zero in machine code", "divide_by_zero", "SIGFPE", 8),
    ("abort", "calls abort(3)", "abort", "SIGABRT", 6),
    ("double-free", "frees memory twice", "double_free", "SIGABRT", 6),
)
_MACHINE_CODE = ("illegal_instruction", "divide_by_zero")


def _made(core: bool) -> Iterator[Fault]:
    for name, what, function, signal, number in _CRASHES:
        also = ((f"{'a' if core else 'no'} core was dumped", _cored if core else _not_cored),)
        coded = function in _MACHINE_CODE
        yield Fault(
            f"{name}-core" if core else name,
            f"{what}; dumps core" if core else what,
            f"crashes:{'core' if core else 'plain'}_{function}",
            failed("crash", "program", 128 + number, "wait status", signal=signal, also=also),
            needs=_why_neither if coded and core else _why_no_code if coded else _why_no_core if core else _nothing,
        )  # fmt: skip


def _cored(verdict: Verdict) -> bool:
    return verdict["culprit"]["ending"]["core_dumped"] is True


def _not_cored(verdict: Verdict) -> bool:
    return verdict["culprit"]["ending"]["core_dumped"] is False


def _nothing(_here: Surroundings) -> str | None:
    return None


def _why_no_core(here: Surroundings) -> str | None:
    return None if here.cores else why_no_core() or "no core can be written here"


def _why_no_code(here: Surroundings) -> str | None:
    return why_no_machine_code(here.machine)


def _why_neither(here: Surroundings) -> str | None:
    return _why_no_core(here) or _why_no_code(here)


FAULTS = (*_made(core=False), *_made(core=True))
