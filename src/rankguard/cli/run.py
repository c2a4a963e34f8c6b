"""`rankguard run`: parse, plan, launch; the front does the rest."""

import os
from collections.abc import Sequence

from rankguard.cli import say
from rankguard.cli.arguments import HelpAsked, parse
from rankguard.cli.plan import plan


def run(words: Sequence[str]) -> int:
    """Run one job; the exit status. Raises `UsageError` and `SpawnFailed` before anything is started."""
    try:
        asked = parse(words, os.environ)
    except HelpAsked as help_:
        from rankguard.cli.help import run_help

        return run_help(help_.topic)
    if asked.no_color:
        say.without_color()
    spec, said = plan(asked)
    for line in said:
        if isinstance(line, str):
            say.note(line)
        else:
            say.warning(*line)
    from rankguard.cli.front import Front

    return Front(asked, spec).run()
