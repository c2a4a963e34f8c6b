"""The page of a run that lives: served to browsers, fed by the run, bounded, and without what is secret."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.page.served import PATIENCE, Fed, Response, Served

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECRET = "correct-horse-battery"
SAYS = """
import os, sys
print("my own secret is", os.environ["SOME_TOKEN"], "<script>alert(1)</script>", flush=True)
print("a second one: hidden-by-pattern-77", file=sys.stderr, flush=True)
"""


@pytest.fixture
def fed(tmp_path: Path) -> Iterator[Fed]:
    """Two ranks that are ready, of a run with a folder; the test is the supervisor."""
    spec = {"run_id": "x", "command": ["a"], "argv": [], "nprocs": 2, "env": {}, "cwd": "/", "expect_ready": True}
    with Fed() as server:
        server.tell(json.dumps({"schema": "rankguard.events/1", "spec": spec | {"run_dir": str(tmp_path)}}))
        server.tell(json.dumps({"fact": "JobStarted", "at": 1.0, "wall": 2.0}))
        server.tell(*[json.dumps({"fact": "Spawned", "at": 1.0, "rank": rank, "pid": 70 + rank}) for rank in range(2)])
        yield server


def _json(answer: Response) -> Any:
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return json.loads(answer.body)


def test_a_browser_is_given_the_page_and_others_the_list(fed: Fed) -> None:
    page = fed.get("/", "GET", "Accept: text/html,application/xhtml+xml,*/*;q=0.8")
    plain = fed.get("/", "GET", "Accept: */*")

    assert (page.headers["content-type"].partition(";")[0], plain.headers["content-type"]) == (
        "text/html",
        "text/plain; charset=utf-8",
    )
    assert page.headers["content-security-policy"] == POLICY.lower()
    assert plain.headers["content-security-policy"] == "default-src 'none'"
    assert [line.split()[0] for line in plain.text.splitlines() if line.startswith("/")] == [
        "/startupz", "/readyz", "/livez", "/status", "/metrics", "/events", "/", "/view.json", "/memory.json?since=S", "/log.json?rank=R",
    ]  # fmt: skip


def test_every_file_of_the_page_is_there_and_nothing_else(fed: Fed) -> None:
    from rankguard.page.assemble import served

    for path, (type_, body) in served().items():
        told = fed.get(path, "GET", "Accept: text/html")
        assert (told.status, told.headers["content-type"], told.body) == (200, type_, body)
        assert (told.headers["x-content-type-options"], told.headers["cache-control"]) == ("nosniff", "no-store")
    for path in (
        "/page.html",
        "/js/../page.css",
        "/static/page.css",
        "/assemble.py",
        "/js/",
        "/..%2f..%2fetc/passwd",
        "/.x",
    ):
        assert fed.get(path).status == 404


def test_what_is_asked_for_is_a_number_or_refused(fed: Fed, tmp_path: Path) -> None:
    fed.tell(json.dumps({"page": {"rules": {"patterns": [], "known": []}}}))
    asked = {
        "/log.json": 400, "/log.json?rank=": 400, "/log.json?rank=-1": 400, "/log.json?rank=1.5": 400, "/log.json?rank=1e3": 400,
        "/log.json?rank=0&rank=1": 400, "/log.json?rank=..%2f": 400, "/log.json?rank=99999999999": 400, "/log.json?rank=2": 404,
        "/log.json?rank=1": 200, "/memory.json?since=x": 400, "/memory.json?since=nan": 400, "/memory.json?since=1.5": 200,
        "/view.json?x=1": 200,
    }  # fmt: skip
    assert {path: _patient(fed, path).status for path in asked} == asked
    assert fed.get("/view.json", "GET", "Host: evil.example").status == 400
    assert fed.send(b"GET /view.json HTTP/1.1\r\nHost: evil.example\r\n\r\n").split()[1] == b"421"


def test_no_output_is_shown_before_it_is_known_what_is_secret(fed: Fed, tmp_path: Path) -> None:
    log = tmp_path / "rank-0" / "attempt-0" / "stdout.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"it is {SECRET}\n")

    assert fed.get("/log.json?rank=0").status == 503
    fed.tell(json.dumps({"page": {"rules": {"patterns": ["b.tt"], "known": ["correct-horse"]}}}))
    told = fed.get("/log.json?rank=0")
    assert _json(told)["streams"]["stdout"]["lines"] == ["it is ***-***ery"]


def _patient(fed: Fed, path: str) -> Response:
    """Whoever asks for many different things waits between them, where the machine took long to make one."""
    while (told := fed.get(path)).text.startswith("asked for too often"):
        pass
    return told


@pytest.mark.slow
def test_logs_that_are_pipes_or_links_are_not_opened(fed: Fed, tmp_path: Path) -> None:
    place = tmp_path / "rank-0" / "attempt-0"
    place.mkdir(parents=True)
    os.mkfifo(place / "stdout.log")
    (place / "stderr.log").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "memory.jsonl")
    fed.tell(json.dumps({"page": {"rules": {"patterns": [], "known": []}}}))

    assert _json(_patient(fed, "/log.json?rank=0"))["streams"] == {}
    assert _json(fed.get("/memory.json")) is None


@pytest.mark.slow
def test_whoever_asks_for_many_different_things_is_answered_seldom(fed: Fed, tmp_path: Path) -> None:
    """What is large is read and redacted for it: the probes are not to wait for that."""
    for rank in range(2):
        log = tmp_path / f"rank-{rank}" / "attempt-0" / "stdout.log"
        log.parent.mkdir(parents=True)
        log.write_text("token=abc https://a:b@c/ " * 40_000)
    fed.tell(json.dumps({"page": {"rules": {"patterns": [r"(\w+\s?)+\d"], "known": []}}}))
    fed.tell(
        *[
            json.dumps({"page": {"look": {"at": 1.0 + n / 100, "kib": {str(r): n for r in range(200)}, "heard": "0"}}})
            for n in range(1500)
        ]
    )
    told = fed.send(
        b"".join(
            b"GET /memory.json?since=%d.%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % (n // 100, n % 100)
            for n in range(300)
        )
        + b"GET /livez HTTP/1.0\r\n\r\n"
    )

    answers = [int(part[:3]) for part in told.split(b"HTTP/1.1 ")[1:]]
    assert (len(answers), answers[-1], set(answers[:-1])) == (301, 200, {200, 503})


def test_a_run_is_followed_from_its_start_to_its_end(tmp_path: Path) -> None:
    env = os.environ | {"SOME_TOKEN": SECRET}
    from tests.page.served import PROGRAM

    # Of some hundred looks all are shown, of more the old ones fewer and fewer.
    options = ["--ready-timeout", "60", "--redact", "hidden-by-.*", "--sample", "0.2"]
    with Served(tmp_path, 2, *options, program=SAYS + PROGRAM, env=env) as job:
        job.tell(0, "status <script>alert(2)</script>")
        job.until(fact="StatusTold", rank=0)
        job.until(fact="Spawned", rank=1)
        seen = _until(lambda: _json(job.get("/view.json")), lambda view: bool(view["ranks"][0]["status"]))
        assert (seen["live"], seen["state"], seen["ranks"][0]["status"]) == (
            True,
            "starting",
            "<script>alert(2)</script>",
        )
        log = _until(lambda: _json(job.get("/log.json?rank=1")), lambda log: len(log["streams"]) == 2)
        assert log["streams"]["stdout"]["lines"] == ["my own secret is *** <script>alert(1)</script>"]
        assert log["streams"]["stderr"]["lines"] == ["a second one: ***"]
        memory = _until(lambda: _json(job.get("/memory.json")), lambda memory: bool(memory and len(memory["at_s"]) > 2))
        since = memory["at_s"][1]
        newer = _until(lambda: _json(job.get(f"/memory.json?since={since}")), lambda told: bool(told["at_s"]))
        assert min(newer["at_s"]) > since

        os.kill(job.server(), signal.SIGKILL)  # another one begins with what the folder holds
        again = _until(lambda: _json(job.get("/memory.json")), bool, OSError)
        assert again["at_s"][:2] == memory["at_s"][:2]
        assert _until(lambda: _json(job.get("/log.json?rank=1")), bool) == log

        job.tell(1, "ready")
        job.tell(0, "exit 3")
        assert job.end() == 3
        told = (job.run_dir / "tails.json").read_text() + (job.run_dir / "memory.jsonl").read_text()
        assert SECRET not in told
        assert "my own secret is ***" in told


def _until(ask: Any, holds: Any, *absent: type[Exception]) -> Any:
    """Ask until it holds: a page is made four times a second at most, and a rank may take seconds to begin."""
    until, pause, told = time.monotonic() + PATIENCE, threading.Event(), None
    while time.monotonic() < until:
        try:
            told = ask()
        except (AssertionError, IndexError, *absent):
            told = None
        if told is not None and holds(told):
            return told
        pause.wait(0.05)
    raise AssertionError(f"{told} does not hold")
