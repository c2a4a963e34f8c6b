"""Cells of the laboratory, played beside one another: each is a process of its own, and most of them wait."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from rankguard.testing.faults import FAULTS, Cell, Outcome, Surroundings, look, play_apart

AT_ONCE = 3


@pytest.fixture(scope="session")
def here() -> Surroundings:
    return look()


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest, here: Surroundings) -> Iterator[dict[str, Future[Outcome]]]:
    """What came of each fault that the selected tests ask for, once it has come."""
    asked = [item.callspec.params["fault"] for item in request.session.items if "outcomes" in item.fixturenames]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(play_apart, name, cell_of(name, here)) for name in asked}


def cell_of(name: str, here: Surroundings) -> Cell:
    """One cell for each fault, so that together they are of every phase, both starts and several victims."""
    fault, nth = FAULTS[name], list(FAULTS).index(name)
    at = fault.phases[nth % len(fault.phases)]
    start = fault.starts[nth // 4 % len(fault.starts)]
    return Cell(at=at, start=start, victim=nth % 3, ranks=3, here=here)
