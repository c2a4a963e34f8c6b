"""Play one drill: set it up, run the real command, show its report, compare. Prints; returns whether it was right."""

import sys
import textwrap
from collections.abc import Iterator

from rankguard.drills.catalogue import DRILLS, Drill
from rankguard.testing.faults.cells import run
from rankguard.testing.faults.checks import checked
from rankguard.testing.faults.stage import Stage
from rankguard.testing.faults.surroundings import Surroundings, look

_WHEN = {"starting": "while it starts", "all-ready": "when all are ready"}


def play(drill: Drill, ranks: int | None = None, here: Surroundings | None = None) -> bool:
    """Run it with its own number of ranks, or with `ranks`; true when everything was as it should be.

    Raises `Interrupted` (nothing is left then) and `SpawnFailed`.
    """
    with Stage(drill.name, ranks or drill.ranks) as stage:
        told, lesser = (_of_its_own if drill.fault is None else _of_a_fault)(drill, stage, here)
    sys.stderr.flush()
    for right, what in told:
        print(f"  {'ok   ' if right else 'WRONG'}  {what}")
    if lesser:
        print(f"  note   {lesser}")
    wrong = [what for right, what in told if not right]
    print(f"drill {drill.name}: {'as it should be' if not wrong else 'differs: ' + '; '.join(wrong)}")
    return not wrong


def listing() -> Iterator[str]:
    """A line for each drill: its name, what happens, and what this machine cannot make of it."""
    here = look()
    for drill in DRILLS.values():
        no, part = drill.why_not(here), drill.in_part()
        yield f"{drill.name:24} {'no' if no else 'in part' if part else 'yes':8} {drill.what}"
        yield from textwrap.wrap(no or part or "", 80, initial_indent=" " * 34, subsequent_indent=" " * 34)


_Told = tuple[list[tuple[bool, str]], str | None]


def _of_a_fault(drill: Drill, stage: Stage, here: Surroundings | None) -> _Told:
    assert drill.fault is not None
    cell = drill.cell(here or look(), stage.ranks)
    _say(drill, f"rank {cell.victim} of {cell.ranks} {drill.what}, {_WHEN[cell.at]}")
    run(drill.fault, cell, stage)
    status = stage.wait()
    left = stage.wait_empty()
    return list(checked(drill.fault.expect(cell), stage.verdict(), status, left)), None


def _of_its_own(drill: Drill, stage: Stage, _here: Surroundings | None) -> _Told:
    assert drill.setting is not None
    setting = stage.enter(drill.setting(stage))
    _say(drill, f"{drill.what}; {stage.ranks} ranks{f' in {setting.note}' if setting.note else ''}")
    stage.start([*drill.options, *setting.program], setting.wrap)
    if drill.act is not None:
        stage.wait_started()
        drill.act(stage)
    status = stage.wait()
    left = stage.wait_empty()
    return list(checked(setting.expect, stage.verdict(), status, left)), setting.lesser


def _say(drill: Drill, what: str) -> None:
    print(f"drill {drill.name}: {what}")
