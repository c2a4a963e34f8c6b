"""dask's `LocalCluster` with nannies: a worker that is killed is replaced by its nanny."""

import os
import sys

import pytest
from tests.ecosystem.engine import PROGRAMS, Latencies, settled

pytest.importorskip("distributed")

KILLS = 3


def test_a_worker_is_killed(watch, tmp_path):
    orders, latencies, killed = tmp_path / "orders", Latencies(), []
    os.mkfifo(orders)
    with watch(sys.executable, str(PROGRAMS / "dask_job.py"), str(orders)) as engine:
        with orders.open("w", buffering=1) as next_one:
            for number in range(KILLS):
                next_one.write(f"{killed[-1] if killed else ''}\n")
                line = engine.said("sum 6", number + 1)
                pid = int(line.split("[")[1].split(",")[0])
                assert pid not in killed
                settled(pid)
                fact, took = engine.told(pid, engine.kill(pid))
                assert (fact["fact"], fact["ending"]["signal"]) == ("Perished", "SIGKILL")
                assert fact["role"] == "worker"
                killed.append(pid)
                latencies.took.append(took)
            next_one.write(f"{killed[-1]}\n")
            engine.said("sum 6", KILLS + 1)

        assert engine.ended() == 0
        assert [each["pid"] for each in engine.verdict["reported"]] == killed
        assert engine.facts("Joined") == []
        latencies.check()
