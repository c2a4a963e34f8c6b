"""`rankguard drill`: make a real failure happen on this machine, and check the verdict.

A drill that cannot be made here says why, runs the nearest real thing, and says what that does not show.
"""

import os
from collections.abc import Sequence

from rankguard.cli.verbs import parse
from rankguard.drills.oom import oom
from rankguard.errors import UsageError

DRILLS = {"oom": (oom, "a rank is killed by the kernel's OOM killer while rank 0 still loads")}


def drill(words: Sequence[str]) -> int:
    """Run one drill, or list them. 0 when the verdict was right."""
    asked = parse("drill", words)
    if asked is None:
        return 0
    if asked.name is None:
        for name, (_run, what) in DRILLS.items():
            print(f"{name:10}{what}")
        return 0
    if asked.name not in DRILLS:
        raise UsageError(f"there is no drill `{asked.name}`", "rankguard drill")
    if asked.ranks < 2:
        raise UsageError(f"`--ranks {asked.ranks}`: expected 2 or more", f"rankguard drill {asked.name} -n 2")
    os.environ.pop("NOTIFY_SOCKET", None)
    return DRILLS[asked.name][0](asked.ranks)
