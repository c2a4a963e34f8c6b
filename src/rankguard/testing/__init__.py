"""Public helpers for tests of rankguard, and of programs that are built on it. Nothing in the package uses them.

`Clock` is moved by hand; `Player` (and `play`) run a scenario, a text of facts, through the pure core and write down
what came of it; `ScriptedRanks` is a launcher without processes, under which the real `Driver` runs. Nothing here
waits. Read next: `player.py` (the transcript), `grammar.py` (its language), `scripted.py`.
"""

from rankguard.testing.clock import Clock
from rankguard.testing.grammar import ScenarioError
from rankguard.testing.player import Player, play
from rankguard.testing.scripted import Script, ScriptedRanks, ScriptedRun, Stuck

__all__ = ["Clock", "Player", "ScenarioError", "Script", "ScriptedRanks", "ScriptedRun", "Stuck", "play"]
