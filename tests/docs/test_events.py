"""docs/events.md and schema/events-1.json are what the facts make of them, and journals are what the schema says.

`make docs`, or `UPDATE_GOLDEN=1 pytest tests/docs/test_events.py`, writes both anew.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest
from tests.makers import maker_of
from tests.run.command import Ranks

from rankguard.core import story
from rankguard.core.machine import step
from rankguard.errors import RankguardBug
from rankguard.testing.grammar import parse
from rankguard.testing.player import Player, spec_of

SCENARIOS = Path(__file__).parents[1] / "scenarios"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    module = maker_of("events")
    if os.environ.get("UPDATE_GOLDEN"):
        module.PAGE.write_text(module.page())
        module.SCHEMA.write_text(module.schema())
    return module


@pytest.fixture(scope="module")
def schema() -> dict:
    return json.loads((files("rankguard") / "schema" / "events-1.json").read_text())


class Rules:
    """The schema, asked for one line at a time: its own rules for a kind of line, so that 100,000 lines take seconds."""

    def __init__(self, schema: dict) -> None:
        self._whole = jsonschema.Draft202012Validator(schema)
        self._of = {
            name: jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})
            for name in schema["$defs"]
        }

    def wrong(self, line: dict) -> list[str]:
        """What is wrong with a line; one that the schema does not know is wrong here, too."""
        name = line.get("fact", line.get("order"))
        rules = self._whole if name is None else self._of.get(name)
        if rules is None or not {"schema", "fact", "order", "note", "failed"} & set(line):
            return [f"unknown: {line}"]
        return [f"{name or next(iter(line))}{e.json_path[1:]}: {e.message}"[:300] for e in rules.iter_errors(line)]


@pytest.fixture(scope="module")
def rules(schema: dict) -> Rules:
    return Rules(schema)


# ── Both are current and complete ────────────────────────────────────────────────────────────────────────────────


def test_the_page_is_up_to_date(maker: ModuleType) -> None:
    assert maker.page() == maker.PAGE.read_text()


def test_the_schema_is_up_to_date(maker: ModuleType, schema: dict) -> None:
    assert maker.schema() == maker.SCHEMA.read_text()
    jsonschema.Draft202012Validator.check_schema(schema)


def test_everything_has_its_words_and_its_unit(maker: ModuleType) -> None:
    silent = [kind.__name__ for kind in [*maker.FACTS, *maker.ORDERS, *maker.nouns()] if not kind.__doc__]
    unmeasured = [
        f"{kind.__name__}.{field}"
        for kind in [*maker.FACTS, *maker.nouns()]
        for field, hint in maker.get_type_hints(kind).items()
        if field in kind._fields and float in (hint, *maker.get_args(hint)) and not maker.unit(kind, field)
    ]

    assert silent == []
    # In a unit of the rank's own.
    assert sorted(unmeasured) == ["StatusTold.done", "StatusTold.total"]


def test_headings_are_unique(maker: ModuleType) -> None:
    titles = re.findall(r"^#+ (.*)$", maker.PAGE.read_text(), re.MULTILINE)

    assert len(set(map(str.lower, titles))) == len(titles)


# ── Journals ─────────────────────────────────────────────────────────────────────────────────────────────────────


def journal_of(scenario: Path) -> Iterator[str]:
    lines = [line for line in scenario.read_text().splitlines() if line and line[0] not in " #"]
    player = Player(spec_of(lines[0]))
    yield story.first_line(player.job.spec)
    for line in lines[1:]:
        for fact in parse(line, lambda name: player.job.generations.get(name, 0)):
            try:
                orders = step(player.job, fact)
            except RankguardBug:
                continue
            yield story.lines(fact, orders)


def test_the_journals_of_all_scenarios_are_as_the_schema_says(rules: Rules, maker: ModuleType) -> None:
    lines = [
        json.loads(line)
        for file in sorted(SCENARIOS.glob("*.txt"))
        for text in journal_of(file)
        for line in text.splitlines()
    ]
    told = {line.get("fact", line.get("order")) for line in lines}

    assert [found for line in lines for found in rules.wrong(line)] == []
    never = {"KernelNoted", "GpusRead", "Surveyed", "Degraded", "Warned"}  # no state follows from them
    assert {kind.__name__ for kind in [*maker.FACTS, *maker.ORDERS]} - told <= never | {
        "Perished",
        "SignalRank",
        "OomSeen",
    }


SAYS = "import rankguard\nme = rankguard.this_rank(); me.status('loading', 1, 2); me.ready({'port': 1})\nprint('x', flush=True)\n"
FAILS = "if RANK: raise ConnectionResetError('gone')\nsys.exit('no such file: /nowhere/x')"
AGAIN = ["--max-restarts", "1", "--restart-delay", "0", "--label", "a=b", "--ready-timeout", "60"]


@pytest.mark.parametrize(
    ("n", "options", "text", "expected"),
    [
        (2, [], SAYS + FAILS, {"schema", "Exited", "StatusTold", "Judged", "Finish"}),
        pytest.param(2, AGAIN, SAYS + FAILS, {"failed", "Judged"}, marks=pytest.mark.slow),
        pytest.param(
            2, [], "os.kill(os.getpid(), 11) if RANK else sys.stdin.read()", {"Surveyed"}, marks=pytest.mark.slow
        ),
        pytest.param(1, ["--stall-timeout", "0.2"], "os.read(os.pipe()[0], 1)", {"Examined"}, marks=pytest.mark.slow),
    ],
)
def test_the_journals_of_real_runs_are_as_the_schema_says(
    rules: Rules, tmp_path: Path, n: int, options: list[str], text: str, expected: set[str]
) -> None:
    run = Ranks(tmp_path).run(n, text, *options)
    lines = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]

    assert [found for line in lines for found in rules.wrong(line)] == []
    assert expected <= {line.get("fact", line.get("order", next(iter(line)))) for line in lines}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ({"fact": "Exited", "at": 1.0, "rank": 0}, "Exited: 'ending' is a required property"),
        ({"fact": "Exited", "at": 1.0, "rank": 0, "ending": {"kind": 3}}, "Exited.ending.kind: 3 is not of type 'string'"),
        ({"fact": "Spawned", "at": "1", "rank": 0, "pid": 7}, "Spawned.at: '1' is not of type 'number'"),
        ({"fact": "Looked", "at": 1.0, "dying": [[0]]}, "Looked.dying[0]: [0] is too short"),
        ({"order": "Spawn", "first": 0, "last": 1}, "Spawn: 'because' is a required property"),
        ({"schema": "rankguard.events/2", "spec": {}}, "schema.schema: 'rankguard.events/1' was expected"),
        ({"note": 3}, "note.note: 3 is not of type 'string'"),
        ({"failed": {}}, "failed.failed: 'attempt' is a required property"),
    ],
)  # fmt: skip
def test_what_is_none_of_ours_is_refused(schema: dict, rules: Rules, line: dict, wrong: str) -> None:
    assert wrong in rules.wrong(line)
    assert not jsonschema.Draft202012Validator(schema).is_valid(line)


def test_what_comes_later_is_let_through(schema: dict) -> None:
    known = jsonschema.Draft202012Validator(schema)

    assert known.is_valid({"fact": "Later", "at": 1.0})
    assert known.is_valid({"order": "Later"})
    assert known.is_valid({"later": {}})
    assert known.is_valid({"fact": "Resumed", "at": 1.0, "later": []})


if __name__ == "__main__":  # PYTHONPATH=. python tests/docs/test_events.py JOURNAL… : those of any run
    told = Rules(json.loads((files("rankguard") / "schema" / "events-1.json").read_text()))
    count = 0
    for name in sys.argv[1:]:
        for text in Path(name).read_text(errors="replace").splitlines():
            count += 1
            try:
                found = told.wrong(json.loads(text))
            except ValueError:
                found = ["no JSON"]
            if found:
                print(name, *found)
    print(count, "lines")
