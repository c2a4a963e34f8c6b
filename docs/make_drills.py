# ruff: noqa: INP001  # a script, not a package
"""Makes docs/drills.md from the catalogue of faults: `PYTHONPATH=src python docs/make_drills.py`.

`UPDATE_GOLDEN=1 pytest tests/drills -k page` writes it anew, too; the same test holds the page to the catalogue.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from rankguard.drills.catalogue import DRILLS, Drill  # noqa: E402  # the path comes first
from rankguard.testing.faults.surroundings import Surroundings  # noqa: E402

PAGE = ROOT / "docs" / "drills.md"

HEAD = """# Drills

`rankguard drill NAME` makes a real failure happen on this machine: real ranks under the real command, in a temporary folder. It shows the report as you would see it, then checks the verdict, the exit status and that nothing is left running, a line each, and ends with `drill NAME: as it should be` (exit status 0) or with what differs (1). Use it to see what a failure looks like before you have one, and to see what rankguard can tell on *this* machine.

`rankguard drill` lists them, each with whether it can be made here: `yes`, `in part` or `no`, and why. `rankguard drill all` plays all that can be made, in about two minutes. `-n RANKS` changes the number of ranks. The run stays on disk, so that `rankguard report` and `rankguard explain` work on it.

No drill needs root but two, and what can be proved differs with what may be read: that is in the table, and the checks hold the verdict to what *this* machine can prove, no less and no more.

It is rank 1 that fails, and it fails when all ranks are ready, unless the table says otherwise; who has to come after somebody else waits for it in a FIFO, so that no drill stands on a delay. The same faults can be made of any rank at other moments, and under other launchers: [testing](testing.md).

Made by `docs/make_drills.py` from `testing/faults/catalogue/`. Do not edit it by hand: `make docs` writes it anew.

| drill | what happens | cause | confidence | exit status |
|---|---|---|---|---|
"""

TAIL = """
Ctrl-C ends a drill and leaves nothing of it. A drill that is killed with SIGKILL leaves no process (the command dies with it, and the ranks with the command), but its temporary folder `rankguard-drill-PID-…`, which `rankguard doctor --clean` removes.

To add one: a function in `testing/faults/parts/`, a record in `testing/faults/catalogue/`, `make docs`; the tests play it.
"""

OWN = {
    "oom": ("ranks fill host memory one after another under a limit; the kernel's OOM killer ends one while rank 0 still loads", "`oom-kill`; without a memory cgroup `memory-limit`", "proven", "137; else 1"),
    "cannot-start": ("the program is not there", "`cannot-start`", "proven", "127"),
    "supervisor-killed": ("somebody kills rankguard's supervisor: the warden ends everything, the command gives the verdict", "`supervisor-lost`", "proven", "125"),
    "warden-killed": ("somebody kills rankguard's warden: the supervisor ends everything", "`supervisor-lost`", "proven", "125"),
    "front-killed": ("somebody kills the command itself: no report can be shown, the verdict is on disk", "`supervisor-lost`", "proven", "125 in the verdict"),
}  # fmt: skip

ALL = Surroundings()
GRADES = (
    ("no memory cgroup of its own", ALL.replace(own_groups=False)),
    ("neither that nor the kernel log", ALL.replace(own_groups=False, kernel_log=False)),
    ("no counter of OOM kills", ALL.replace(own_groups=False, kernel_log=False, counters=False)),
)


def page() -> str:
    """The whole page."""
    return HEAD + "".join(f"| {' | '.join((f'`{drill.name}`', *_row(drill)))} |\n" for drill in DRILLS.values()) + TAIL


def _row(drill: Drill) -> tuple[str, ...]:
    if drill.fault is None:
        return OWN[drill.name]
    cell = drill.cell(ALL)
    expect = drill.fault.expect(cell)
    when = "" if cell.at == "all-ready" or "ready" in drill.what else ", while it starts"
    return (
        f"{drill.what}{when}",
        _words(expect.kind, "`"),
        "; ".join(_grades(drill)),
        _words(expect.status),
    )


def _grades(drill: Drill) -> Iterator[str]:
    assert drill.fault is not None
    cell = drill.cell(ALL)
    told = first = drill.fault.expect(cell).confidence
    yield _words(first)
    for lesser, here in GRADES:
        less = drill.fault.expect(cell.replace(here=here)).confidence
        if less != told and drill.fault.needs(here) is None:
            yield f"{_words(less)} with {lesser}"
            told = less


def _words(of: object, mark: str = "") -> str:
    return " or ".join(f"{mark}{each}{mark}" for each in (of if isinstance(of, tuple) else (of,)))


if __name__ == "__main__":
    PAGE.write_text(page())
