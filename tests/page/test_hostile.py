"""Clients that are too many, too slow, too talkative or half gone: they cost the job nothing, and others are served."""

import contextlib
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.page.served import PATIENCE, Fed, Served, response

from rankguard.http.serve import NICE

GET = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
ATTACKS = (
    b"",
    b"GET /rea",
    b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,
    b"GET / HTTP/1.1\r\nX: " + b"a" * 8000,
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5,
    bytes(range(256)) * 40,
    b"GET /view.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10,
    b"".join(b"GET /memory.json?since=%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % n for n in range(40)),
    b"GET /log.json?rank=0 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10,
    b"GET /log.json?rank=../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n" * 10,
)


@pytest.fixture
def job() -> Iterator[Fed]:
    """Two ranks that are ready."""
    spec = {"run_id": "x", "command": ["a"], "argv": [], "nprocs": 2, "env": {}, "cwd": "/", "expect_ready": True}
    with Fed() as server:
        server.tell(json.dumps({"schema": "rankguard.events/1", "spec": spec}))
        server.tell(json.dumps({"fact": "JobStarted", "at": 1.0, "wall": 2.0}))
        server.tell(*[json.dumps({"fact": "Spawned", "at": 1.0, "rank": rank, "pid": 70 + rank}) for rank in range(2)])
        server.tell(*[json.dumps({"fact": "Ready", "at": 2.0, "rank": rank}) for rank in range(2)])
        yield server


def test_pipelined_requests_are_answered_in_their_order(job: Fed) -> None:
    paths = ["/readyz", "/nope", "/livez", "/"] * 50
    asked = "".join(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in paths)

    told = job.send(asked.encode() + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert [int(part[:3]) for part in told.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200, 200] * 50 + [200]


def test_who_says_no_more_is_answered_still(job: Fed) -> None:
    with job.connect() as end:
        end.sendall(GET)
        end.shutdown(socket.SHUT_WR)
        assert response(b"".join(iter(lambda: end.recv(65536), b""))).status == 200


def test_a_refusal_arrives_though_the_client_goes_on_sending(job: Fed) -> None:
    with job.connect() as end:
        end.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000)
        assert response(b"".join(iter(lambda: end.recv(65536), b""))).status == 431


def test_a_name_that_was_made_to_point_here_is_refused(job: Fed) -> None:
    def asked(host: str) -> int:
        return response(job.send(f"GET /status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())).status

    assert [asked(host) for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80")] == [
        421
    ] * 3
    assert [asked(host) for host in ("LOCALHOST:80", f"127.0.0.1:{job.port}", "[::1]:80", "x.localhost")] == [200] * 4


def test_head_has_no_body_and_nothing_is_kept_by_caches(job: Fed) -> None:
    told = job.get("/status", "HEAD")

    assert (told.status, told.body, told.headers["cache-control"]) == (200, b"", "no-store")
    assert int(told.headers["content-length"]) > 500
    assert job.get("/events", "HEAD").headers["content-type"] == "text/event-stream"
    assert job.get("/status", "DELETE").headers["allow"] == "get, head"


def test_a_reader_that_comes_back_is_told_what_it_has_not_seen(job: Fed) -> None:
    with contextlib.closing(job.events()) as events:
        first = [next(events) for _ in range(6)]
    assert [(number, name) for number, name, _data in first] == [(1, "run"), *((n, "fact") for n in range(2, 7))]

    with contextlib.closing(job.events("Last-Event-ID: 4")) as events:
        assert [next(events), next(events)] == first[4:]


def test_a_reader_that_does_not_read_is_cut_off() -> None:
    """More than what the kernel and the server keep for it; all others are served meanwhile."""
    with Fed() as server, server.connect() as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        end.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert end.recv(15) == b"HTTP/1.1 200 OK"
        for number in range(32):
            server.tell(*[json.dumps({"note": f"{number} {'x' * 1000}"})] * 500)
            assert server.get("/livez").status == 200

        assert server.metric("rankguard_http_connections_dropped_total") == 1
        with contextlib.closing(server.events()) as events:
            assert next(events)[1] == "gap"
        resident = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
        assert int(resident) * os.sysconf("SC_PAGE_SIZE") < 40 << 20


def test_a_large_answer_that_is_taken_slowly_is_whole() -> None:
    """/status of many ranks, read in small pieces through small windows."""
    spec = {"run_id": "x", "command": ["a"], "argv": [], "nprocs": 400, "env": {}, "cwd": "/"}
    with Fed() as server, server.connect() as end:
        server.tell(json.dumps({"schema": "rankguard.events/1", "spec": spec}))
        server.tell(json.dumps({"fact": "JobStarted", "at": 1.0, "wall": 2.0}))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        end.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        told = response(b"".join(iter(lambda: end.recv(3000), b"")))

    assert (told.status, len(json.loads(told.body)["ranks"])) == (200, 400)
    assert len(told.body) == int(told.headers["content-length"])


def test_who_is_too_slow_to_ask_gives_way() -> None:
    """With room for few connections the oldest of those that ask for nothing is dropped, and the newest is served."""
    with Fed() as server, contextlib.ExitStack() as open_:
        server.get("/livez")  # it has set its own limit by now
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (40, 40))
        ends = [open_.enter_context(server.connect()) for _ in range(60)]
        for end in ends[:50]:
            with contextlib.suppress(OSError):
                end.sendall(b"GET /lives")

        assert server.get("/livez").status == 200
        assert server.metric("rankguard_http_connections_dropped_total") > 10


def test_the_end_of_the_feed_is_the_end_whatever_clients_do() -> None:
    with Fed() as server, contextlib.ExitStack() as open_:
        for number in range(50):
            end = open_.enter_context(server.connect())
            end.sendall(ATTACKS[number % len(ATTACKS)])
        server.get("/livez")
        server.feed.close()

        assert server.process.wait(timeout=PATIENCE) == 0


def _a_rank_is_killed(folder: Path, clients: int, *, stopped: bool) -> None:
    """While so many clients do their worst. `stopped`: and the page server stands still, so whoever waited for it would go
    on waiting.
    """
    with Served(folder, 2, "--ready-timeout", "60", "--grace", "60") as job, contextlib.ExitStack() as open_:
        job.tell(0, "deaf")  # so that the job goes on being stopped until we say so
        for rank in range(2):
            job.tell(rank, "ready")
        job.until(order="Tell", what="all-ready")
        pid, server = int(job.until(fact="Spawned", rank=1)["pid"]), job.server()
        for number in range(clients):
            end = open_.enter_context(socket.socket())
            end.connect(("127.0.0.1", job.port))
            end.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                end.send(ATTACKS[number % len(ATTACKS)])
        assert os.getpriority(os.PRIO_PROCESS, server) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
        if stopped:
            os.kill(server, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        while not any(fact.get("fact") == "Judged" for fact in _journal(job.run_dir)):
            time.sleep(0.005)
        if stopped:
            assert Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        job.tell(0, "exit 0")
        assert job.end() == 137
        assert (job.verdict["culprit"]["rank"], job.verdict["warnings"]) == (1, [])


def _journal(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.mark.parametrize("stopped", [False, True], ids=["served", "nobody-serves"])
def test_a_death_is_seen_whatever_clients_do(tmp_path: Path, stopped: bool) -> None:
    _a_rank_is_killed(tmp_path, 200, stopped=stopped)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True], ids=["served", "nobody-serves"])
def test_ten_thousand(tmp_path: Path, stopped: bool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 11_000:
        pytest.skip("needs `ulimit -n 11000`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (11_000, hard))
    try:
        _a_rank_is_killed(tmp_path, 10_000, stopped=stopped)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
