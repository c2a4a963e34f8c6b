"""docs/machine.md is what the tables and the scenarios make of it. `UPDATE_GOLDEN=1 pytest tests/core` writes it anew."""

import os

from tests.makers import maker_of


def test_the_page_is_up_to_date():
    maker = maker_of("machine")
    if os.environ.get("UPDATE_GOLDEN"):
        maker.PAGE.write_text(maker.page())

    expected = maker.page()

    assert expected == maker.PAGE.read_text()
