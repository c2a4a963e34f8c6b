"""SIGKILL for front, warden, supervisor or all of them, at random moments; `storm.py` does the same in hundreds."""

import random

import pytest
from tests.faults.storm import SHAPES, VICTIMS, once

TURNS = 3
LIMIT_S = 20.0
"""Whoever is left is left for longer: a rank that nobody ends for 30 s, its children for a minute."""


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "terminal"])
@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_left(victim, shape):
    nothing_is_left(victim, shape, 1)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_left_at_other_moments(victim, shape):
    nothing_is_left(victim, shape, TURNS)


def nothing_is_left(victim, shape, turns):
    seed = random.randrange(1 << 32)
    random.seed(seed)
    for turn in range(turns):
        told = once(victim, shape, LIMIT_S)
        assert told["left"] == {}, f"seed {seed}, turn {turn}: {told}"
        assert told["traces"] == [], f"seed {seed}, turn {turn}: {told}"
        # 0, or 1 before it was ready: it was over; -9, or 137 as a shell has it: the front was the victim
        assert told["exit"] in (None, 0, 1, 125, -9, 137), f"seed {seed}, turn {turn}: {told}"
