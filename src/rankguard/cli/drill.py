"""`rankguard drill`: make a real failure happen on this machine, and check the verdict.

A drill that cannot be made here says why, runs the nearest real thing, and says what that does not show.
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from rankguard.drills.oom import oom

DRILLS = {"oom": (oom, "a rank is killed by the kernel's OOM killer while rank 0 still loads")}


def drill(words: Sequence[str]) -> int:
    """Run one drill, or list them. 0 when the verdict was right."""
    parser = ArgumentParser(prog="rankguard drill", description="Make a real failure happen here and show the verdict.")
    parser.add_argument("name", nargs="?", choices=tuple(DRILLS), help="which one; none lists them")
    parser.add_argument("-n", "--ranks", type=int, default=8, help="how many ranks (8)")
    try:
        asked = parser.parse_args(words)
    except SystemExit as error:
        return int(error.code or 0)
    if asked.name is None:
        for name, (_run, what) in DRILLS.items():
            print(f"{name:10}{what}")
        return 0
    if asked.ranks < 2:
        print("error: a drill needs at least 2 ranks", file=sys.stderr)
        return 2
    os.environ.pop("NOTIFY_SOCKET", None)
    return DRILLS[asked.name][0](asked.ranks)
