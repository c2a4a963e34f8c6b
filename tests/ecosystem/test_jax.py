"""A JAX job of several processes on CPUs, started by a script: nobody but the user can say that they are ranks."""

import sys

import pytest
from tests.ecosystem.engine import PROGRAMS, Latencies, until

pytest.importorskip("jax")

PROCESSES = 2


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

            _fact, took = engine.told(pid, engine.kill(pid))

            assert engine.ended() == 137
            culprit = engine.verdict["culprit"]
            assert (culprit["pid"], culprit["cause"]["kind"]) == (pid, "killed")
            latencies.took.append(took)
    latencies.check()
