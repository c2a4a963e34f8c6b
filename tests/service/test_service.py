"""A job as a service of systemd: what the manager is told, by whom, and what it is never told."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.page.served import Served
from tests.run.command import Ranks
from tests.service.manager import Manager

from rankguard.cli.front.service import AGAIN_S, EXTENSION_S, LOOK_S, SILENT_S, STATUS_S, Service, service
from rankguard.jobspec import JobSpec

SPEC = JobSpec(run_id="x", command=("a",), argv=(), nprocs=2, env={}, cwd="/", expect_ready=True, grace=3.0)


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_when_the_last_rank_is_and_stopping_when_it_ends(tmp_path: Path, abstract: bool) -> None:
    with Manager(tmp_path, abstract=abstract) as manager:
        with Served(tmp_path, 2, "--ready-timeout", "60", env=manager.env()) as job:
            manager.until("STATUS=starting: 0 of 2 ranks ready")
            job.tell(0, "ready")
            manager.until("STATUS=starting: 1 of 2 ranks ready")
            assert "READY=1" not in manager.said

            job.tell(1, "ready")
            manager.until("READY=1")
            assert manager.said[-1] == "STATUS=ready: all 2 ranks"

            job.process.send_signal(signal.SIGTERM)
            manager.until("STOPPING=1")
            assert job.end() == 143
        manager.drain()

    assert manager.said.count("READY=1") == 1
    assert manager.said[-1].startswith("STATUS=stopped by SIGTERM")
    assert manager.senders == {job.process.pid}  # NotifyAccess=main is enough, and the main process stays the front
    assert not [said for said in manager.said if said.startswith("MAINPID")]


def test_where_nobody_reports_readiness_it_is_ready_once_all_execute(tmp_path: Path) -> None:
    with Manager(tmp_path) as manager, Served(tmp_path, 2, env=manager.env()) as job:
        manager.until("READY=1")
        assert manager.said[-1] == "STATUS=running: all 2 ranks"
        for rank in range(2):
            job.tell(rank, "exit 0")
        assert job.end() == 0


def test_what_failed_is_told_and_has_no_heartbeat(tmp_path: Path) -> None:
    """Rank 0 hears no SIGTERM, and has a minute; half of it is time for many beats."""
    with Manager(tmp_path) as manager:
        env = manager.env(WATCHDOG_USEC="100000")
        with Served(tmp_path, 2, "--grace", "60", "--ready-timeout", "60", env=env) as job:
            for rank in range(2):
                job.tell(rank, "deaf")
                job.tell(rank, "ready")
            manager.until("READY=1")
            manager.until("WATCHDOG=1")

            job.tell(1, "exit 3")
            manager.until("STATUS=failed: rank 1 of 2 ended with exit code 3 after it was ready")
            failed_at = len(manager.said)
            job.get("/livez")
            assert not manager.take(0.5)  # ten times what lies between two beats
            job.tell(0, "exit 0")
            assert job.end() == 3
        manager.drain()

    stopping = manager.said.index("STOPPING=1")
    assert stopping < failed_at
    assert "EXTEND_TIMEOUT_USEC=150000000" in manager.said[stopping:failed_at]
    assert "WATCHDOG=1" not in manager.said[failed_at:]


def test_no_heartbeat_for_a_supervisor_that_stands_still(tmp_path: Path) -> None:
    with Manager(tmp_path) as manager, Served(tmp_path, 1, env=manager.env(WATCHDOG_USEC="100000")) as job:
        manager.until("WATCHDOG=1")
        supervisor = job.ours()["supervisor"]

        os.kill(supervisor, signal.SIGSTOP)
        while manager.take(0.5):  # those that were on their way; half a second is ten beats
            pass
        os.kill(supervisor, signal.SIGCONT)

        manager.until("WATCHDOG=1")
        job.tell(0, "exit 0")
        assert job.end() == 0


def test_the_heartbeat_is_not_ours_to_give_when_it_is_meant_for_another(tmp_path: Path) -> None:
    env: dict[str, str] = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1", "A": "b"}
    made = service(SPEC, env, 5.0)

    assert made is not None
    assert made._beat_at is None
    made._socket.close()
    assert env == {"A": "b"}


def test_an_attempt_that_failed_is_a_restart_and_not_the_end(tmp_path: Path) -> None:
    with Manager(tmp_path) as manager:
        env = manager.env(WATCHDOG_USEC="100000")
        with Served(tmp_path, 1, "--max-restarts", "1", "--ready-timeout", "60", env=env) as job:
            job.tell(0, "ready")
            manager.until("READY=1")
            job.tell(0, "exit 3")
            manager.until("STATUS=restarting: rank 0 of 1 ended with exit code 3")
            manager.until("WATCHDOG=1")
            assert "STOPPING=1" not in manager.said
            next(data for _id, name, data in job.events() if name == "attempt")
            job.tell(0, "ready")
            manager.until("STATUS=ready")
            job.tell(0, "exit 0")
            assert job.end() == 0
        manager.drain()

    assert manager.said.count("READY=1") == 1


def test_no_rank_inherits_what_is_meant_for_us(tmp_path: Path, ranks: Ranks) -> None:
    text = "print(*[os.environ.get(name) for name in ('NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID')])"
    with Manager(tmp_path) as manager:
        env = manager.env(WATCHDOG_USEC="1000000", WATCHDOG_PID="7")
        ended = ranks.run(1, text, "--on-verdict", f"env > {tmp_path}/env", env=env)

    [line] = [line for line in ended.stdout.splitlines() if line]
    assert manager.address not in line
    assert line.split()[-2:] == ["None", "None"]
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & {
        line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()
    }


@pytest.mark.parametrize("address", ["/nowhere/notify", "@nobody-listens", "/" + "x" * 200, "@\udcff"])
def test_nobody_who_listens_hurts(address: str) -> None:
    unit = service(SPEC, {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"}, 5.0)

    assert unit is not None
    unit.heard({"is": "told", "what": "all-ready"}, 6.0)
    unit.heard({"is": "alive", "silent_s": None}, 6.0)
    assert unit._owed == []
    unit._socket.close()


@pytest.mark.parametrize("address", ["vsock:2:1234", "relative", "", "@", "/"])
def test_an_address_that_is_none_is_nobody(address: str) -> None:
    assert service(SPEC, {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"}, 5.0) is None


def test_one_who_listens_and_never_reads_hurts_nobody(tmp_path: Path, ranks: Ranks) -> None:
    with Manager(tmp_path) as manager, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"X=1", manager.address)
        ended = ranks.run(1, "pass", env=manager.env(WATCHDOG_USEC="2000"))

    assert ended.status == 0


# ── Time that is moved ───────────────────────────────────────────────────────────────────────────────────────────


class Asked(list[dict[str, Any]]):
    """What the supervisor was asked."""

    def __call__(self, ask: dict[str, Any]) -> None:
        self.append(ask)


def test_a_start_is_extended_while_ranks_show_progress(tmp_path: Path) -> None:
    with Manager(tmp_path) as manager:
        unit, asked = Service(SPEC, manager.address, None, 100.0), Asked()
        unit.tick(100.0, asked)
        manager.drain()
        assert (manager.said, asked) == (["STATUS=starting: 0 of 2 ranks ready"], [])
        assert unit.due == 100.0 + LOOK_S

        unit.tick(100.0 + LOOK_S, asked)
        assert asked == [{"do": "alive"}]
        unit.heard({"is": "alive", "silent_s": SILENT_S - 1}, 110.0)
        unit.heard({"is": "alive", "silent_s": SILENT_S + 1}, 120.0)  # nobody has said anything
        manager.drain()
        assert manager.said[1:] == [f"EXTEND_TIMEOUT_USEC={EXTENSION_S * 1e6:.0f}"]

        unit.heard({"is": "told", "what": "all-ready"}, 121.0)
        unit.heard({"is": "alive", "silent_s": 0.1}, 122.0)
        manager.drain()
        assert manager.said[2:] == ["READY=1", "STATUS=ready: all 2 ranks"]
        assert unit.due is None
        unit._socket.close()


def test_a_clock_of_ours_is_left_to_run(tmp_path: Path) -> None:
    with Manager(tmp_path) as manager:
        unit = Service(SPEC.replace(ready_timeout=900.0), manager.address, None, 100.0)
        unit.heard({"is": "alive", "silent_s": 500.0}, 110.0)
        manager.drain()
        assert manager.said == [f"EXTEND_TIMEOUT_USEC={EXTENSION_S * 1e6:.0f}"]
        unit._socket.close()


def test_ready_is_said_again_where_there_was_no_room(tmp_path: Path) -> None:
    with Manager(tmp_path) as manager, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"X=1", manager.address)
        unit = Service(SPEC, manager.address, None, 100.0)
        unit.heard({"is": "told", "what": "all-ready"}, 100.0)
        assert unit.due == 100.0 + AGAIN_S
        manager.drain()

        unit.tick(100.0 + AGAIN_S, Asked())
        manager.drain()
        assert manager.said[-2:] == ["READY=1", "STATUS=ready: all 2 ranks"]
        unit._socket.close()


def test_a_status_and_the_time_to_end_are_said_again_where_there_was_no_room(tmp_path: Path) -> None:
    with Manager(tmp_path) as manager, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"X=1", manager.address)
        unit = Service(SPEC, manager.address, None, 100.0)
        unit.tick(100.0, Asked())
        unit.heard({"is": "told", "what": "failed"}, 101.0)
        unit.heard({"is": "told", "what": "judged", "verdict": {"statement": "rank 1 failed"}}, 101.0)
        unit.tick(101.0 + STATUS_S, Asked())
        manager.drain()
        unit.tick(101.0 + 2 * STATUS_S, Asked())
        manager.drain()

        said = [line for line in manager.said if line != "X=1"]
        assert said == [
            "STOPPING=1", "STATUS=failed: a rank failed", "EXTEND_TIMEOUT_USEC=36000000", "STATUS=failed: rank 1 failed",
        ]  # fmt: skip
        assert unit.due is None
        unit._socket.close()


def test_an_unchanged_engine_is_ready_when_it_shows_it(tmp_path: Path) -> None:
    sign, told = tmp_path / "ready", tmp_path / "fifo"
    os.mkfifo(told)
    engine = ["/bin/sh", "-c", f"read go < {told}; touch {sign}; exec sleep 60"]
    command = ["rankguard", "watch", "--ready-file", str(sign), "--run-dir", str(tmp_path / "run"), "--", *engine]
    with (
        Manager(tmp_path) as manager,
        subprocess.Popen([sys.executable, "-m", *command], env=manager.env(), stderr=subprocess.DEVNULL) as front,
    ):
        manager.until("STATUS=starting")
        assert "READY=1" not in manager.said

        told.write_text("go\n")
        manager.until("READY=1")
        assert manager.said[-1] == "STATUS=ready: the engine"

        front.send_signal(signal.SIGTERM)
        manager.until("STOPPING=1")
        assert front.wait(timeout=60) == 143
