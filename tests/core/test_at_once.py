"""A watched engine whose root and processes die in one instant: who is a suspect, and what is a shutdown of its own."""

import pytest

from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.facts import Exited, JobStarted, Joined, Looked, Spawned
from rankguard.jobspec import WatchPlan
from rankguard.model import Begun, Ending, Memory
from rankguard.testing.player import new_spec

KILLED = Ending("signal", signal="SIGKILL", number=9)
WELL = Ending("exit", 0)


def engine(members=2):
    made = Job(new_spec(1).replace(watch=WatchPlan(settle=10.0)))
    step(made, JobStarted(0.0, 1.8e9))
    step(made, Spawned(0.1, 0, 100))
    for number in range(1, members + 1):
        step(made, Joined(0.2, number, 100 + number, f"sglang::scheduler_TP{number}"))
    return made


def ended(made, at, rank, ending=KILLED, begun=None):
    step(made, Exited(at, rank, ending, begun=begun))


def suspects(made):
    return [rank.rank for rank in made.case().ranks if rank.suspect]


@pytest.mark.parametrize(
    ("at", "begun", "found"),
    [
        (5.0, None, [0, 1]),
        (5.5, Begun(0, 4.998, 4.999), [0, 1]),
        (5.5, Begun(0, 5.2, 5.3), [1]),
        (5.5, None, [1]),
    ],
    ids=["in-one-look", "began-before", "began-later", "seen-later"],
)
def test_a_root_that_was_killed_with_its_processes_is_a_suspect(at, begun, found):
    made = engine()
    ended(made, 5.0, 1)
    step(made, Looked(5.0))
    ended(made, at, 0, begun=begun)
    assert suspects(made) == found


def test_a_root_that_ends_because_of_its_process_is_none():
    made = engine()
    ended(made, 5.0, 1)
    step(made, Looked(5.0))
    ended(made, 5.0, 0, Ending("exit", 1))
    assert suspects(made) == [1]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_one_that_was_killed_counts_before_one_that_ended_well_in_the_same_look(order):
    """On a busy machine an engine that ends with 0 because one of its processes was killed is seen to end at once."""
    made = engine()
    for rank in order:
        ended(made, 5.0, rank, KILLED if rank == 2 else WELL)
    step(made, Looked(5.0))
    ended(made, 5.0, 0, WELL)
    assert made.case().failed_at == 5.0
    assert suspects(made) == [2]


def test_a_look_comes_before_the_news_of_one_that_was_found_with_it():
    made = engine()
    ended(made, 5.0, 1)
    step(made, Looked(5.0, dying=((3, "killed"),), memory=((2, Memory(1)), (3, Memory(1)))))
    step(made, Joined(5.0, 3, 103, "sglang::scheduler_TP3"))
    ended(made, 5.1, 3)
    assert suspects(made) == [1, 3]
