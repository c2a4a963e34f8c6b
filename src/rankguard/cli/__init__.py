"""The command line: one file a verb. `main` finds the verb and nothing else, so that none pays for another's imports."""

import os
import sys
from collections.abc import Callable, Sequence

VERBS = {
    "run": "launch N ranks of a program",
    "drill": "make a real failure happen on this machine and show the verdict",
    "runs": "list past runs",
    "report": "the final text of a run again",
    "explain": "the story of a run: each decision with the fact that caused it",
}

USAGE = """\
rankguard: launch the ranks of a distributed job, and know which one failed first, and why

usage: rankguard run [OPTIONS] PROGRAM [ARGS]...
       rankguard drill [NAME]
       rankguard runs | report [RUN] | explain [RUN]

{verbs}

`rankguard VERB --help` tells more. Exit status: the failed rank's own code, 128+n for signal n, 124 time-out,
130/143/129 interrupted, 2 usage, 125 a fault of rankguard itself, 126/127 the program cannot be executed/found."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = words[0] if words else "--help"
    if verb in ("-h", "--help", "help"):
        print(USAGE.format(verbs="\n".join(f"  {name:8}{what}" for name, what in VERBS.items())))
        return 0
    if verb == "--version":
        from rankguard._version import __version__

        print(f"rankguard {__version__}")
        return 0
    if verb not in VERBS:
        from difflib import get_close_matches

        near = get_close_matches(verb, VERBS, 1)
        hint = f"; did you mean `{near[0]}`?" if near else f"; known are {', '.join(f'`{v}`' for v in VERBS)}"
        print(f"error: `{verb}` is not a command of rankguard{hint}", file=sys.stderr)
        return 2
    _open_standard_streams()
    if sys.platform != "linux":
        print(f"error: `rankguard {verb}` works on Linux only", file=sys.stderr)
        return 2
    try:
        return _verb(verb)(words[1:])
    except BrokenPipeError:
        # Whoever read our output is gone; a flush at exit would only say so again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _open_standard_streams() -> None:
    """A closed stdin, stdout or stderr becomes /dev/null: our own sockets must not land on its number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, that is, this one


def _verb(name: str) -> Callable[[Sequence[str]], int]:
    if name == "run":
        from rankguard.cli.run import run

        return run
    if name == "drill":
        from rankguard.cli.drill import drill

        return drill
    from rankguard.cli import past

    return {"runs": past.runs, "report": past.report, "explain": past.explain}[name]
