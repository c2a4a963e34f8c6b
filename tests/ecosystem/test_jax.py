"""A JAX job of several processes on CPUs: as ranks, and started by a script, where nobody but the user can say that they are."""

import sys

import pytest
from tests.ecosystem.engine import PROGRAMS, Latencies, until
from tests.torch._runs import innocent, who

pytest.importorskip("jax")

PROCESSES = 2
RANKS = 3


def test_ranks_to_the_end(run):
    """What JAX asks for is in a rank's environment."""
    with run(RANKS, PROGRAMS / "jax_rank.py", "--rounds", 3) as job:
        verdict = job.end()

    assert (job.status, verdict["outcome"]) == (0, "succeeded"), job.stderr()
    assert sum(f" of {RANKS} is " in line and line.endswith("sum 3") for line in job.output) == RANKS  # 0 + 1 + 2


@pytest.mark.parametrize("number", [0, 1], ids=["with the coordination service", "of the others"])
def test_a_rank_is_killed(run, number):
    """JAX ends all others when it has lost its service, by SIGABRT; without another rank they fail, and then hang."""
    with run(RANKS, PROGRAMS / "jax_rank.py", options=("--grace", "2")) as job:
        for _ in range(RANKS):
            job.until(f" of {RANKS} is ")
        job.kill(number)
        verdict = job.end()

    assert who(verdict) == (number, "killed", "operator", "proven", 137)
    assert innocent(verdict)


def test_a_process_of_a_job_is_killed(watch):
    options = ("--rank-pattern", r"jax_rank\.py --process (\d+)", "--settle", "2")
    latencies = Latencies()
    while latencies.wanting:
        with watch(sys.executable, str(PROGRAMS / "jax_job.py"), str(PROCESSES), options=options) as engine:
            said = [engine.said(f"process {number} of {PROCESSES} is").split() for number in range(PROCESSES)]
            assert [words[-1] for words in said] == ["1", "1"]  # 0 + 1
            joined = until("all joined", lambda: len(engine.facts("Joined")) == PROCESSES and engine.facts("Joined"))
            assert sorted(fact["index"] for fact in joined) == [0, 1]
            pid = int(said[1][5].rstrip(":"))

            latencies.took.append(engine.falls_with(pid))
    latencies.check()
