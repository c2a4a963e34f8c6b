"""gunicorn with forked workers: by rule its workers are its own affair, unless the user says otherwise."""

import http.client
import socket
import subprocess
import sys

import pytest
from tests.ecosystem.engine import PROGRAMS, Latencies, settled, until

pytest.importorskip("gunicorn")
pytest.importorskip("setproctitle")

KILLS = 5


def serves(path):
    """The pid of the worker that answers."""
    connection = http.client.HTTPConnection("localhost", timeout=5)
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(5)
        connection.sock.connect(str(path))
        connection.request("GET", "/")
        return int(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


@pytest.fixture
def command(tmp_path):
    return [
        sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", f"unix:{tmp_path}/http", "--chdir", str(PROGRAMS),
        "--graceful-timeout", "5", "--worker-tmp-dir", str(tmp_path), "app:app",
    ]  # fmt: skip


def test_killed_workers_are_told_and_left_to_the_master(watch, command, tmp_path):
    latencies, killed = Latencies(), []
    with watch(*command) as engine:
        for _ in range(KILLS):
            pid = until("a worker serves", lambda: serves(tmp_path / "http"))
            settled(pid)
            fact, took = engine.told(pid, engine.kill(pid))
            assert (fact["fact"], fact["role"], fact["name"]) == ("Perished", "worker", "gunicorn: worker [app:app]")
            assert fact["ending"]["signal"] == "SIGKILL"
            killed.append(pid)
            latencies.took.append(took)
        assert until("another one serves", lambda: serves(tmp_path / "http")) not in killed

        assert engine.stopped() == 0
        assert [each["pid"] for each in engine.verdict["reported"]] == killed
        assert (
            f"gunicorn: worker [app:app] (pid {killed[0]}) was ended by SIGKILL; it is left to its engine"
            in engine.stderr
        )
        latencies.check()


def test_workers_that_the_user_calls_ranks(watch, command, tmp_path):
    options = ("--rank-pattern", r"gunicorn: (?P<role>worker)", "--settle", "1")
    with watch(*command, options=options) as engine:
        until("both joined", lambda: len(engine.facts("Joined")) == 2)
        pid = until("a worker serves", lambda: serves(tmp_path / "http"))
        fact, _took = engine.told(pid, engine.kill(pid))
        assert fact["fact"] == "Exited"

        assert engine.ended() == 137
        culprit = engine.verdict["culprit"]
        assert (culprit["rank"], culprit["pid"], culprit["role"]) == (None, pid, "worker")
        assert culprit["cause"]["kind"] == "killed"
        assert serves(tmp_path / "http") is None


def test_a_gunicorn_that_somebody_else_started(watch, command, tmp_path):
    """It is watched, told of, and left alone when we go."""
    master = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until("a worker serves", lambda: serves(tmp_path / "http"))
        latencies = Latencies()
        with watch(options=("--pid", str(master.pid))) as engine:
            while latencies.wanting:
                pid = until("a worker serves", lambda: serves(tmp_path / "http"))
                settled(pid)
                fact, took = engine.told(pid, engine.kill(pid))
                assert (fact["fact"], fact["name"]) == ("Perished", "gunicorn: worker [app:app]")
                assert fact["ending"]["signal"] == "SIGKILL"
                latencies.took.append(took)
            engine.known(until("another one serves", lambda: serves(tmp_path / "http")))

            assert engine.stopped() == 143
        assert master.poll() is None
        assert serves(tmp_path / "http") is not None
        latencies.check()
    finally:
        master.terminate()
        master.wait()
