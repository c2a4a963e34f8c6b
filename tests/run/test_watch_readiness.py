"""When an engine that knows nothing of us is ready, and what is told when it is not: the real command, real servers.

The engine of these tests does what it is told by its command line; it waits for the test through FIFOs, not for seconds.
"""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.run.command import Ended

from rankguard.cli.verbs import parse
from rankguard.cli.watch import plan
from rankguard.errors import UsageError
from rankguard.supervisor.readylog import ReadyLog

ENGINE = """
import http.server, multiprocessing, os, socket, sys, threading, time
def worker():
    wait_for_shard()
def wait_for_shard():
    time.sleep(1000)
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = os.path.exists("loaded")
        self.send_response(200 if good else 503)
        self.end_headers()
        self.wfile.write(b"" if good else b"loading weights, token=hunter2hunter2")
    def log_message(self, *words):
        pass
def serve(port, handler=Health):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
"""


class Watch:
    """Runs `rankguard watch` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "rankguard", "watch", "--run-dir", str(self.folder / "run"), *words]
        return subprocess.Popen(
            command, cwd=self.folder, text=True,
            **({"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more),
        )  # fmt: skip

    def end(self, started: subprocess.Popen[str]) -> Ended:
        out, err = started.communicate(timeout=60)
        done = subprocess.CompletedProcess(started.args, started.returncode, out, err)
        return Ended(done, self.folder / "run")

    def run(self, *words: str, **more: Any) -> Ended:
        return self.end(self.start(*words, **more))

    def engine(self, text: str) -> list[str]:
        (self.folder / "engine.py").write_text(ENGINE + text)
        return ["--", sys.executable, "engine.py"]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path)


def free_port() -> int:
    """Below the ephemeral range, so that no probe's own end gets it."""
    from rankguard.linux.ports import hold_free_port

    port, lock = hold_free_port()
    lock.close()
    return port


def ready_in_journal(ended: Ended) -> bool:
    return any(fact["fact"] == "Ready" for fact in ended.facts)


def test_http_answers_at_last(watch: Watch) -> None:
    """It refuses, then says 503, then 200; nobody asks again after that."""
    port = free_port()
    text = f"""
asked = []
class Counted(Health):
    def do_GET(self):
        asked.append(self.path)
        if len(asked) == 3: open("loaded", "w")
        super().do_GET()
serve({port}, Counted)
open("told").read()
print("asked", *asked)
"""
    os.mkfifo(watch.folder / "told")
    job = watch.start("--ready-http", f"http://127.0.0.1:{port}/health?key=hunter2hunter2", *watch.engine(text))
    assert job.stderr is not None
    line = job.stderr.readline()
    (watch.folder / "told").write_text("")
    ended = watch.end(job)

    assert line.startswith("rankguard: the engine is ready after ")
    key = "/health?key=hunter2hunter2"
    assert (ended.status, ended.stdout) == (0, f"asked {key} {key} {key}\n")
    assert "hunter2" not in (ended.folder / "events.jsonl").read_text() + (ended.folder / "verdict.json").read_text()
    told = [fact["probe"] for fact in ended.facts if fact["fact"] == "StatusTold"]
    assert all(each.startswith(f"http://127.0.0.1:{port}/health?…") for each in told)


def test_all_that_were_asked_for_have_to_hold(watch: Watch) -> None:
    """A line, a file and a port, each after the other; the engine's own word does not count beside them."""
    port = free_port()
    text = f"""
def say():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b"READY=1\\nSTATUS=warming", os.environ["NOTIFY_SOCKET"])
say()
print("\\x1b[32mapplication\\x1b[0m startup complete", flush=True)
open("loaded", "w")
open("go").read()
server = socket.create_server(("127.0.0.1", {port}))
server.accept()
open("told").read()
"""
    for name in ("go", "told"):
        os.mkfifo(watch.folder / name)
    journal = watch.folder / "run" / "events.jsonl"
    asked = ["--ready-log", "^application start", "--ready-file", "loaded", "--ready-tcp", f"localhost:{port}"]
    job = watch.start(*asked, *watch.engine(text))
    (watch.folder / "go").write_text("")  # the engine has said all the rest
    assert job.stderr is not None
    line = job.stderr.readline()
    whole = journal.read_text().rpartition("\n")[0]  # the last line may be there in part
    before = [fact for fact in map(json.loads, whole.splitlines()) if "fact" in fact]
    (watch.folder / "told").write_text("")
    ended = watch.end(job)

    assert (ended.status, line.startswith("rankguard: the engine is ready")) == (0, True)
    assert [fact["fact"] for fact in before].count("Ready") == 1
    assert any(fact.get("text") == "warming" for fact in before)


@pytest.mark.parametrize("by", ["child", "orphan"])
def test_its_own_word_from_any_process(watch: Watch, by: str) -> None:
    text = f"""
if os.fork() == 0:
    if {by == "orphan"} and os.fork(): os._exit(0)
    os.setsid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    open("told").read()
    os._exit(0)
open("told").read()
"""
    os.mkfifo(watch.folder / "told")
    job = watch.start("--ready-timeout", "60", *watch.engine(text))
    assert job.stderr is not None
    line = job.stderr.readline()
    # Both readers may have come to it by now, or only one: whoever opens it later finds a writer as well.
    with (watch.folder / "told").open("w"):
        job.send_signal(15)
        watch.end(job)

    assert line.startswith("rankguard: the engine is ready after ")


def test_not_ready_in_time(watch: Watch) -> None:
    """What the probes heard, and what every Python process of the tree was doing, those alike together.

    In the time that it is given three interpreters start, on a busy machine too.
    """
    port = free_port()
    text = f"""
if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    serve({port})
    [spawn.Process(target=worker).start() for _ in range(2)]
    threading.Event().wait()
"""
    ended = watch.run(
        "--ready-http", f"http://127.0.0.1:{port}/health", "--ready-file", "never",
        "--ready-timeout", "6", *watch.engine(text),
    )  # fmt: skip
    culprit = ended.verdict["culprit"]
    shown = {each["source"]: each["statement"] for each in reversed(ended.cause["evidence"])}
    saved = (ended.folder / "stacks-1.txt").read_text()

    assert (ended.status, ended.cause["kind"], culprit["rank"]) == (124, "ready-timeout", None)
    heard = f"http://127.0.0.1:{port}/health answered 503: loading weights, token=***; the file {watch.folder}/never is not there"
    assert shown["probe"] == heard
    assert f"was not ready within 6 s: http://127.0.0.1:{port}/health answered 503" in ended.cause["statement"]
    assert "stacks of 3 processes of the engine" in saved
    assert saved.count("wait_for_shard") == 2  # a sentence, and the calls: the two do the same
    assert "(pids " in saved
    assert ended.last_line.startswith("rankguard: exit 124 ready-timeout proven name=")
    told = subprocess.run(
        [sys.executable, "-m", "rankguard", "explain", str(ended.folder)], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"\d  the engine was not ready yet[^:]*:\s+http://127\.0\.0\.1", told)
    assert "ranks were ready" not in ended.stderr


def test_a_shell_in_front_and_nothing_said(watch: Watch) -> None:
    ended = watch.run("--ready-timeout", "0.3", "--report", "json", "--", "sh", "-c", "sleep 1000; true")

    verdict = json.loads(ended.stdout)
    assert (ended.status, verdict["exit_code"], verdict["culprit"]["cause"]["kind"]) == (124, 124, "ready-timeout")
    assert verdict["culprit"]["cause"]["evidence"][0] == {
        "source": "notify",
        "statement": "no process of it has said READY=1 (sd_notify)",
    }


def test_an_engine_that_ends_before_it_is_ready(watch: Watch) -> None:
    ended = watch.run("--ready-tcp", f"127.0.0.1:{free_port()}", "--", "true")

    assert (ended.status, ended.cause["kind"]) == (1, "exit-before-ready")


@pytest.mark.parametrize(
    "words",
    [
        ("--ready-http", "ftp://user:hunter2hunter2@x/"),
        ("--ready-tcp", "8000"),
        ("--ready-log", "("),
        ("--ready-file", ""),
        ("--ready-timeout", "soon"),
    ],
)
def test_what_has_no_meaning_is_told_before_anything_is_started(words: tuple[str, str]) -> None:
    with pytest.raises(UsageError) as raised:
        plan(parse("watch", [*words, "--", "true"]) or pytest.fail("no arguments"))

    assert raised.value.statement.startswith(f"`{words[0]} ")
    assert "hunter2" not in raised.value.statement


def test_a_flood_without_a_lines_end_costs_no_more(watch: Watch) -> None:
    text = """
for _ in range(16): sys.stdout.write("x" * (1 << 20))
print("\\nready to serve", flush=True)
open("told").read()
"""
    os.mkfifo(watch.folder / "told")
    job = watch.start("--ready-log", "^ready to", *watch.engine(text), stdout=subprocess.DEVNULL)
    assert job.stderr is not None
    line = job.stderr.readline()
    (watch.folder / "told").write_text("")
    ended = watch.end(job)

    assert (ended.status, line.startswith("rankguard: the engine is ready")) == (0, True)


def test_an_expression_that_needs_years_is_given_up() -> None:
    log, quick = ReadyLog("(x+x+)+y"), ReadyLog("x$")
    for _ in range(4):
        log.take(b"x" * 100 + b"\n")
    quick.take(b"y\n\x1b[1mx\x1b[0m\r\n")

    assert (log.good, log.heard) == (False, "the expression takes too long, and is not looked for any more")
    assert quick.good


def test_an_answer_of_somebody_else_is_told(watch: Watch) -> None:
    """It counts, since a proxy may stand in front of the engine; whose port it is is said."""
    os.mkfifo(watch.folder / "told")
    with socket.create_server(("127.0.0.1", 0)) as stale:
        port = stale.getsockname()[1]
        job = watch.start("--ready-tcp", f"127.0.0.1:{port}", *watch.engine("open('told').read()"))
        assert job.stderr is not None
        lines = [job.stderr.readline() for _ in range(2)]
        (watch.folder / "told").write_text("")
        ended = watch.end(job)

    said = f"127.0.0.1:{port} is served by "
    assert (ended.status, lines[0].startswith("rankguard: the engine is ready")) == (0, True)
    assert lines[1].startswith(f"rankguard: warning: {said}")
    assert f"(pid {os.getpid()}), which is no process of this engine" in lines[1]
    assert any(each.startswith(said) for each in ended.verdict["warnings"])


def test_an_answer_of_an_orphan_of_the_engine_is_its_own(watch: Watch) -> None:
    port = free_port()
    text = f"""
if os.fork() == 0:
    if os.fork(): os._exit(0)
    os.setsid()
    server = socket.create_server(("127.0.0.1", {port}))
    open("told").read()
    os._exit(0)
open("told").read()
"""
    os.mkfifo(watch.folder / "told")
    job = watch.start("--ready-tcp", f"127.0.0.1:{port}", *watch.engine(text))
    assert job.stderr is not None
    line = job.stderr.readline()
    with (watch.folder / "told").open("w"):
        job.send_signal(15)
        ended = watch.end(job)

    assert line.startswith("rankguard: the engine is ready")
    assert ended.verdict["warnings"] == []
