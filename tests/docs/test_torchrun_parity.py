"""docs/torchrun-parity.md: every test that it names exists, and every scenario has one, or the reason why not."""

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/torchrun-parity.md"
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split(" | "))
    for line in PAGE.read_text().splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| scenario |", "| case |"))
]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE.read_text())))


@cache
def named_in(path: str) -> set[str]:
    return set(re.findall(r"^ *def (test\w*)", (ROOT / path).read_text(), re.MULTILINE))


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 80
    assert [(path, name) for path, name in NAMED if not (ROOT / path).exists() or not named_in(path)] == []
    assert [f"{path}::{name}" for path, name in NAMED if name and name not in named_in(path)] == []


def test_every_row_has_a_test_or_a_reason() -> None:
    assert len(ROWS) > 80
    assert [row for row in ROWS if len(row) != 3 or not all(row)] == []
    assert [
        row for row in ROWS if "`tests/" not in row[2] and not (row[2].startswith("–: ") and len(row[2]) > 15)
    ] == []


def test_no_scenario_stands_in_two_rows() -> None:
    names = [name for row in ROWS for name in re.findall(r"`(test_\w+)`", row[0])]

    assert len(names) > 100
    assert [name for name in sorted(set(names)) if names.count(name) > 1] == []
