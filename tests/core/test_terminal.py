"""Ctrl-C when a rank has the terminal: for that rank alone, as long as it lives and nothing has failed."""

import pytest

from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.facts import Exited, JobStarted, Spawned, StopRequested
from rankguard.jobspec import JobSpec
from rankguard.model import Ending, MemoryState, Sender
from rankguard.orders import SignalAll, SignalRank

SIGINT, SIGTERM, SIGHUP = 2, 15, 1


def job(debug: int | None = 1, *, spawned: bool = True) -> Job:
    spec = JobSpec(
        run_id="t", command=("x",), argv=("x",), nprocs=3, env={}, cwd="/", debug_rank=debug, stdin_rank=debug
    )
    made = Job(spec)
    step(made, JobStarted(0.0, 0.0, MemoryState()))
    for rank in range(3 if spawned else 0):
        step(made, Spawned(0.1, rank, 100 + rank))
    return made


def ctrl_c(at: float, number: int = SIGINT) -> StopRequested:
    """The terminal's own driver: nobody is named as its sender."""
    return StopRequested(at, number, Sender())


def ends(at: float, rank: int, code: int) -> Exited:
    return Exited(at, rank, Ending("exit", code=code))


def test_it_is_for_the_rank_however_often_it_comes() -> None:
    made = job()
    for at in (1.0, 1.1, 1.2):
        assert step(made, ctrl_c(at)) == (SignalRank("Ctrl-C is for the rank that has the terminal", 1, SIGINT),)
    assert made.stop is None


@pytest.mark.parametrize(
    "fact",
    [ctrl_c(1.0, SIGTERM), ctrl_c(1.0, SIGHUP), StopRequested(1.0, SIGINT, Sender(77, 0, "bash")), StopRequested(1.0, SIGINT, None), StopRequested(1.0, SIGINT, Sender(None, 0))],
    ids=["SIGTERM", "terminal closed", "kill -INT", "a program's stop", "from another PID namespace"],
)  # fmt: skip
def test_anything_else_ends_the_job(fact: StopRequested) -> None:
    made = job()

    assert type(step(made, fact)[0]) is SignalAll
    assert made.stop == fact


@pytest.mark.parametrize("made", [job(None), job(1, spawned=False)], ids=["no debug rank", "not started yet"])
def test_where_no_rank_has_it_it_ends_the_job(made: Job) -> None:
    step(made, ctrl_c(1.0))

    assert made.stop is not None


def test_when_the_rank_has_ended_it_ends_the_job() -> None:
    made = job()
    step(made, ends(0.5, 1, 0))
    step(made, ctrl_c(1.0))

    assert made.stop is not None


def test_after_a_failure_it_is_impatience() -> None:
    """The debug rank still lives, but the job is being ended: Ctrl-C ends it at once."""
    made = job()
    step(made, ends(0.5, 0, 3))
    step(made, ctrl_c(1.0))

    assert made.killed_at == 1.0
