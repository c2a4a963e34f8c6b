"""`multiprocessing` pools of every start method: a worker that is killed is told, and left to its pool, which replaces it."""

import os
import sys

import pytest
from tests.ecosystem.engine import PROGRAMS, Latencies

KILLS = 3


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_worker_of_a_pool_is_killed(watch, tmp_path, method):
    orders, latencies, killed = tmp_path / "orders", Latencies(), []
    os.mkfifo(orders)
    with watch(sys.executable, str(PROGRAMS / "pool.py"), method, str(orders)) as engine:
        with orders.open("w", buffering=1) as next_one:
            for number in range(KILLS):
                pid = int(engine.said(f"is busy with {number}").split()[1])
                fact, took = engine.told(pid, engine.kill(pid))
                assert (fact["fact"], fact["ending"]["signal"]) == ("Perished", "SIGKILL")
                killed.append(pid)
                latencies.took.append(took)
                next_one.write("\n")
                engine.said("squares [0, 1, 4, 9]", number + 1)

        assert engine.ended() == 0
        assert engine.verdict["outcome"] == "succeeded"
        assert [each["pid"] for each in engine.verdict["reported"]] == killed
        assert {each["cause"]["kind"] for each in engine.verdict["reported"]} == {"killed"}
        assert engine.facts("Joined") == []
        latencies.check()
