"""Each row once, small and without torch: it gives its figures, nothing fails, and nothing is left running.

What is looked at is that the bench works, not how fast anything is: this machine may be busy.
"""

import shutil

import pytest
from bench.measure import Line
from bench.peers import Peers
from bench.rows import FILES, row
from bench.setting import Setting
from tests.marks import slowly

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="the bench compiles its ranks: no gcc")


@pytest.fixture
def setting(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKGUARD_HOME", str(tmp_path))  # which the setting changes: put back at the end
    return Setting(tmp_path, Peers(install=False, torch=False), quick=True)


@pytest.mark.parametrize("letter", ["b", "e", "i", *slowly("a", "f", "g", "h", "j")])
def test_a_row_gives_its_figures(setting: Setting, letter: str) -> None:
    lines = row(letter).run(setting)

    assert lines
    for line in lines:
        assert (line.row, line.ours.failed, line.ours.missing) == (letter, [], None), line.what
        assert line.ours.values, line.what
        assert [each.failed for each in line.peers if not each.missing] == [
            [] for each in line.peers if not each.missing
        ]
        assert Line.of(line.data()) == line


@pytest.mark.parametrize("letter", ["c", "d"])
def test_a_row_without_torch_says_so(setting: Setting, letter: str) -> None:
    for line in row(letter).run(setting):
        assert {each.missing for each in (line.ours, *line.peers)} == {"left out"}
        assert line.reached is None


def test_every_row_has_its_file_and_says_what_it_measures() -> None:
    assert list(FILES) == list("abcdefghij")
    for letter in FILES:
        assert row(letter).__doc__.startswith(f"Row {letter}. ")
