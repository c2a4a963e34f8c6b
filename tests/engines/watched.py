"""A played engine under `rankguard watch`, unchanged."""

import json
import os
from pathlib import Path
from typing import Any

from tests.engines.parts import Stage, is_alive
from tests.run.command import Ended
from tests.watch.engines import Engines, Watched

ROOT = Path(__file__).parents[2]
SETTLE = ("--settle", "0.2")


class Played:
    """`serve` of a module of this folder, in a process of its own, under watch."""

    def __init__(self, engines: Engines, stage: Stage, module: str, *options: str, **settings: Any) -> None:
        words = json.dumps({"folder": stage.folder, **settings})
        text = f"import json, tests.engines.{module} as engine\nif __name__ == '__main__':\n"
        text += f"    engine.serve(**json.loads({words!r}))\n"
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self.stage = stage
        self.watched: Watched = engines.start(text, *SETTLE, *options, env={**os.environ, "PYTHONPATH": path})

    def known(self, *names: str) -> "Played":
        """Wait until these are up and rankguard knows them as members."""
        self.watched.joined(self.stage.met(*names))
        return self

    def ended(self) -> Ended:
        """It ends by itself or is ended; nothing of it is alive."""
        ended = self.watched.end()
        assert [name for name, pid in self.stage.pids.items() if is_alive(pid)] == [], ended.stderr
        return ended


def told(ended: Ended) -> tuple[Any, ...]:
    """Name, kind, and status of the command."""
    culprit = ended.verdict["culprit"]
    return culprit["name"], culprit["cause"]["kind"], ended.status
