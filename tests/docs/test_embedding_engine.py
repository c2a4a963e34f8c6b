"""What the README of the example's engine shows of its code is its code."""

import textwrap
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples/embedding_engine"


def test_the_thirty_lines_are_those_of_the_program() -> None:
    shown = (FOLDER / "README.md").read_text().partition("```python\n")[2].partition("```")[0]

    assert textwrap.indent(shown, "    ") in (FOLDER / "serve.py").read_text()
    assert len(shown.splitlines()) <= 30
