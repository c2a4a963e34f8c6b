"""docs/signals.md has the tables of these tests, to the letter. `UPDATE_GOLDEN=1 pytest tests/signals` writes them anew."""

import os
import re
from importlib import import_module
from pathlib import Path

from tests.signals.rows import ROWS, STATUS

PAGE = Path(__file__).parents[2] / "docs" / "signals.md"
HELD_BY = ("test_requests", "test_on_a_terminal", "test_complaints", "test_frozen", "test_exit_status")


def test_the_page_has_every_row() -> None:
    for module in HELD_BY:
        import_module(f"tests.signals.{module}")
    page = PAGE.read_text()

    made = put(put(page, "signals", signals()), "status", status())

    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(made)
        page = made
    assert page == made


def put(page: str, name: str, table: str) -> str:
    """The page with this table between its marks."""
    made, times = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m: m[1] + table + m[2], page, flags=re.DOTALL
    )
    assert times == 1, name
    return made


def signals() -> str:
    """Requests first, as they stand in their file; then the others, file by file."""
    order = sorted(ROWS, key=lambda test: HELD_BY.index(test[0]))
    lines = ["| signal | sent by | state | what happens | exit status |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(entry)} |" for test in order for entry in [ROWS[test]]]
    return "\n".join(lines) + "\n"


def status() -> str:
    lines = ["| exit status | when |", "|---|---|"]
    names = dict.fromkeys(entry.name for entry in STATUS)
    lines += [f"| {name} | {'; '.join(entry.when for entry in STATUS if entry.name == name)} |" for name in names]
    return "\n".join(lines) + "\n"
