"""docs/machine.md is what the tables and the scenarios make of it. `UPDATE_GOLDEN=1 pytest tests/core` writes it anew."""

import importlib.util
import os
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_machine", ROOT / "docs" / "make_machine.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    if os.environ.get("UPDATE_GOLDEN"):
        maker.PAGE.write_text(maker.page())

    expected = maker.page()

    assert expected == maker.PAGE.read_text()
