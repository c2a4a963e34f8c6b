"""The faults of the laboratory that need torch."""

import pytest

from rankguard.testing.faults import FAULTS, Cell, look, play_apart

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("at", FAULTS["collective-not-joined"].phases)
def test_a_collective_that_one_rank_does_not_join(at: str) -> None:
    outcome = play_apart("collective-not-joined", Cell(at=at, victim=1, here=look()), timeout=240)

    assert outcome.why_not is None
    assert outcome.wrong == (), outcome.said
