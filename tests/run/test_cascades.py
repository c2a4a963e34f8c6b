"""One real cascade of each kind: a rank fails, all others end because of it, and that rank is named.

A small sample of `make cascades` (`bench/cascades.py`), which makes a thousand of each.
"""

import importlib.util
import random
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("cascades", Path(__file__).parents[2] / "bench/cascades.py")
cascades = importlib.util.module_from_spec(_SPEC)
sys.modules["cascades"] = cascades
_SPEC.loader.exec_module(cascades)

KINDS = [kind for kind in cascades.kinds() if kind.program != "torch" and not kind.both]
RANKS = 4


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return cascades.Bench(tmp_path_factory.mktemp("cascades"), RANKS, random.Random(1))


def hard(kind):
    """A cell of the kind that is cheap, and as hard as any: victims at once, memory and threads to give back first."""
    if kind.program == "c":
        return next(cell for cell in kind.cells if cell[2:6] == ("400", "64", "0", "0"))
    return next((cell for cell in kind.cells if cell[1] == "0.05"), kind.cells[0])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_first_is_named(bench, kind):
    outcome = bench.one(kind, hard(kind))

    assert outcome.grade in (("right", "either") if kind.open else ("right",)), outcome.note
    assert outcome.told or kind.open, outcome.note
