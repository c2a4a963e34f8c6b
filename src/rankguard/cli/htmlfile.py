"""`rankguard report --html FILE`: the run as one page that opens from disk. FILE is complete, or as it was before.

What is in it: `../runs/page.py`; how it looks: `../page/assemble.py`.
"""

import os
import socket
import sys
import time
from typing import Any

from rankguard.cli import say
from rankguard.errors import UsageError
from rankguard.report.wording import size
from rankguard.runs.folder import Run
from rankguard.runs.wholefile import write_all, write_whole

_WROTE, _COULD_NOT = 0, 1
_EVIDENCE = frozenset(
    {
        "pidfd",
        "status-of-others",
        "exit-order",
        "ptrace",
        "cgroups",
        "oom-counter",
        "oom-group",
        "kernel-log",
        "memory-limit",
        "swap",
        "dev-shm",
        "py-spy",
        "gpus",
    }
)
"""Checks of `doctor` without which a verdict, a stack or a number is weaker."""


def write_page(run: Run, file: str, answered: dict[str, Any]) -> int:
    """The page of a run, to `file` (`-`: stdout). `answered`: a live run's own answer to `report`."""
    from rankguard.page.assemble import self_contained
    from rankguard.runs.page import NothingTold, page_data

    try:
        data = self_contained(page_data(run, answered, _machine(run)))
    except NothingTold as error:
        say.error(f"{error}", f"ls -l {run.folder}")
        return _COULD_NOT
    try:
        if file == "-":
            sys.stdout.flush()
            write_all(1, data)
            return _WROTE
        write_whole(file, data)
    except BrokenPipeError:
        raise  # `… | head`: whoever reads has enough, as with every verb
    except OSError as error:
        say.error(f"unable to write `{file}`: {error.strerror or error}", _hint(file, error))
        return _COULD_NOT
    say.note(f"wrote `{file}` ({size(len(data))})")
    return _WROTE


def checked(file: str | None, *, as_json: bool) -> str | None:
    """The file that was asked for. Raises `UsageError`."""
    if file is not None and as_json:
        raise UsageError(
            "`--html` and `--json` are two forms of one report: choose one", "rankguard report --html FILE"
        )
    if file == "":
        raise UsageError("`--html`: expected a file, or `-` for stdout", "rankguard report --html report.html")
    return file


def _machine(run: Run) -> list[dict[str, Any]] | None:
    """What of this machine decides how much can be known of a run; null unless the run was here, since it was started.

    The journal has in notes what was missing at the time, as sentences; this is how it is now.
    """
    spec = run.spec()
    booted = float(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))
    if spec.get("node") != socket.gethostname() or spec.get("nodes") is not None or run.at < booted:
        return None
    from rankguard.doctor.catalogue import CHECKS
    from rankguard.doctor.check import MISSING, OK, Machine
    from rankguard.doctor.probes import examine

    state = {OK: "ok", MISSING: "missing"}
    checks = [check for check in CHECKS if check.id in _EVIDENCE and not check.lasting]
    nprocs = spec.get("nprocs")
    ranks = nprocs if isinstance(nprocs, int) and 0 < nprocs < 1 << 20 else 1
    return [
        {
            "name": each.id,
            "state": state.get(each.state, "warn"),
            "says": each.found,
            "costs": each.cost,
            "get": each.cure,
        }
        for each in examine(checks, Machine(ranks, os.getpid()))
    ]


def _hint(file: str, error: OSError) -> str | None:
    if isinstance(error, FileNotFoundError):
        missing = os.path.dirname(file)
        if os.path.isdir(missing or "."):  # FILE is a link that leads nowhere
            missing = os.path.dirname(os.path.realpath(file))
        return f"mkdir -p {missing}"
    if isinstance(error, IsADirectoryError):
        return f"--html {file.rstrip('/')}/report.html"
    return "rankguard report --html - > FILE, to somewhere else"
