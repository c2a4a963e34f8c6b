"""Fixtures of the tests with a rank in the hand."""

import os
from pathlib import Path

import pytest
from tests.debug.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A terminal to sit at, and programs to debug."""
    return Desk(tmp_path)


@pytest.fixture(autouse=True)
def _plain_line_editing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `.pdbrc`, no `.inputrc`, no escape codes around a prompt."""
    (tmp_path / "inputrc").write_text("set enable-bracketed-paste off\nset bell-style none\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("INPUTRC", str(tmp_path / "inputrc"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    for name in ("PYTHONBREAKPOINT", "PYTHONSTARTUP"):
        monkeypatch.delenv(name, raising=False)
    assert "RANKGUARD_HOME" in os.environ
