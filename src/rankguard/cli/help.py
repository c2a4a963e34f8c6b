"""`--help`: what fits on a screen first, and a screen for each topic. Made from `options.py`."""

import sys

from rankguard.cli.options import OPTIONS, TOPICS, Option

_HEAD = """\
rankguard run: launch N ranks of a program; if one fails, stop the others and say which came first, and why

usage: rankguard run [OPTIONS] PROGRAM [ARGS]...

PROGRAM: a .py file or any other text file runs under this Python; an executable that is not a .py file runs as it is.
Everything after PROGRAM belongs to it.
"""


def run_help(topic: str | None) -> int:
    """Print the overview, or one topic."""
    if topic in TOPICS:
        print(f"{topic}: {TOPICS[topic]}\n")
        print("\n".join(_row(option) for option in OPTIONS if option.topic == topic))
        return 0
    if topic is not None and not topic.startswith("-") and topic != "all":
        print(f"error: `{topic}` is not a topic of the help", file=sys.stderr)
        print(f"try:   rankguard run --help {'|'.join(TOPICS)}", file=sys.stderr)
        return 2
    print(_HEAD)
    print("\n".join(f"  rankguard run --help {name:8} {what}" for name, what in TOPICS.items()))
    return 0


def _row(option: Option) -> str:
    names = ", ".join(option.names) + (f" {option.metavar}" if option.metavar else "")
    return f"  {names:34} {option.help}" if len(names) < 34 else f"  {names}\n{'':37}{option.help}"
