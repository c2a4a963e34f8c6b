"""The exit status, row by row: real jobs, as an ordinary process and as PID 1. Never 0 after a failure."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.signals.jobs import Job, until_in
from tests.signals.rows import STATUS, Status, row

NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root for a PID namespace")
START = """
import os, signal, socket, sys, time
RANK = int(os.environ["RANK"])
def ready():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s: s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
def all_ready():  # and the supervisor knows it
    ready()
    while open("run/events.jsonl").read().count('"fact": "Ready"') < 2: time.sleep(0.01)
"""
CLASS = ("--exit-codes", "class")
WAITS = ("--ready-timeout", "60")
FULL = "raise OSError(28, 'No space left on device')"
STATUS += [
    Status("0", "every rank ended with 0", "pass"),
    Status("0", "every rank was ready, then ended with 0", "ready()", WAITS),
    Status("the culprit's own", "a rank ended with a code", "RANK and sys.exit(7); time.sleep(30)", code=7),
    Status("the culprit's own", "an uncaught exception", "if RANK: raise ValueError('x')\ntime.sleep(30)", code=1),
    Status("128 + n", "signal n killed a rank", "RANK and os.kill(os.getpid(), 9); time.sleep(30)", code=137),
    Status("128 + n", "a crash", "RANK and os.kill(os.getpid(), 11); time.sleep(30)", code=139),
    Status("1", "a rank ended with 0 before it was ready", "RANK and sys.exit(0); time.sleep(30)", WAITS, 1),
    Status("1", "a rank told its parent of a failure and ended with 0",
           "RANK and (os.kill(os.getppid(), 3), os._exit(0)); time.sleep(30)", code=1),
    Status("124", "`--ready-timeout`", "RANK or ready(); time.sleep(30)", ("--ready-timeout", "0.7"), 124),
    Status("2", "wrong usage", "pass", ("--no-such-option",), 2),
    Status("125", "a limit of the machine, met at the start", "pass", ("-n", "64"), 125, "ulimit -n 32; "),
    Status("126", "the program cannot be executed", None, ("--no-python", "/etc/passwd"), 126),
    Status("127", "the program is not found", None, ("--no-python", "./no-such-program"), 127),
    Status("80", "`--exit-codes class`: the program failed before all were ready", "sys.exit(9)", CLASS, 80),
    Status("80", "… or ended before it was ready", "sys.exit(0)", (*CLASS, *WAITS), 80),
    Status("81", "… after all were ready", "all_ready(); sys.exit(9)", (*CLASS, *WAITS, "--run-dir", "run"), 81),
    Status("82", "… memory", "raise MemoryError", CLASS, 82),
    Status("83", "… machine or GPU: retry elsewhere", FULL, CLASS, 83),
    Status("84", "… a time-out", "time.sleep(30)", (*CLASS, "--ready-timeout", "0.7"), 84),
    Status("85", "… it cannot start: do not retry", None, (*CLASS, "--no-python", "./no-such-program"), 85),
]  # fmt: skip


AS_PID_1 = (0, 7, 137, 124, 127)
"""One row of each way to come to a status is played as PID 1, too, where the kernel gives signals another meaning; the
other rows in `make test-slow`."""


@pytest.mark.parametrize("status", STATUS, ids=lambda status: f"{status.code} {status.when}")
def test_exit_status(tmp_path: Path, status: Status) -> None:
    is_as_it_should_be(tmp_path, status)


def in_turn(status: Status) -> object:
    first = next(each for each in STATUS if each.code == status.code)
    quick = status is first and status.code in AS_PID_1
    return pytest.param(status, id=f"{status.code} {status.when}", marks=() if quick else pytest.mark.slow)


@needs_root
@pytest.mark.parametrize("status", [*map(in_turn, STATUS)])
def test_exit_status_as_pid_1(tmp_path: Path, status: Status) -> None:
    is_as_it_should_be(tmp_path, status, NAMESPACE)


def is_as_it_should_be(tmp_path: Path, status: Status, wrap: tuple[str, ...] = ()) -> None:
    program = tmp_path / "program.py"
    program.write_text(START + (status.does or ""))
    words = [*status.options] + ([str(program)] if status.does is not None else [])
    first = ("sh", "-c", status.shell + 'exec "$@"', "sh")
    command = [*wrap, *first, sys.executable, "-m", "rankguard", "run", "-n", "2", "--grace", "1", *words]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, cwd=tmp_path)

    assert ended.returncode == status.code, ended.stderr


@row("SIGTERM, SIGINT, SIGHUP", "from outside the container, to PID 1", "running", "as for any other process",
     "0, or 143, 130, 129")  # fmt: skip
@needs_root
@pytest.mark.parametrize(("number", "clean"), [(15, True), (15, False), (2, True), (2, False), (1, False)])
def test_requests_to_pid_1(tmp_path: Path, number: int, clean: bool) -> None:
    text = f"on({number}, lambda: sys.exit(0))" if clean else "signal.signal(2, signal.SIG_DFL)"
    with Job(tmp_path, 2, text + "; say('up'); forever()", wrap=NAMESPACE) as job:
        os.kill(job.ours()["warden"], number)  # below `unshare`: this is the front
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"]) == (0 if clean else 128 + number, "interrupted")
    assert "from a process that is not visible here (uid 0)" in verdict["statement"]


@row("SIGTSTP, SIGUSR1, SIGQUIT", "from outside the container, to PID 1", "running",
     "SIGTSTP: no effect. SIGUSR1: forwarded. SIGQUIT: stacks", "of the ranks")  # fmt: skip
@needs_root
def test_other_signals_to_pid_1(tmp_path: Path) -> None:
    text = "on(10, lambda: say('usr1')); on(15, lambda: sys.exit(0)); say('up'); forever()"
    said = tmp_path / "stderr"
    with said.open("w") as stderr, Job(tmp_path, 2, text, wrap=NAMESPACE, stderr=stderr) as job:
        front = job.ours()["warden"]
        job.until_fact("Spawned", 2)  # of one that is not known to run there is no stack
        for number in (signal.SIGTSTP, signal.SIGQUIT, signal.SIGUSR1):
            os.kill(front, number)
        job.until("usr1", 2)
        until_in(said, "SIGTSTP has no effect")
        until_in(said, "stacks of 2 of 2 ranks")
        os.kill(front, signal.SIGTERM)
        status, _verdict, _err = job.ended()

    assert (status, job.facts("Suspended")) == (0, [])
