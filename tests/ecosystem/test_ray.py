"""`ray start --head --block`, and an actor's worker that is killed: Ray starts the actor again, and nobody ends Ray."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from tests.ecosystem.engine import PROGRAMS, Latencies, program_of

pytest.importorskip("ray")

KILLS = 3


@contextmanager
def driver(tmp_path, env):
    """A driver that joins the cluster from outside, as users' programs do. Yields how to have it ask once more."""
    orders = tmp_path / "orders"
    os.mkfifo(orders)
    with (tmp_path / "driver.err").open("wb") as err:
        started = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "ray_driver.py"), str(orders)], stdout=subprocess.PIPE, stderr=err,
            env={**os.environ, **env}, text=True,
        )  # fmt: skip
    try:
        assert started.stdout is not None
        asked = (int(line.split()[-1]) for line in started.stdout if line.startswith("counter is"))
        first = next(asked)
        with orders.open("w", buffering=1) as more:

            def ask():
                more.write("\n")
                return next(asked)

            yield first, ask
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


def test_a_worker_is_killed(watch, tmp_path):
    ray, latencies, killed = program_of("ray"), Latencies(), []
    env = {"RAY_TMPDIR": "/tmp", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
    words = (
        ray, "start", "--head", "--block", "--num-cpus", "2", "--include-dashboard", "false", "--disable-usage-stats",
        "--object-store-memory", "80000000", "--temp-dir", f"/tmp/ray-{os.getpid()}", "--port", "0",
    )  # fmt: skip
    with watch(*words, env=env) as engine:
        address = engine.said("--address='").split("--address='")[1].split("'")[0]
        with driver(tmp_path, {**env, "RAY_ADDRESS": address}) as (first, ask):
            pid = first
            for _ in range(KILLS):
                fact, took = engine.told(pid, engine.kill(pid))
                assert (fact["fact"], fact["ending"]["signal"]) == ("Perished", "SIGKILL")
                # Ray starts its workers ahead; one that was given an actor just now may have its old name here.
                assert fact["role"] == "ray" or fact["role"].startswith("ray::")
                killed.append(pid)
                latencies.took.append(took)
                pid = ask()
                assert pid not in killed

        status = engine.stopped()
        assert [each["pid"] for each in engine.verdict["reported"] if each["pid"] in killed] == killed
        assert engine.facts("Joined") == []
        assert status in (0, 143)
        latencies.check()
