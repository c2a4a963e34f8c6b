"""XGBoost's tracker and collectives: workers as ranks, and a tracker that starts its workers itself."""

import sys

import pytest
from tests.ecosystem.engine import PROGRAMS, Latencies, until
from tests.torch._runs import innocent, who

pytest.importorskip("xgboost")

WORKER = PROGRAMS / "xgboost_rank.py"
WORKERS = 3


def test_they_train_to_the_end(run):
    with run(WORKERS, WORKER, 6) as job:
        verdict = job.end()

    assert (job.status, verdict["outcome"]) == (0, "succeeded"), job.stderr()
    assert sum("has grown 6 trees" in line for line in job.output) == WORKERS


@pytest.mark.parametrize("number", [0, 1], ids=["with the tracker", "of the others"])
def test_a_worker_is_killed(run, number):
    with run(WORKERS, WORKER, 0) as job:
        for _ in range(WORKERS):
            job.until(f" of {WORKERS} is ")
        job.kill(number)
        verdict = job.end()

    assert who(verdict) == (number, "killed", "operator", "proven", 137)
    assert innocent(verdict)


def test_a_worker_gives_up_without_a_word(run):
    """The others lose it, say so at once, and mostly before its own end can be seen."""
    with run(WORKERS, WORKER, 0, 1) as job:
        verdict = job.end()

    assert who(verdict) == (1, "exit-code", "program", "proven", 4)
    assert innocent(verdict)


def test_a_worker_of_a_tracker_is_killed(watch):
    latencies = Latencies()
    while latencies.wanting:
        command = (sys.executable, str(PROGRAMS / "xgboost_job.py"), str(WORKERS), "0")
        with watch(*command, options=("--settle", "2")) as engine:
            pids = [int(engine.said(f"worker {n} of {WORKERS} is").split()[-1]) for n in range(WORKERS)]
            joined = until("all joined", lambda: len(engine.facts("Joined")) == WORKERS and engine.facts("Joined"))
            assert {fact["pid"]: fact["index"] for fact in joined} == {pid: n for n, pid in enumerate(pids)}
            assert {fact["rule"] for fact in joined} == {"dmlc"}

            latencies.took.append(engine.falls_with(pids[1]))
    latencies.check()
