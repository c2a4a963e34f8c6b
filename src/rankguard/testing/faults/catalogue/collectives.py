"""Collectives that one rank does not join."""

from importlib.util import find_spec

from rankguard.testing.faults.checks import Expect
from rankguard.testing.faults.fault import Cell, Fault
from rankguard.testing.faults.surroundings import Surroundings


def _no_torch(_here: Surroundings) -> str | None:
    return None if find_spec("torch") else "torch is not installed"


def _waited_in_vain(cell: Cell) -> Expect:
    """Those that gave up are not the culprits; the one that did not come is, or nobody can tell."""
    return Expect(
        "collective-timeout", 1, confidence="likely", culprits=(cell.victim,), family="time",
        others=("collateral", "stopped"),
    )  # fmt: skip


FAULTS = (
    Fault(
        "collective-not-joined", "never joins a collective (torch, gloo)",
        "collectives:collective_not_joined", _waited_in_vain, phases=("starting", "all-ready"), needs=_no_torch,
        least_ranks=3, bound_s=120.0,
    ),
)  # fmt: skip
