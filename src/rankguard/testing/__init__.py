"""Public helpers for tests of rankguard, and of programs that are built on it. Of the package only `drill` uses them.

`Clock` is moved by hand; `Player` (and `play`) run a scenario, a text of facts, through the pure core and write down
what came of it; `ScriptedRanks` is a launcher without processes, under which the real `Driver` runs. Nothing of these
waits. `faults` is the opposite: real ranks that really fail. Each is loaded when it is first used, so that a rank that
only wants to fail loads no more than that.

Read next: `player.py` (the transcript), `grammar.py` (its language), `scripted.py`; `faults/`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankguard.testing.clock import Clock
    from rankguard.testing.grammar import ScenarioError
    from rankguard.testing.player import Player, play
    from rankguard.testing.scripted import Script, ScriptedRanks, ScriptedRun, Stuck

__all__ = ["Clock", "Player", "ScenarioError", "Script", "ScriptedRanks", "ScriptedRun", "Stuck", "faults", "play"]

_HOMES = {
    "clock": ("Clock",),
    "grammar": ("ScenarioError",),
    "player": ("Player", "play"),
    "scripted": ("Script", "ScriptedRanks", "ScriptedRun", "Stuck"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "faults":
        return import_module(f"{__name__}.faults")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
