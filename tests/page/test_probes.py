"""Started, ready and alive are three questions, asked of real jobs at each point of their lives."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.page.served import Served, wait_for_end

import rankguard
from rankguard.http import probes
from rankguard.http.followed import Followed

STARTING, READY = (503, 503, 200), (200, 200, 200)


def test_from_the_first_instant_to_the_end(tmp_path: Path) -> None:
    with Served(tmp_path, 2, "--ready-timeout", "60") as job:
        assert job.probes() == STARTING

        job.tell(1, "status loading 41 %")
        job.until(fact="StatusTold", rank=1)
        told = "starting: 0 of 2 ranks ready; waiting for ranks 0, 1 (rank 1: loading 41 %)\n"
        assert job.get("/readyz").text == told

        job.tell(0, "ready")
        job.until(fact="Ready", rank=0)
        assert job.probes() == STARTING
        assert job.get("/readyz").text == "starting: 1 of 2 ranks ready; waiting for rank 1 (loading 41 %)\n"

        job.tell(1, "deaf")
        job.tell(1, "ready")
        job.until(fact="Ready", rank=1)
        job.until(fact="StatusTold", rank=1, text="deaf")
        assert job.probes() == READY
        assert job.get("/readyz").text == "ready: all 2 ranks ready\n"
        assert job.get("/status").status == 200

        job.process.send_signal(signal.SIGTERM)
        job.until(fact="Exited", rank=0)  # rank 1 takes its time
        assert job.probes() == (200, 503, 200)
        assert job.get("/livez").text == "live: stopping\n"

        job.tell(1, "exit 0")
        assert job.end() == 143


def test_what_failed_is_none_of_the_three(tmp_path: Path) -> None:
    with Served(tmp_path, 2, "--grace", "60", "--ready-timeout", "60") as job:
        for rank in range(2):
            job.tell(rank, "deaf")
            job.tell(rank, "ready")
        job.until(order="Tell", what="all-ready")
        assert job.probes() == READY

        job.tell(1, "exit 3")
        job.until(fact="Judged")  # rank 0 hears no SIGTERM, and has a minute
        assert job.probes() == (503, 503, 503)
        assert job.get("/livez").text == "failed: rank 1 of 2 ended with exit code 3 after it was ready\n"

        job.tell(0, "exit 0")
        assert job.end() == 3
        assert (job.verdict["teardown"]["killed"], job.verdict["teardown"]["survivors"]) == ([], [])


def test_between_two_attempts_it_is_alive_and_not_ready(tmp_path: Path) -> None:
    with Served(tmp_path, 2, "--grace", "60", "--max-restarts", "1", "--ready-timeout", "60") as job:
        for rank in range(2):
            job.tell(rank, "deaf")
            job.tell(rank, "ready")
        job.until(order="Tell", what="all-ready")

        job.tell(1, "exit 3")
        job.until(fact="Judged")
        assert job.probes() == (503, 503, 200)
        assert job.get("/livez").text.startswith("live: restarting: rank 1 of 2 ended with exit code 3")

        job.tell(0, "exit 0")
        told = job.events()
        attempt = next(data["failed"] for _id, name, data in told if name == "attempt")
        assert (attempt["cause"], job.probes()) == ("exit-code", STARTING)
        for rank in range(2):  # not before: an earlier rank would have read it
            job.tell(rank, "ready")
        next(data for _id, _name, data in told if data.get("what") == "all-ready")
        told.close()
        assert job.probes() == READY

        job.tell(0, "exit 4")
        job.tell(1, "exit 0")
        assert job.end() == 4


def test_where_nobody_reports_readiness_who_executes_is_ready(tmp_path: Path) -> None:
    with Served(tmp_path, 2) as job:
        job.until(order="Tell", what="spawned")
        assert job.probes() == READY
        assert job.get("/readyz").text == "ready: all 2 ranks running\n"

        job.tell(0, "exit 0")
        job.until(fact="Exited", rank=0)
        assert job.probes() == (200, 503, 200)
        assert job.get("/readyz").text == "1 of 2 ranks has finished\n"

        job.tell(1, "exit 0")
        assert job.end() == 0


def test_a_port_that_is_taken_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [
            "rankguard",
            "run",
            "--http",
            str(port),
            "--run-dir",
            str(tmp_path / "run"),
            "/bin/touch",
            str(tmp_path / "x"),
        ]
        ended = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, timeout=30, check=False
        )

    assert ended.returncode == 125
    assert f"unable to listen on `127.0.0.1:{port}`: Address already in use" in ended.stderr
    assert "--http 127.0.0.1:0 takes a free port" in ended.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("killed", ["supervisor", "front", "warden"])
def test_it_ends_with_the_job_whoever_is_killed(tmp_path: Path, killed: str) -> None:
    """With clients that read nothing and say nothing."""
    with Served(tmp_path, 1) as job, contextlib.ExitStack() as clients:
        job.until(order="Tell", what="spawned")
        silent = [clients.enter_context(job.connect()) for _ in range(8)]
        server = os.pidfd_open(job.server())
        for end in silent[:4]:
            end.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")

        os.kill(job.ours()[killed], signal.SIGKILL)

        assert wait_for_end(server)
        os.close(server)
        job.end()
        with pytest.raises(ConnectionRefusedError):
            job.connect()


def test_one_that_is_killed_is_told_of_and_started_again_with_all_that_was(tmp_path: Path) -> None:
    with Served(tmp_path, 1, "--ready-timeout", "60") as job:
        job.tell(0, "ready")
        before = job.until(fact="Ready", rank=0)

        os.kill(job.server(), signal.SIGKILL)

        assert job.until(fact="Ready", rank=0) == before
        warned = job.until(fact="Warned")
        assert warned["statement"] == "the page server has ended; it is started again now"
        assert job.probes() == READY

        job.tell(0, "exit 0")
        assert job.end() == 0
        assert job.verdict["warnings"] == ["the page server has ended; it is started again now"]


def test_a_job_without_files_is_served_as_well_and_again(tmp_path: Path) -> None:
    with Served(tmp_path, 1, "--run-dir", "/proc/nowhere") as job:
        job.until(order="Tell", what="spawned")
        os.kill(job.server(), signal.SIGKILL)
        job.until(fact="Warned")
        assert job.probes() == READY

        job.tell(0, "exit 0")
        assert job.end() == 0


def test_a_supervisor_that_stands_still_is_not_alive(tmp_path: Path) -> None:
    """Only that it is told to be: the bound of ten seconds is moved in `test_pure.py`."""
    with Served(tmp_path, 1) as job:
        job.until(order="Tell", what="spawned")
        supervisor = job.ours()["supervisor"]
        os.kill(supervisor, signal.SIGSTOP)
        try:
            assert job.get("/metrics").status == 200  # does not wait for it for ever
            assert job.probes() == READY
        finally:
            os.kill(supervisor, signal.SIGCONT)
        job.tell(0, "exit 0")
        assert job.end() == 0


def test_launch_serves_as_well() -> None:
    with rankguard.launch(["sleep", "60"], http=":0", console="none") as job:
        assert job.http is not None
        with urllib.request.urlopen(f"http://{job.http}/readyz") as told:
            assert told.read() == b"ready: the only rank is running\n"
    with pytest.raises(rankguard.UsageError, match="expected HOST:PORT"):
        rankguard.launch(["true"], http="here")


@pytest.mark.slow
def test_what_stalls_is_alive_until_that_is_certain(tmp_path: Path) -> None:
    warm = ("--start", "warm")  # silence is counted from a rank's start, in which an interpreter may take seconds
    with Served(tmp_path, 2, *warm, "--stall-timeout", "2", "--grace", "60", "--ready-timeout", "60") as job:
        for rank in range(2):
            job.tell(rank, "deaf")
            job.tell(rank, "ready")
        job.until(fact="Judged")
        assert job.probes() == (503, 503, 503)
        assert job.metric("rankguard_stalls_total") == 1
        for rank in range(2):
            job.tell(rank, "exit 0")
        assert job.end() == 124

    run, asked = Followed(), []  # half a second may be over before anybody asks: what would have been answered
    for line in (job.run_dir / "events.jsonl").read_bytes().splitlines():
        run.take(line)
        asked.append(
            (json.loads(line).get("order"), probes.started(run).yes, probes.ready(run).yes, probes.live(run).yes)
        )
    assert ("Examine", True, True, True) in asked
    assert asked[-1][1:] == (False, False, False)


@pytest.mark.slow
def test_one_that_cannot_live_is_tried_again_and_again_and_the_job_goes_on(tmp_path: Path) -> None:
    """Killed as often as it comes: at once, after 1, 2, 4 s; with each new one all is known again."""
    with Served(tmp_path, 1, "--ready-timeout", "60") as job:
        job.tell(0, "ready")
        for _ in range(4):
            job.until(fact="Ready", rank=0)
            os.kill(job.server(), signal.SIGKILL)
        job.until(fact="Ready", rank=0)
        assert job.probes() == READY
        assert job.metric("rankguard_warnings_total") == 4
        job.tell(0, "exit 0")
        assert job.end() == 0
