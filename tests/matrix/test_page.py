"""docs/matrix.md tells of what there is: every fault, every value of every axis; and its figures add up."""

import re

import pytest
from tests.matrix.axes import AXES, MEANING, Place, asked, everything, sample
from tests.matrix.page import PAGE

from rankguard.testing import faults

ROW = re.compile(r"^\| `(?P<fault>[\w-]+)` \| (?P<what>.*?) \| (?P<counts>(?:\d+ \| ){4})", re.MULTILINE)


def test_every_fault_has_its_row() -> None:
    told = {row["fault"]: row["what"].replace("\\|", "|") for row in ROW.finditer(PAGE.read_text())}

    assert told == {name: fault.what for name, fault in faults.FAULTS.items()}  # anew: make matrix ARGS=--write


def test_the_figures_are_those_of_the_rows() -> None:
    text = PAGE.read_text()
    rows = [[int(count) for count in row["counts"].split("|") if count.strip()] for row in ROW.finditer(text)]

    total = re.search(r"\*\*(\d+) cells: (\d+) right, (\d+) wrong, (\d+) cannot be made\*\*", text)

    assert total is not None
    assert [int(number) for number in total.groups()] == [sum(column) for column in zip(*rows, strict=True)]
    assert all(cells == len(everything()) // len(faults.FAULTS) for cells, *_others in rows)
    reasons = re.findall(r"^\| (\d+) \| \D", text, re.MULTILINE)
    assert sum(map(int, reasons)) == int(total[4])


def test_every_value_is_explained() -> None:
    text = PAGE.read_text()

    for axis in AXES[1:]:
        for value in axis:
            assert f"| `{value}` | {MEANING[value]} |" in text


def test_a_cell_is_named_by_its_values() -> None:
    one = Place("kill", "all-ready", "exec", "ro", "nobody")

    assert asked([str(one)]) == [one]
    assert len(asked(["kill"])) == len(everything()) // len(faults.FAULTS)
    assert {place.fault for place in asked(["oom*/*/exec"])} == {
        name for name in faults.FAULTS if name.startswith("oom")
    }
    assert set(sample()) <= set(everything())
    with pytest.raises(ValueError, match="`kil`: expected FAULT/AT/START/GROUPS/USER"):
        asked(["kil"])
