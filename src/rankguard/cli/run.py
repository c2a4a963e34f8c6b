"""`rankguard run`: parse, plan, launch; the front does the rest."""

import contextlib
import os
from collections.abc import Sequence

from rankguard.cli import say
from rankguard.cli.arguments import HelpAsked, parse
from rankguard.cli.plan import plan
from rankguard.cli.terminal import Said


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
    _held = None  # to the end
    if spec.nodes is not None:
        from rankguard.cli import nodes as several

        if several.led_by_address(asked, os.environ):
            first, _held = several.first_here(spec.nodes)
            spec, said = (spec, said) if first else plan(asked, follows=True)
    for line in said:
        if asked.log_format == "json":
            _say_in_json(line)
        elif isinstance(line, str):
            say.note(line)
        else:
            say.warning(*line)
    from rankguard.cli.front.main import Front

    return Front(asked, spec).run()


def _say_in_json(said: Said) -> None:
    """On stderr, where a collector reads the ranks' lines too."""
    from rankguard.report.jsonlines import message

    statement, *hints = (said,) if isinstance(said, str) else said
    level = "info" if isinstance(said, str) else "warning"
    with contextlib.suppress(OSError):
        os.write(2, message(level, statement, hints=hints) if hints else message(level, statement))
