"""Every drill: each fault of the laboratory (`testing/faults/`), at the moment at which it is told best, and a few that
are about rankguard's own processes or about a whole start.

To add a fault: see `testing/faults/catalogue/`. The tests, the list and `docs/drills.md` follow from it.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rankguard.drills import oom
from rankguard.record import Record
from rankguard.testing.faults.catalogue import FAULTS
from rankguard.testing.faults.checks import Expect
from rankguard.testing.faults.fault import Cell, Fault
from rankguard.testing.faults.stage import Stage
from rankguard.testing.faults.surroundings import Surroundings


class Setting(Record):
    """How a drill of its own is set up here. `wrap`: the words before the command; `lesser`: what it does not show."""

    program: tuple[str, ...]
    expect: Expect
    wrap: tuple[str, ...] = ()
    note: str | None = None
    lesser: str | None = None


class Drill(Record):
    """One drill: a fault of the laboratory, or a `setting` of its own, in which `act` is done once all ranks run."""

    name: str
    what: str
    fault: Fault | None = None
    setting: Callable[[Stage], AbstractContextManager[Setting]] | None = None
    options: tuple[str, ...] = ()
    ranks: int = 3
    act: Callable[[Stage], None] | None = None
    in_part: Callable[[], str | None] = lambda: None
    """What of it cannot be made here; null when nothing stands in the way."""

    def cell(self, here: Surroundings, ranks: int | None = None) -> Cell:
        """The circumstance in which the fault is made."""
        assert self.fault is not None
        at = next(phase for phase in ("all-ready", "starting") if phase in self.fault.phases)
        return Cell(at=at, ranks=ranks or self.ranks, here=here)

    def why_not(self, here: Surroundings, ranks: int | None = None) -> str | None:
        """Why it cannot be made here at all; null when it can, be it in part."""
        return None if self.fault is None else self.fault.why_not(self.cell(here, ranks))


def _kill(which: str) -> Callable[[Stage], None]:
    def act(stage: Stage) -> None:
        assert stage.front is not None
        warden, supervisor = stage.ours()
        os.kill({"front": stage.front.pid, "warden": warden, "supervisor": supervisor}[which], signal.SIGKILL)

    return act


@contextmanager
def _oom(stage: Stage) -> Iterator[Setting]:
    with oom.arranged(stage) as (limited, how, wrap, words):
        # Before the first victim's memory is free the kernel may take another: told as a failure of its own.
        also = (("who else failed was taken by the kernel, too", _only_ooms),)
        expect = Expect(
            "oom-kill", 137, culprits=tuple(range(1, stage.ranks)), others=("stopped", "independent"), also=also,
        )  # fmt: skip
        lesser = None
        if not limited:
            expect = expect.replace(kind="memory-limit", status=1, others=("stopped",), also=())
            lesser = "no memory cgroup can be made here: neither the kernel's OOM killer nor its proof was shown"
        yield Setting(tuple(words), expect, tuple(wrap), how, lesser)


def _only_ooms(verdict: dict[str, Any]) -> bool:
    others = (row for row in verdict["ranks"] if row["relation"] == "independent")
    return all(row["cause"]["kind"] == "oom-kill" for row in others)


@contextmanager
def _not_there(stage: Stage) -> Iterator[Setting]:
    expect = Expect(
        "cannot-start", 127, culprits=tuple(range(stage.ranks)), others=("stopped", "independent"),
        family="program",
    )  # fmt: skip
    yield Setting(("--no-python", f"{stage.folder}/nosuch"), expect)


def _ours(which: str, ended_by: int | None = None) -> Drill:
    """One of rankguard's own processes is killed, while all ranks wait."""

    @contextmanager
    def setting(stage: Stage) -> Iterator[Setting]:
        expect = Expect("supervisor-lost", 125, culprits=None, ended_by=ended_by)
        yield Setting((str(Path(__file__).with_name("wait.py")), stage.folder), expect)

    called = "the command itself" if which == "front" else f"rankguard's {which}"
    return Drill(f"{which}-killed", f"somebody kills {called}", setting=setting, act=_kill(which))


def _all() -> Iterator[Drill]:
    yield Drill(
        "oom", "the OOM killer ends a rank, rank 0 still loads", setting=_oom, in_part=oom.why_not, ranks=8,
        options=("--ready-timeout", "60"),
    )  # fmt: skip
    for fault in FAULTS.values():
        yield Drill(fault.name, fault.what, fault)
    yield Drill("cannot-start", "the program is not there", setting=_not_there)
    yield _ours("supervisor")
    yield _ours("warden")
    yield _ours("front", signal.SIGKILL)


DRILLS = {drill.name: drill for drill in _all()}
"""By name, in the order in which `drill all` plays them."""
