"""The arguments of `rankguard run` → what is to be run. Pure: no process is started here.

argparse is torchrun's own parser; abbreviations (`--nproc 2`) come with it. Options may be written with hyphens or
underscores. PROGRAM is found before argparse sees anything: it would take an option of the program for one of ours.
"""

import argparse
import difflib
import os
import re
import shutil
import stat
from collections.abc import Sequence
from typing import NoReturn

from rankguard.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def options(self) -> dict[str, bool]:
        """Every option's name, and whether a value follows it."""
        return {name: action.nargs != 0 for action in self._actions for name in action.option_strings}


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options, `program` and `args`. Raises `UsageError`; `SystemExit` for `--help`."""
    made = parser()
    options, rest = split(words, made.options())
    asked = made.parse_args(options)
    if not rest:
        raise UsageError("no PROGRAM is given")
    asked.program, *asked.args = rest
    return asked


def split(words: Sequence[str], options: dict[str, bool]) -> tuple[list[str], list[str]]:
    """Our own options (with hyphens, names in full), and PROGRAM with all that belongs to it."""
    ours: list[str] = []
    left = list(words)
    while left and left[0].startswith("-") and left[0] != "-":
        word = left.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = _in_full(name.replace("_", "-"), options)
            ours.append(name + equals + value)
            alone = not equals
        else:
            ours.append(word)
            name, alone = word[:2], len(word) == 2
        if alone and options.get(name) and left:
            ours.append(left.pop(0))
    return ours, left


def _in_full(name: str, options: dict[str, bool]) -> str:
    """The option that an abbreviation means. Raises `UsageError` with a suggestion."""
    found = [option for option in options if option.startswith(name)]
    if name in options or len(found) == 1:
        return name if name in options else found[0]
    if found:
        raise UsageError(f"`{name}` is not unambiguous", f"{', '.join(found)}")
    near = max(options, key=lambda option: difflib.SequenceMatcher(None, name, option[: len(name) + 1]).ratio())
    raise UsageError(f"there is no option `{name}`", f"did you mean `{near}`?")


def parser() -> _Parser:
    """The parser of `rankguard run`."""
    made = _Parser(
        prog="rankguard run",
        usage="rankguard run [OPTIONS] PROGRAM [ARGS]...",
        description="Launch N ranks of a program; if one fails, stop the others and say which came first, and why.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="PROGRAM: a .py file or any other text file runs under this Python; an executable that is not a .py file\n"
        "runs as it is. Everything after PROGRAM belongs to it.",
    )
    ranks = made.add_argument_group("ranks")
    ranks.add_argument(
        "-n", "--nproc-per-node", metavar="N", default="1", help="ranks on this node: a number, `auto` or `cpu` (1)"
    )
    ranks.add_argument("-m", "--module", action="store_true", help="PROGRAM is a module, as for `python -m`")
    ranks.add_argument("--no-python", action="store_true", help="execute PROGRAM as it is")
    ranks.add_argument("--role", default="default", help="the role's name in the ranks' environment (default)")
    ranks.add_argument(
        "--start", choices=("auto", "exec"), default="auto", help="how Python ranks come to be (auto = exec)"
    )
    ranks.add_argument(
        "--master-addr", metavar="HOST", default="127.0.0.1", help="MASTER_ADDR of the ranks (127.0.0.1)"
    )
    ranks.add_argument(
        "--master-port", metavar="PORT", type=_port, help="MASTER_PORT (a free one, held until the job ends)"
    )
    ranks.add_argument(
        "--stdin", metavar="RANK", default="auto", help="which rank reads our stdin, or `none` (0 on a tty, else none)"
    )
    clocks = made.add_argument_group("clocks (seconds)")
    clocks.add_argument(
        "--ready-timeout", metavar="S", type=_seconds, help="every rank must report ready within S (off)"
    )
    clocks.add_argument(
        "--grace", metavar="S", type=_seconds, default=5.0, help="after a failure: SIGTERM to SIGKILL, all together (5)"
    )
    clocks.add_argument(
        "--shutdown-timeout", metavar="S", type=_seconds, default=30.0,
        help="after a request from outside: how long ranks may take (30; 0: no limit of ours)",
    )  # fmt: skip
    told = made.add_argument_group("what is told and kept")
    told.add_argument(
        "--report",
        choices=("text", "json", "none"),
        default="text",
        help="the final report: `text` on stderr, `json` on stdout (text)",
    )
    told.add_argument("--run-dir", metavar="DIR", help="folder for this run's files (a new one)")
    told.add_argument(
        "--log-max", metavar="SIZE", type=_size, default=64 << 20, help="of each stream on disk; 0: none (64M)"
    )
    told.add_argument(
        "--log-line-prefix-template", metavar="TEXT", help="before each line: ${rank}, ${role_name} ('[${rank}] ')"
    )
    told.add_argument(
        "--exit-codes",
        choices=("culprit", "class"),
        default="culprit",
        help="exit with the culprit's code or its class (culprit)",
    )
    told.add_argument(
        "--redact", metavar="REGEX", action="append", default=[], help="more secrets to hide in what we write"
    )
    told.add_argument("--label", metavar="K=V", action="append", default=[], type=_label, help="a label in the verdict")
    told.add_argument("-q", "--quiet", action="store_true", help="no progress lines")
    told.add_argument("--no-color", action="store_true", help="no colours, also with NO_COLOR set")
    return made


def count_ranks(text: str) -> int:
    """The number of ranks that `-n` means. Raises `UsageError`."""
    if text in ("auto", "cpu"):
        return len(os.sched_getaffinity(0))
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(f"`-n {text}`: not a number of ranks", "a positive number, `auto` or `cpu`")


def rank_command(
    program: str, args: Sequence[str], python: Sequence[str], *, module: bool, no_python: bool
) -> tuple[list[str], bool]:
    """What every rank executes, and whether it is Python. `python` is this interpreter with our bootstrap.

    A file that is not there is executed as it is, so that the kernel says so, before anything of Python is started.
    """
    if module:
        if no_python:
            raise UsageError("--module and --no-python exclude one another")
        return [*python, "-m", program, *args], True
    found = _kind(program)
    if no_python or found in ("executable", "missing"):
        path = program
        if "/" not in program and found == "executable" and shutil.which(program) is None:
            path = f"./{program}"
        return [path, *args], False
    return [*python, program, *args], True


def _kind(program: str) -> str:
    try:
        mode = os.stat(program).st_mode
    except OSError:
        return "missing"
    if stat.S_ISDIR(mode) or program.endswith(".py"):
        return "python"
    return "executable" if os.access(program, os.X_OK) else "python"


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"not a port: {text!r}")
    return int(text)


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"not a size: {text!r} (64M, 1G, 0)")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"not KEY=VALUE: {text!r}")
    return key, value
