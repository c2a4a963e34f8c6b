"""The other debugger: an editor's, over the Debug Adapter Protocol, in a rank and around the whole command."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.debug.dap import PATIENCE, Editor
from tests.debug.desk import Desk, Session, wait_gone, wait_reaped
from tests.terminal import CTRL_C

pytestmark = pytest.mark.slow

pytest.importorskip("debugpy")

LISTENS = """
import debugpy
if RANK == 1:
    debugpy.listen(("127.0.0.1", int(sys.argv[1])))
    debugpy.wait_for_client()
def work(x):
    y = x + 41
    return y
if RANK == 1:
    print("work", work(RANK), flush=True)
import rankguard
rankguard.this_rank().ready()
"""
WORKS = """
def work(x):
    y = x + 41
    return y
print("work", RANK, work(RANK), flush=True)
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def line_of(path: str, text: str) -> int:
    return Path(path).read_text().splitlines().index(text) + 1


@pytest.fixture(autouse=True)
def _no_warning_of_frozen_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")


@contextlib.contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A command whose output is one pipe; what is left of it at the end is killed."""
    job = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=0
    )
    with job:
        try:
            yield job
        finally:
            job.kill()


def under_debugpy(port: int, run: Path, *words: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    debugpy = (sys.executable, "-m", "debugpy", "--listen", str(port), "--wait-for-client")
    return running(*debugpy, "-m", "rankguard", "run", "--run-dir", str(run), *words)


def ended(job: subprocess.Popen[str]) -> str:
    """All output of a job that ends by itself; its adapter holds the pipe until the editor has gone."""
    output, _none = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, output
    return output


@pytest.mark.parametrize("debug", [(), ("--debug", "1", "--ready-timeout", "0.01")], ids=["any rank", "--debug"])
def test_an_editor_attaches_to_a_rank_that_listens(desk: Desk, debug: tuple[str, ...]) -> None:
    """With `--debug` no time-out runs while the rank waits for the editor, and while it stands at a breakpoint."""
    port, run, path = free_port(), desk.next_dir(), desk.program(LISTENS)
    with running(*desk.command("-n", "3", "--run-dir", str(run), *debug, path, str(port))) as job:
        with Editor(port) as editor:
            editor.attach(path, line_of(path, "    return y"))
            thread, where, line = editor.stopped()
            assert (where, line) == (path, line_of(path, "    return y"))
            assert editor.evaluate("RANK, y") == "(1, 42)"
            editor.ask("continue", threadId=thread)
            editor.event("terminated")  # its adapter goes with it: nothing may be asked any more
        output = ended(job)

    assert "work 42" in output
    assert '"name": "ready"' not in (run / "events.jsonl").read_text()


def test_under_an_editors_debugger_the_job_runs_as_always(desk: Desk) -> None:
    """Neither warden nor supervisor is followed: they would wait for an editor that knows nothing of them."""
    port, run, path = free_port(), desk.next_dir(), desk.program(WORKS)
    with under_debugpy(port, run, "-n", "2", path) as job:
        with Editor(port) as editor:
            editor.attach(path, line_of(path, "    return y"))
            editor.event("terminated")
        output = ended(job)

    assert sorted(line for line in output.splitlines() if "work" in line) == ["[0] work 0 41", "[1] work 1 42"]
    assert json.loads((run / "verdict.json").read_text())["outcome"] == "succeeded"


def test_under_an_editors_debugger_it_follows_the_debug_rank(desk: Desk) -> None:
    """What VS Code does with `"module": "rankguard"` and `"args": ["run", "--debug", "1", …]`: a second session."""
    port, run, path = free_port(), desk.next_dir(), desk.program(WORKS)
    with under_debugpy(port, run, "-n", "2", "--debug", "1", path) as job:
        with Editor(port) as editor:
            editor.attach(path)
            asked = editor.event("debugpyAttach")
            with Editor(asked["connect"]["port"]) as rank:
                rank.attach(path, line_of(path, "    return y"), subProcessId=asked["subProcessId"])
                thread, where, line = rank.stopped()
                assert (where, line) == (path, line_of(path, "    return y"))
                assert rank.evaluate("RANK, y") == "(1, 42)"
                rank.ask("continue", threadId=thread)
                rank.event("terminated")
            editor.event("terminated")
        output = ended(job)

    assert "work 1 42\n" in output
    assert "token" not in "".join(file.read_text() for file in run.rglob("*") if file.is_file())


def test_the_editor_ends_the_command(desk: Desk) -> None:
    """Its stop button: debugpy ends the front at once, and nothing is left of the job."""
    text = "print('up', os.getpid(), end='.', flush=True)\ntime.sleep(1000)"
    port, run, path = free_port(), desk.next_dir(), desk.program(text)
    with under_debugpy(port, run, "-n", "2", path) as job:
        with Editor(port) as editor:
            editor.attach(path)
            assert job.stdout is not None
            said = ""
            while len(re.findall(r"up \d+\.", said)) < 2:
                more = os.read(job.stdout.fileno(), 4096).decode()
                assert more, said
                said += more
            editor.ask("disconnect", terminateDebuggee=True)
        job.communicate(timeout=PATIENCE)

    pids = [int(found) for found in re.findall(r"up (\d+)\.", said)]
    assert len(pids) == 2
    for pid in pids:
        wait_gone(pid)


def test_ctrl_c_in_the_editors_terminal(desk: Desk) -> None:
    """The debugger's threads have no signal blocked: Ctrl-C comes all the same, for the rank and then for the job."""
    text = """
signal.signal(2, signal.default_int_handler)
try:
    print("up", RANK, flush=True)
    while True: time.sleep(0.05)
except KeyboardInterrupt: print("caught by", RANK, os.getpid(), end=".\\n", flush=True)
"""
    port, run, path = free_port(), desk.next_dir(), desk.program(text)
    debugpy = (sys.executable, "-m", "debugpy", "--listen", str(port), "--wait-for-client", "-m")
    words = ["rankguard", "run", "-n", "2", "--run-dir", str(run), "--debug", "1", path]
    with Session(run, *debugpy, *words) as term, Editor(port) as editor:
        editor.attach(path)
        asked = editor.event("debugpyAttach")
        with Editor(asked["connect"]["port"]) as rank:
            rank.attach(path, subProcessId=asked["subProcessId"])
            term.expect("up 1")
            term.send(CTRL_C)
            wait_reaped(term.told_pid("caught by 1"))
            rank.event("terminated")
        term.send(CTRL_C)
        term.expect("stopped by SIGINT")
        editor.event("terminated")
        editor.ask("disconnect")

        assert term.wait() == 0
    assert "caught by 0" in term.log(0)
