"""`rankguard run`: parse, plan, launch; the front does the rest."""

import os
import sys
from collections.abc import Sequence

from rankguard.cli.arguments import HelpAsked, parse
from rankguard.cli.plan import plan
from rankguard.errors import SpawnFailed, UsageError


def run(words: Sequence[str]) -> int:
    """Run one job; the exit status."""
    try:
        asked = parse(words, os.environ)
        spec, said = plan(asked)
    except HelpAsked as help_:
        from rankguard.cli.help import run_help

        return run_help(help_.topic)
    except UsageError as error:
        print(f"error: {error.statement}", file=sys.stderr)
        print(f"try:   {error.hint or 'rankguard run --help'}", file=sys.stderr)
        return 2
    except SpawnFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for line in said:
        print(f"warning: {line}", file=sys.stderr)
    from rankguard.cli.front import Front

    return Front(asked, spec).run()
