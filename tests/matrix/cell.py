"""One cell, in a process of its own: the surroundings, the fault once, what the laboratory checks, and what must always
hold. Never the business of this file: when which cell runs (`runner.py`).
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.matrix.always import always
from tests.matrix.axes import Place, meaningful
from tests.matrix.place import enter, job_group, left_below, why_not

from rankguard.testing import faults
from rankguard.testing.faults import limits, stage

SAID = 6000
"""Bytes kept of what a wrong cell printed."""


def made(place: Place, folder: str, groups: list[str], entered: Callable[[], None]) -> dict[str, Any]:
    """Make it once and look at everything: `why_not`, or `checks`, `kind`, `confidence`, `verdict_after_s`, `said`.

    This process is the cell's from here on. `entered` is called when its user is what it stays.
    """
    if reason := faults.FAULTS[place.fault].why_not(place.cell) if not meaningful(place) else why_not(place, groups):
        return {"why_not": reason}
    limit = enter(place, folder, groups)
    entered()  # what a process asked of the kernel for itself is lost with its user (prctl(2))
    tempfile.tempdir = None  # asked for before we came here
    job = job_group(groups) if place.groups == "own" else None
    if limit is not None and (job or place.groups == "ro"):
        limits.set_ours = partial(_set_limit, limit)
    if job:
        stage.Stage.begin = _beginning_in(job, stage.Stage.begin)
    here = faults.look()
    if reason := _not_here(place, here):
        return {"why_not": reason}
    if job and place.start == "function":
        # The program that calls `launch` is not ours to move, and cgroup2 gives counters only to children of a group
        # without processes: the ranks share one.
        here = here.replace(own_groups=False)
    shm = set(os.listdir("/dev/shm"))
    found = faults.play(faults.FAULTS[place.fault], place.cell.replace(here=here), keep_run=True)
    if found.why_not:
        return {"why_not": found.why_not}
    verdict = found.verdict or {}
    run_dir = Path(found.run_dir or "")
    checks = [check for check in found.checks if not check[1].startswith("took ")]
    checks += always(run_dir, verdict, found.status)
    shutil.rmtree(run_dir, ignore_errors=True)
    checks.append(_none("control groups left", left_below(groups)))
    checks.append(_none("segments left", sorted(set(os.listdir("/dev/shm")) - shm)))
    checks.append(_none("private folders left", sorted(os.listdir(f"{folder}/tmp"))))
    culprit = verdict.get("culprit") or {}
    cause = culprit.get("cause") or {}
    wrong = any(not right for right, _what in checks)
    return {
        "checks": checks, "kind": cause.get("kind"), "confidence": cause.get("confidence"),
        "verdict_after_s": _between(verdict.get("failed_at"), verdict.get("ended_at")), "said": found.said[-SAID:] if wrong else "", "verdict": verdict if wrong else None,
    }  # fmt: skip


def _beginning_in(group: str, begin: Callable[..., None]) -> Callable[..., None]:
    """The command is started in a control group in which we are not."""
    join = ["/bin/sh", "-c", 'echo 0 > "$0"/cgroup.procs && exec "$@"', group]
    return lambda self, command: begin(self, [*join, *command])


def _set_limit(fd: int, size: int | None) -> None:
    """Of the cell's own group; cgroup2 calls no limit `max`, v1 -1."""
    for text in [str(size)] if size is not None else ["max", "-1"]:
        try:
            os.pwrite(fd, text.encode(), 0)
            return
        except OSError:
            pass
    raise RuntimeError(f"the memory limit of the cell cannot be set to {size}")


def _not_here(place: Place, here: faults.Surroundings) -> str | None:
    """The surroundings must be what they are called: the kernel is asked, not the one who made them."""
    if place.groups == "own" and not here.own_groups:
        return "no memory group for each rank can be made on this machine"
    if place.groups == "ro" and here.own_groups:
        raise RuntimeError("control groups were to be read-only, and a memory group was made")
    if (place.user == "root") != here.root:
        raise RuntimeError(f"this was to be {place.user}, and is uid {os.geteuid()}")
    return None


def _none(what: str, left: list[str]) -> tuple[bool, str]:
    return not left, f"{what}: {', '.join(left) or 'none'}{' (expected none)' if left else ''}"


def _between(first: str | None, last: str | None) -> float | None:
    if first is None or last is None:
        return None
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
