"""One cell: start the ranks under the real command, let the fault happen, keep what came of it.

`play` takes this process for itself (see `stage.py`): call it where there are no other children. `play_apart` does the
same in a process of its own, from a test or from a thread. As a command: `python -m rankguard.testing.faults.play NAME
[--at PHASE] [--ranks N] [--victim R] [--start exec|function] [--json]`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any, BinaryIO

from rankguard.record import Record
from rankguard.testing.faults.catalogue import FAULTS
from rankguard.testing.faults.checks import checked
from rankguard.testing.faults.fault import PHASES, STARTS, Cell, Fault, words
from rankguard.testing.faults.stage import Stage
from rankguard.testing.faults.surroundings import look

START_TIMEOUT = "60"
"""Readiness is expected in all cells, so that each phase is one."""


_SHOWN = 64 << 10

PRELOAD = "rankguard.testing.faults.catalogue"


class Outcome(Record):
    """What came of one cell."""

    checks: tuple[tuple[bool, str], ...] = ()
    """(as it should be, what was looked at), in the words of `checks.py`."""
    verdict: dict[str, Any] | None = None
    """The object of `verdict.json`; empty where there was none."""
    status: int | None = None
    """The command's exit status; minus the signal that ended it."""
    took_s: float = 0.0
    """From the start of the command until nothing of it was left."""
    said: str = ""
    """Its output, in which the ranks' is."""
    run_dir: str | None = None
    """The run's folder, where it was to be kept."""
    why_not: str | None = None
    """Why it cannot be made here: nothing was run."""

    @property
    def wrong(self) -> tuple[str, ...]:
        """What is not as it should be."""
        return tuple(what for right, what in self.checks if not right)


def play(fault: Fault, cell: Cell, keep_run: bool = False) -> Outcome:
    """Make it once, in this process, which must have no other children.

    `fault`: which, a value of `FAULTS`.
    `cell`: the circumstance.
    `keep_run`: keep the run's folder, to look at: `Outcome.run_dir`.

    Returns once nothing of it is left. Raises `SpawnFailed` where not even a folder can be made.
    """
    if reason := fault.why_not(cell):
        return Outcome(why_not=reason)
    with open(os.memfd_create("said"), "w+b") as said, Stage(fault.name, cell.ranks, said.fileno()) as stage:
        began = time.monotonic()
        run(fault, cell, stage)
        status = stage.wait()
        left = stage.wait_empty()
        took = time.monotonic() - began
        verdict = stage.verdict()
        told = list(checked(fault.expect(cell), verdict, status, left))
        if cell.start != "function":
            told.append((verdict.get("start") == cell.start, f"start: {verdict.get('start')}"))
        over = took > fault.bound_s
        told.append((not over, f"took {took:.1f} s{f' (expected {fault.bound_s:g} s at most)' if over else ''}"))
        text = _both_ends(said).decode(errors="replace")
        if not keep_run:
            stage.forget_run()
        return Outcome(tuple(told), verdict, status, took, text, stage.run_dir if keep_run else None)


def _both_ends(file: BinaryIO) -> bytes:
    """The first and the last 64 KiB."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    first = file.read(_SHOWN)
    file.seek(max(_SHOWN, size - _SHOWN))
    return first + file.read()


def run(fault: Fault, cell: Cell, stage: Stage) -> None:
    """Start it and, where the phase is `stopping`, ask it to end. Returns before it has ended."""
    if fault.arrange is None:
        _start(fault, cell, stage, ())
    else:
        wrap = stage.enter(fault.arrange(stage, cell))
        _start(fault, cell, stage, wrap)
    if cell.at == "stopping" and stage.wait_told("stop-me"):
        assert stage.front is not None
        stage.front.send_signal(signal.SIGTERM)


def _start(fault: Fault, cell: Cell, stage: Stage, wrap: tuple[str, ...]) -> None:
    options = ("--ready-timeout", START_TIMEOUT, *fault.options(cell))
    program = words(fault.name, cell, stage.folder)
    if cell.start != "function":
        options += ("--start", cell.start, *(("--preload", PRELOAD) if cell.start == "warm" else ()))
        if fault.program is not None:
            program = fault.program(stage, cell, program)
        stage.start([*options, *program], wrap)
    else:
        asked = (str(cell.ranks), stage.run_dir, *options, *program[2:])
        stage.begin([*wrap, sys.executable, "-m", "rankguard.testing.faults.launched", *asked])


def play_apart(name: str, cell: Cell, timeout: float = 120.0, keep_run: bool = False) -> Outcome:
    """`play` in a process of its own, which looks at the machine itself: `cell.here` is not used.

    `name`: of the fault, a key of `FAULTS`.
    `cell`: the circumstance.
    `timeout`: seconds for all of it.
    `keep_run`: keep the run's folder, to look at: `Outcome.run_dir`.

    Raises `RuntimeError` when that process could not do it, `subprocess.TimeoutExpired` when it took too long.
    """
    asked = ["--at", cell.at, "--ranks", str(cell.ranks), "--victim", str(cell.victim), "--start", cell.start]
    command = [sys.executable, "-m", "rankguard.testing.faults.play", name, *asked, "--json"]
    ended = subprocess.run(
        [*command, *(["--keep"] if keep_run else [])],
        env=dict(os.environ),  # of its own: it may be asked from a thread, and setenv(3) in another moves the table
        stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False,
    )  # fmt: skip
    if ended.returncode not in (0, 1):
        raise RuntimeError(f"{name}: {ended.stderr.decode(errors='replace')}")
    return outcome(json.loads(ended.stdout))


def outcome(data: dict[str, Any]) -> Outcome:
    """From what `--json` prints."""
    return Outcome(**data | {"checks": tuple((bool(right), str(what)) for right, what in data["checks"])})


def main() -> int:
    """0 when all is as it should be, 1 when something differs, 3 when it cannot be made here."""
    from rankguard.record import to_data

    parser = argparse.ArgumentParser(prog="python -m rankguard.testing.faults.play")
    parser.add_argument("name", choices=FAULTS, metavar="NAME")
    parser.add_argument("--at", choices=PHASES, default="all-ready")
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--victim", type=int, default=1)
    parser.add_argument("--start", choices=STARTS, default="exec")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the run's folder")
    asked = parser.parse_args()
    cell = Cell(at=asked.at, ranks=asked.ranks, victim=asked.victim, start=asked.start, here=look())
    found = play(FAULTS[asked.name], cell, asked.keep)
    code = 3 if found.why_not and not asked.json else 1 if found.wrong else 0
    sys.stdout.write(json.dumps(to_data(found)) if asked.json else _shown(found))
    return code


def _shown(found: Outcome) -> str:
    if found.why_not:
        return f"cannot be made here: {found.why_not}\n"
    lines = [f"  {'ok   ' if right else 'WRONG'}  {what}\n" for right, what in found.checks]
    return "".join([found.said, "\n", *lines])
