"""SIGKILL for front, warden, supervisor or all of them, at random moments; `storm.py` does the same in hundreds."""

import random

import pytest
from tests.faults.storm import SHAPES, VICTIMS, once

TURNS = 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_left_within_a_second(victim, shape):
    seed = random.randrange(1 << 32)
    random.seed(seed)
    for turn in range(TURNS):
        told = once(victim, shape)
        assert told["left"] == {}, f"seed {seed}, turn {turn}: {told}"
        assert told["traces"] == [], f"seed {seed}, turn {turn}: {told}"
        # 0 and -9: it was over; the front was the victim
        assert told["exit"] in (None, 0, 125, -9), f"seed {seed}, turn {turn}: {told}"
