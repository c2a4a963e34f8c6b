"""Lightning: a Trainer that finds torchrun's variables, and one that starts its other processes itself."""

import sys

import pytest
from tests.ecosystem.engine import PROGRAMS, Latencies, until
from tests.torch._runs import innocent, who

pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")
pytestmark = pytest.mark.usefixtures("orderly")

FIT = PROGRAMS / "lightning_fit.py"
RANKS = 2


def test_it_trains_to_the_end_as_under_torchrun(run):
    with run(RANKS, FIT, 6) as job:
        said = [job.until(" is ").split(" is ")[1] for _ in range(RANKS)]
        verdict = job.end()

    assert (job.status, verdict["outcome"]) == (0, "succeeded"), job.stderr()
    assert {line.split(", by ")[1] for line in said} == {"TorchElasticEnvironment"}
    assert sum("has trained 6 steps" in line for line in job.output) == RANKS


def test_a_rank_is_killed(run):
    with run(RANKS, FIT, -1) as job:
        for _ in range(RANKS):
            job.until(", by TorchElasticEnvironment")
        job.kill(1)
        verdict = job.end()

    assert who(verdict) == (1, "killed", "operator", "proven", 137)
    assert innocent(verdict)


def test_a_process_that_it_has_started_itself_is_killed(watch):
    """Rank 0 is the program; it starts the others, and would look for their ends every five seconds."""
    latencies = Latencies()
    while latencies.wanting:
        with watch(sys.executable, str(FIT), "-1", options=("--settle", "2")) as engine:
            said = engine.said(f"rank 1 of {RANKS} is")
            engine.said(f"rank 0 of {RANKS} is")
            pid = int(said.split(" is ")[1].split(",")[0])
            assert said.endswith("by LightningEnvironment")
            [joined] = until("it joined", lambda: engine.facts("Joined"))
            assert (joined["pid"], joined["index"], joined["rule"]) == (pid, 1, "lightning")

            latencies.took.append(engine.falls_with(pid))
    latencies.check()
