"""docs/from-torchrun.md is what the table of options makes of it. `UPDATE_GOLDEN=1 pytest` on this file writes it anew."""

import os

import pytest
from tests.makers import maker_of

from rankguard.cli.arguments import parse
from rankguard.cli.options import OPTIONS


@pytest.fixture(scope="module")
def maker():
    return maker_of("from_torchrun")


def test_the_page_is_up_to_date(maker):
    if os.environ.get("UPDATE_GOLDEN"):
        maker.PAGE.write_text(maker.page())

    expected = maker.page()

    assert expected == maker.PAGE.read_text()


def test_no_cell_is_empty(maker):
    rows = list(maker.rows())

    assert [row for row in rows if len(row) != 4 or not all(cell.strip() for cell in row)] == []
    assert [row for row in rows if any("|" in cell or "\n" in cell for cell in row)] == []
    assert len(rows) == len([option for option in OPTIONS if option.torchrun is not None]) + 2


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.torchrun], ids=lambda option: option.name)
def test_how_an_option_compares_is_said_with_a_reason(option):
    words = ("same", "better", "no effect", "refused")
    word = next(word for word in words if option.torchrun.startswith(word))

    assert word == "same" or len(option.torchrun) > len(word) + 10


@pytest.mark.parametrize(
    "option",
    [option for option in OPTIONS if (option.torchrun or "").startswith("same")],
    ids=lambda option: option.name,
)
def test_what_is_the_same_has_the_same_default(option):
    """torchrun's, read as we read it; that it is torchrun's is tested with torch."""
    ours = getattr(parse(["x"], {}), option.field)
    theirs = option.parse(option.theirs) if isinstance(option.theirs, str) else option.theirs

    assert ours == theirs
