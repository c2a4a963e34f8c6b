"""Few cells of the matrix that cover all pairs of the axes' values; with `make test-slow` each fault, too. The whole of
it is `make matrix`.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.matrix.axes import Place, cannot, everything, meaningful, pairs, sample, spread
from tests.matrix.page import wrong
from tests.matrix.place import ROOT
from tests.matrix.runner import Result

from rankguard.linux.libc import PR_SET_PDEATHSIG, prctl
from rankguard.testing import faults

SAMPLE = sample()
SPREAD = spread(SAMPLE)
CELLS = [pytest.param(place, id=str(place), marks=() if place in SPREAD else pytest.mark.slow) for place in SAMPLE]


class Results:
    """What a runner of the chosen cells prints, taken as far as somebody wants it."""

    def __init__(self, places: list[Place]) -> None:
        self.known: dict[Place, Result] = {}
        self.runner = subprocess.Popen(
            [sys.executable, "-m", "tests.matrix", "--jsonl", *map(str, places)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT,
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509  # one call, no lock
        )  # fmt: skip

    def of(self, place: Place) -> Result:
        while place not in self.known:
            line = self.runner.stdout.readline()
            if not line:
                pytest.fail(f"the runner has ended with {self.runner.wait()} and told nothing of {place}")
            told = json.loads(line)
            result = Result(**told | {"place": Place(*told["place"]), "wrong": tuple(told["wrong"])})
            self.known[result.place] = result
        return self.known[place]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[Results]:
    """Of the cells that were chosen (`-k`), two or three at once."""
    items = (item for item in request.session.items if item.path == request.path)
    chosen = [item.callspec.params["place"] for item in items if hasattr(item, "callspec")]
    made = Results(chosen)
    yield made
    made.runner.terminate()
    made.runner.wait()
    made.runner.stdout.close()


@pytest.mark.parametrize("place", CELLS)
def test_cell(results: Results, place: Place) -> None:
    result = results.of(place)

    if result.why_not:
        pytest.skip(result.why_not)
    assert not result.wrong, wrong([result]) + "\n" + result.said
    assert result.right > 10


def test_the_sample_covers_every_fault_and_every_pair() -> None:
    """On this machine: as a machine that can make no control groups has no cell in which an OOM kill can be made."""
    covered = set(pairs(SAMPLE))
    assert {pair for pair in covered if len(pair) == 2} == {pair for pair in pairs(SPREAD) if len(pair) == 2}

    for place in everything():
        if meaningful(place) and not cannot(place):
            assert set(pairs([place])) <= covered, place
    assert sample() == SAMPLE
    assert len(SAMPLE) < len(faults.FAULTS) + 12  # few: a fault once, and what pairs need beside
