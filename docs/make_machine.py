# ruff: noqa: INP001  # a script, not a package
"""Makes docs/machine.md from the tables of the core and from the scenarios: `PYTHONPATH=src python docs/make_machine.py`.

The tables say what each fact does in each phase; which phase follows is seen by playing tests/scenarios. A test holds the
page to both.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from rankguard.core import policy  # noqa: E402  # the path comes first
from rankguard.core.jobs import _DEADLINES  # noqa: E402
from rankguard.core.machine import JOB_TABLE, RANK_TABLE, Ignored, JobPhase, Refused, job_phase, step  # noqa: E402
from rankguard.errors import RankguardBug  # noqa: E402
from rankguard.model import Phase  # noqa: E402
from rankguard.testing.grammar import parse  # noqa: E402
from rankguard.testing.player import Player, spec_of  # noqa: E402

PAGE = ROOT / "docs" / "machine.md"
SCENARIOS = ROOT / "tests" / "scenarios"
Edges = dict[tuple[str, str], set[str]]

HEAD = """# The machine

Made by `docs/make_machine.py` from the tables in `src/rankguard/core/machine.py`; what the arrows say was seen in
`tests/scenarios`. Do not edit it by hand: `UPDATE_GOLDEN=1 pytest tests/core` writes it anew.

Facts go in, one at a time; orders come out. A job and each of its ranks are in one phase at any time. What a fact does
depends on its kind and on that phase, and every pair of the two has a cell:

- a name: the function in `core/ranks.py` or `core/jobs.py` that takes the fact; what it does is told below
- *ignored*, with the reason: it may well happen, and changes nothing
- **refused**, with the reason: it cannot be; one that comes all the same is a fault of ours (`RankguardBug`)
"""

OF_JOBS = """`sweeping`: every rank has ended, and what they left behind is ended too. A job whose processes refuse to die
is finished as well, and the verdict names them. Processes of somebody else are never swept: such a job is over when its
owner says so.
"""

OF_RANKS = """`starting` is where readiness is expected, `running` where it is not. `stopping` begins for all ranks in the same
instant; not every job stops, so a rank may end from any phase.
"""


def page() -> str:
    """The whole page."""
    job_edges, rank_edges = edges()
    parts = [
        HEAD,
        "## A job\n",
        _diagram(JobPhase, job_edges),
        OF_JOBS,
        _table("fact", JobPhase, JOB_TABLE),
        "## A rank\n",
        _diagram(Phase, rank_edges),
        OF_RANKS,
        _table("fact", Phase, RANK_TABLE),
        "## What the functions do\n",
        "\n".join(_functions()) + "\n",
        "## Deadlines\n",
        "Set by a `WakeAt`, told by a `DeadlinePassed` of the same generation; an older one is dropped.\n",
        "\n".join(_deadlines()) + "\n",
        "## Clocks\n",
        "\n".join(_clocks()),
    ]
    return "\n".join(parts) + "\n"


# ── What was seen in the scenarios ───────────────────────────────────────────────────────────────────────────────


def edges() -> tuple[Edges, Edges]:
    """Which fact led from which phase to which: of jobs, and of ranks."""
    of_jobs: Edges = {}
    of_ranks: Edges = {}
    for file in sorted(SCENARIOS.glob("*.txt")):
        lines = [line for line in file.read_text().splitlines() if line and line[0] not in " #"]
        player = Player(spec_of(lines[0]))
        for line in lines[1:]:
            _follow(player, line, of_jobs, of_ranks)
    return of_jobs, of_ranks


def _follow(player: Player, line: str, of_jobs: Edges, of_ranks: Edges) -> None:
    job = player.job
    for fact in parse(line, lambda name: job.generations.get(name, 0)):
        before = job_phase(job), [job.phase(rank) for rank in job.ranks]
        try:
            step(job, fact)
        except RankguardBug:
            continue
        after = job_phase(job), [job.phase(rank) for rank in job.ranks]
        name = type(fact).__name__
        if before[0] is not after[0]:
            of_jobs.setdefault((before[0], after[0]), set()).add(name)
        own = getattr(fact, "rank", None)
        for number, (old, new) in enumerate(zip(before[1], after[1], strict=False)):
            if old is not new:
                others = {Phase.STOPPING: "the job stops", Phase.READY: "its engine is ready"}
                why = name if number == own else others.get(new, "readiness is expected")
                of_ranks.setdefault((old, new), set()).add(why)


def _diagram(phases: Iterable[str], seen: Edges) -> str:
    order = list(phases)
    lines = [f"    [*] --> {order[0]}"]
    for (old, new), facts in sorted(seen.items(), key=lambda edge: (order.index(edge[0][0]), order.index(edge[0][1]))):
        lines.append(f"    {old} --> {new}: {', '.join(sorted(facts))}")
    lines.append(f"    {order[-1]} --> [*]")
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```", ""])


# ── What the tables say ──────────────────────────────────────────────────────────────────────────────────────────


def _table(corner: str, phases: Iterable[str], table: Mapping[type, Mapping[Any, Any]]) -> str:
    columns = list(phases)
    lines = [_row(corner, *columns), _row(*["---"] * (len(columns) + 1))]
    lines += [_row(f"`{fact.__name__}`", *(_cell(row[phase]) for phase in columns)) for fact, row in table.items()]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Any) -> str:
    if isinstance(cell, Ignored):
        return f"*ignored*: {cell.why}"
    return f"**refused**: {cell.why}" if isinstance(cell, Refused) else f"`{cell.__name__}`"


def _functions() -> Iterator[str]:
    told: set[str] = set()
    for table in (JOB_TABLE, RANK_TABLE):
        for row in table.values():
            for cell in row.values():
                if callable(cell) and cell.__doc__ and cell.__name__ not in told:
                    told.add(cell.__name__)
                    yield f"- `{cell.__name__}`: {_said(cell)}"


def _deadlines() -> Iterator[str]:
    yield _row("deadline", "when it has come")
    yield _row("---", "---")
    for name, function in _DEADLINES.items():
        yield _row(f"`{name}`", _said(function))


def _clocks() -> Iterator[str]:
    """The constants of `policy.py`, each with the text that stands below it."""
    yield _row("clock", "seconds", "why")
    yield _row("---", "---", "---")
    lines = inspect.getsource(policy).splitlines()
    for number, line in enumerate(lines):
        name, equals, value = line.partition(" = ")
        if equals and name.isupper() and "." in value:
            text = " ".join(lines[number + 1 :]).split('"""')[1]
            yield _row(f"`{name}`", value, text)


def _said(function: Callable[..., Any]) -> str:
    return " ".join(inspect.getdoc(function).split()) if function.__doc__ else "—"  # type: ignore[union-attr]  # it has one


if __name__ == "__main__":
    PAGE.write_text(page())
