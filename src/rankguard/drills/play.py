"""Play one drill: set it up, run the real command, show its report, compare. Prints; returns whether it was right."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rankguard.drills.catalogue import DRILLS, Drill, Setting
from rankguard.testing.faults.checks import checked
from rankguard.testing.faults.stage import Stage

_PROGRAMS = str(Path(__file__).with_name("programs.py"))


def play(drill: Drill, ranks: int | None = None) -> bool:
    """Run it with its own number of ranks, or with `ranks`; true when everything was as it should be.

    Raises `Interrupted` (nothing is left then) and `SpawnFailed`.
    """
    with Stage(drill.name, ranks or drill.ranks) as stage, (drill.setting or _plain(drill))(stage) as setting:
        print(f"drill {drill.name}: {drill.what}; {stage.ranks} ranks{f' in {setting.note}' if setting.note else ''}")
        if drill.prepare is not None:
            drill.prepare(stage)
        stage.start([*drill.options, *setting.program], setting.wrap)
        if drill.act is not None:
            stage.wait_started()
            drill.act(stage)
        status = stage.wait()
        left = stage.wait_empty()
        told = list(checked(setting.expect, stage.verdict(), status, left))
    sys.stderr.flush()
    for right, what in told:
        print(f"  {'ok   ' if right else 'WRONG'}  {what}")
    if setting.lesser:
        print(f"  note   {setting.lesser}")
    wrong = [what for right, what in told if not right]
    print(f"drill {drill.name}: {'as it should be' if not wrong else 'differs: ' + '; '.join(wrong)}")
    return not wrong


def listing() -> Iterator[str]:
    """A line for each drill: its name, what happens, and what this machine cannot make of it."""
    for drill in DRILLS.values():
        reason = drill.why_not()
        can = "yes" if reason is None else "no" if drill.impossible() else "in part"
        yield f"{drill.name:18} {can:8} {drill.what}"
        if reason is not None:
            yield f"{'':27} {reason}"


def _plain(drill: Drill) -> Callable[[Stage], AbstractContextManager[Setting]]:
    """The setting of a drill that needs nothing special."""

    def setting(stage: Stage) -> AbstractContextManager[Setting]:
        words = (_PROGRAMS, drill.part, stage.folder, stage.shm)
        return nullcontext(Setting(words if drill.part else ("--no-python", f"{stage.folder}/nosuch"), drill.expect))

    return setting
