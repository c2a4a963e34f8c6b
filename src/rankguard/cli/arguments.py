"""The arguments of `rankguard run` → what is to be run. Pure: no process is started here.

argparse is torchrun's own parser: abbreviations (`--nproc 2`) and REMAINDER come with it. Options may be written with
hyphens or underscores.
"""

import argparse
import os
import re
import shutil
import stat
from collections.abc import Sequence
from typing import Any, NoReturn

from rankguard.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parser() -> argparse.ArgumentParser:
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
    _add(ranks, "-n", "--nproc-per-node", metavar="N", default="1", help="ranks on this node: a number, `auto` or `cpu` (1)")
    _add(ranks, "-m", "--module", action="store_true", help="PROGRAM is a module, as for `python -m`")
    _add(ranks, "--no-python", action="store_true", help="execute PROGRAM as it is")
    _add(ranks, "--role", default="default", help="the role's name in the ranks' environment (default)")
    _add(ranks, "--start", choices=("auto", "exec"), default="auto", help="how Python ranks come to be (auto = exec)")
    _add(ranks, "--master-addr", metavar="HOST", default="127.0.0.1", help="MASTER_ADDR of the ranks (127.0.0.1)")
    _add(ranks, "--master-port", metavar="PORT", type=_port, help="MASTER_PORT (a free one, held until the job ends)")
    _add(ranks, "--stdin", metavar="RANK", default="auto", help="which rank reads our stdin, or `none` (0 on a tty, else none)")
    clocks = made.add_argument_group("clocks (seconds)")
    _add(clocks, "--ready-timeout", metavar="S", type=_seconds, help="every rank must report ready within S (off)")
    _add(clocks, "--grace", metavar="S", type=_seconds, default=5.0, help="after a failure: SIGTERM to SIGKILL, all together (5)")
    _add(
        clocks, "--shutdown-timeout", metavar="S", type=_seconds, default=30.0,
        help="after a request from outside: how long ranks may take (30; 0: no limit of ours)",
    )  # fmt: skip
    told = made.add_argument_group("what is told and kept")
    _add(told, "--report", choices=("text", "json", "none"), default="text", help="the final report: `text` on stderr, `json` on stdout (text)")
    _add(told, "--run-dir", metavar="DIR", help="folder for this run's files (a new one)")
    _add(told, "--log-max", metavar="SIZE", type=_size, default=64 << 20, help="of each stream on disk; 0: none (64M)")
    _add(told, "--log-line-prefix-template", metavar="TEXT", help="before each line: ${rank}, ${role_name} ('[${rank}] ')")
    _add(told, "--exit-codes", choices=("culprit", "class"), default="culprit", help="exit with the culprit's code or its class (culprit)")
    _add(told, "--redact", metavar="REGEX", action="append", default=[], help="more secrets to hide in what we write")
    _add(told, "--label", metavar="K=V", action="append", default=[], type=_label, help="a label in the verdict")
    _add(told, "-q", "--quiet", action="store_true", help="no progress lines")
    _add(told, "--no-color", action="store_true", help="no colours, also with NO_COLOR set")
    made.add_argument("program", metavar="PROGRAM", help=argparse.SUPPRESS)
    made.add_argument("args", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return made


def _add(group: Any, *names: str, **options: Any) -> None:
    """An option under its name, and under the same with underscores, as torchrun has it."""
    also = [n.replace("-", "_").replace("__", "--", 1) for n in names if n.startswith("--") and "-" in n[2:]]
    dest = next(n for n in names if n.startswith("--"))[2:].replace("-", "_")
    group.add_argument(*names, *also, dest=dest, **options)


def count_ranks(text: str) -> int:
    """The number of ranks that `-n` means. Raises `UsageError`."""
    if text in ("auto", "cpu"):
        return len(os.sched_getaffinity(0))
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(f"`-n {text}`: not a number of ranks", "a positive number, `auto` or `cpu`")


def rank_command(program: str, args: Sequence[str], python: Sequence[str], *, module: bool, no_python: bool) -> tuple[list[str], bool]:
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
