"""`rankguard drill`: make a real failure happen on this machine, and check what rankguard says of it.

A drill that cannot be made here says why, or runs the nearest real thing and says what that does not show.
Read next: `drills/catalogue.py` (which there are), docs/drills.md.
"""

import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from rankguard.cli import say
from rankguard.cli.verbs import parse
from rankguard.drills.catalogue import DRILLS
from rankguard.drills.play import listing, play
from rankguard.errors import UsageError
from rankguard.testing.faults.stage import Interrupted
from rankguard.testing.faults.surroundings import look


def drill(words: Sequence[str]) -> int:
    """Run one drill or `all`, or list them. 0 when everything was as it should be, 1 when something differs."""
    asked = parse("drill", words)
    if asked is None:
        return 0
    if asked.name is None:
        for line in listing():
            print(line)
        return 0
    if asked.name != "all" and asked.name not in DRILLS:
        near = get_close_matches(asked.name, DRILLS, 1)
        raise UsageError(f"there is no drill `{asked.name}`", f"rankguard drill{f' {near[0]}' if near else ''}")
    if asked.ranks is not None and not 2 <= asked.ranks <= 1024:
        raise UsageError(f"`--ranks {asked.ranks}`: expected 2 to 1024", f"rankguard drill {asked.name} -n 2")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, every exit status would be 0
    try:
        return _all(asked.ranks) if asked.name == "all" else _one(asked.name, asked.ranks)
    except Interrupted as error:
        print("drill: interrupted; nothing is left of it", file=sys.stderr)
        return 128 + error.number


def _one(name: str, ranks: int | None) -> int:
    drill, here = DRILLS[name], look()
    if reason := drill.why_not(here, ranks):
        say.error(f"drill `{name}` cannot be made here: {reason}")
        return 1
    return 0 if play(drill, ranks, here) else 1


def _all(ranks: int | None) -> int:
    """Each that this machine can make, one after another."""
    wrong, left_out, here = [], [], look()
    for name, drill in DRILLS.items():
        if reason := drill.why_not(here, ranks):
            left_out.append(f"{name} ({reason})")
            continue
        if not play(drill, ranks, here):
            wrong.append(name)
        print()
    played = len(DRILLS) - len(left_out)
    print(f"{played - len(wrong)} of {played} drills as they should be")
    for what, names in (("differ", wrong), ("cannot be made here", left_out)):
        if names:
            print(f"{what}: {', '.join(names)}")
    return 1 if wrong else 0
