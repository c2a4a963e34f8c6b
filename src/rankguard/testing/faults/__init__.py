"""The fault laboratory: every way in which a rank can fail, made for real, and what a launcher must say of it.

    FAULTS                 every fault by name; `Fault.what`, `Fault.why_not(cell)`, `Fault.expect(cell)`
    Cell(at=…, ranks=…)    a circumstance: when the victim fails, how many ranks, how they come to be
    command(name, cell, F) the ranks' program, for any launcher
    look()                 what this machine allows (`Surroundings`), on which the grades depend
    play_apart(name, cell) one cell under rankguard itself, in a process of its own: `Outcome`

The ranks are an ordinary program that any launcher can start: `python -m rankguard.testing.faults NAME --folder F`.
Read next: `fault.py` (the nouns), `catalogue/`, `parts/`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankguard.testing.faults.catalogue import FAULTS
    from rankguard.testing.faults.cells import Outcome, play, play_apart
    from rankguard.testing.faults.checks import Expect, checked
    from rankguard.testing.faults.fault import PHASES, STARTS, Cell, Fault, command
    from rankguard.testing.faults.surroundings import Surroundings, look

__all__ = [
    "FAULTS", "PHASES", "STARTS", "Cell", "Expect", "Fault", "Outcome", "Surroundings", "checked", "command", "look",
    "play", "play_apart",
]  # fmt: skip

_HOMES = {
    "catalogue": ("FAULTS",),
    "checks": ("Expect", "checked"),
    "fault": ("PHASES", "STARTS", "Cell", "Fault", "command"),
    "cells": ("Outcome", "play", "play_apart"),
    "surroundings": ("Surroundings", "look"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
