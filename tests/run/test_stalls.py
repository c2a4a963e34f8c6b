"""`--stall-timeout` with real ranks that hang in real ways: who is named, what shows it, and who is left alone.

A rank's own start counts, so the timeouts here are longer than a Python takes to start on a busy machine.
"""

import json
import os
import select
import subprocess
import time
from pathlib import Path

import pytest
from tests.run.command import Ended, Ranks

from rankguard.core import story
from rankguard.diagnosis.verdict import verdict

pytestmark = pytest.mark.slow

LIMIT = "2.5"
WAIT = """
import hashlib, threading
def wait_for_all():
    r, w = os.pipe(); os.read(r, 1)
"""
SAY = """
import socket
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s: s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
"""


def stalled(ranks: Ranks, culprit: str, *options: str, n: int = 3) -> Ended:
    """All wait for rank 1, which does `culprit`."""
    ended = ranks.run(
        n, f"{WAIT}{culprit}\nhang() if RANK == 1 else wait_for_all()", "--stall-timeout", LIMIT, *options
    )
    assert (ended.verdict["outcome"], ended.cause["kind"], ended.cause["family"]) == ("failed", "stall", "time")
    assert ended.verdict["teardown"]["survivors"] == []
    return ended


def evidence(ended: Ended, source: str) -> list[str]:
    return [each["statement"] for each in ended.cause["evidence"] if each["source"] == source]


def test_a_rank_that_waits_for_its_own_lock(ranks: Ranks) -> None:
    ended = stalled(ranks, "def hang(): lock = threading.Lock(); lock.acquire(); lock.acquire()")

    culprit = ended.verdict["culprit"]
    assert (ended.status, culprit["rank"], ended.cause["confidence"]) == (124, 1, "likely")
    assert culprit["cause"]["statement"].startswith(
        "rank 1 of 3 has shown no sign of progress for 2.5 s: it waits in `hang` (program.py:"
    )
    assert "hang (" in culprit["stacks"]
    first, second = evidence(ended, "stacks")
    assert first.startswith("rank 1 waits in `hang` (program.py:")
    assert second.startswith("ranks 0, 2 wait in `wait_for_all` (program.py:")
    assert evidence(ended, "cpu")[0].endswith(": it is asleep in `futex`")
    assert evidence(ended, "clock")[0].startswith("it has given no sign of progress in the ")
    assert {row["relation"] for row in ended.verdict["ranks"]} == {"culprit", "stopped"}
    assert (ended.folder / "stacks-1.txt").read_text().startswith("stacks of 3 of 3 ranks")
    assert ended.last_line.startswith("rankguard: exit 124 stall likely rank=1 ")
    assert "rank 1 was here" in ended.stderr


def test_the_journal_gives_the_same_verdict(ranks: Ranks) -> None:
    ended = stalled(
        ranks, "def hang(): lock = threading.Lock(); lock.acquire(); lock.acquire()", "--exit-codes", "class"
    )

    with (ended.folder / "events.jsonl").open() as journal:
        job, _steps = story.replay(journal)
    again = verdict(job.case(), ended.verdict["rankguard"]).to_dict()

    assert (ended.status, again["exit_code"]) == (84, 84)
    for key in ("culprit", "statement", "either", "order", "fingerprint", "hints", "retry"):
        assert json.dumps(again[key]) == json.dumps(ended.verdict[key]), key


@pytest.mark.parametrize(
    "busy",
    [
        "def hang(): hashlib.pbkdf2_hmac('sha256', b'x', b'y', 2**31 - 1)",  # in C, without the GIL
        "import re\ndef hang(): re.match('(a+)+b', 'a' * 64)",  # holds the GIL
        "def hang():\n    while True: pass",
    ],
    ids=["C", "C-with-GIL", "Python"],
)
def test_a_rank_that_is_busy_and_says_nothing(ranks: Ranks, busy: str) -> None:
    ended = stalled(ranks, busy)

    assert (ended.status, ended.verdict["culprit"]["rank"]) == (124, 1)
    assert "`hang` (program.py:" in ended.cause["statement"]
    assert evidence(ended, "cpu")[0].endswith(": it is busy, and says nothing")
    assert "rank 1 is busy and says nothing" in ended.verdict["hints"][0]


def test_a_stopped_rank_is_called_so_and_ends_when_it_is_told_to(ranks: Ranks) -> None:
    ended = stalled(ranks, "def hang(): os.kill(os.getpid(), signal.SIGSTOP)")

    assert (ended.status, ended.verdict["culprit"]["rank"], ended.cause["confidence"]) == (124, 1, "proven")
    assert "it is stopped by a signal (SIGSTOP or SIGTSTP), in `hang`" in ended.cause["statement"]
    assert "ask who stopped rank 1" in ended.verdict["hints"][0]
    assert ended.verdict["owner"] == "outside"
    assert ended.verdict["culprit"]["ending"]["signal"] == "SIGTERM"
    assert ended.verdict["teardown"]["killed"] == []


def test_a_rank_in_a_system_call_that_cannot_be_interrupted(ranks: Ranks) -> None:
    """The parent of a vfork sleeps like one on a dead disk (state D), until its child executes: never, here."""
    os.mkfifo(ranks.folder / "never")
    opens = f"(os.POSIX_SPAWN_OPEN, 0, {str(ranks.folder / 'never')!r}, os.O_RDONLY, 0)"

    ended = stalled(
        ranks,
        f"def hang(): os.posix_spawn('/bin/true', ['true'], os.environ, file_actions=[{opens}])",
        "--grace",
        "0.5",
    )

    assert (ended.status, ended.verdict["culprit"]["rank"], ended.cause["confidence"]) == (124, 1, "proven")
    assert "it is in a system call that cannot be interrupted, in `hang`" in ended.cause["statement"]
    assert evidence(ended, "proc")[0].startswith("it sleeps in the kernel's `")
    assert "look at the disk" in ended.verdict["hints"][0]
    assert ended.verdict["owner"] == "machine"


def test_what_a_rank_says_when_it_is_told_to_end_is_not_the_cause(ranks: Ranks) -> None:
    ended = stalled(
        ranks,
        "def told(*_): raise RuntimeError('told to end')\nsignal.signal(signal.SIGTERM, told)\n"
        "def hang(): threading.Event().wait()",
    )

    assert (ended.status, ended.verdict["culprit"]["rank"]) == (124, 1)


def test_where_all_do_the_same_nobody_is_named(ranks: Ranks) -> None:
    ended = stalled(ranks, "def hang(): wait_for_all()", n=2)
    told = ranks.run(3, f"{WAIT}wait_for_all()", "--stall-timeout", LIMIT)

    assert ended.verdict["either"] == [0, 1]  # two that wait on different lines: nothing tells who waits for whom
    assert (told.status, told.verdict["culprit"]["rank"], told.verdict["either"]) == (124, None, [0, 1, 2])
    assert told.cause["confidence"] == "unknown"
    assert told.cause["statement"] == (
        "all 3 ranks have shown no sign of progress for 2.5 s, and which holds the others up is not known"
    )
    assert evidence(told, "stacks")[0].startswith("all 3 ranks wait in `wait_for_all` (program.py:")
    assert told.last_line.startswith("rankguard: exit 124 stall unknown node=")


def test_the_only_silent_rank(ranks: Ranks) -> None:
    """The others go on. What they say to nobody (a foreign datagram, garbage) is no sign of rank 1."""
    text = f"""{WAIT}{SAY}
if RANK == 1:
    while True: time.sleep(0.2); say("garbage"); time.process_time()
while True: print("step"); time.sleep(0.2)
"""
    ended = ranks.run(3, text, "--stall-timeout", LIMIT)

    assert (ended.status, ended.verdict["culprit"]["rank"], ended.cause["confidence"]) == (124, 1, "proven")
    assert ended.verdict["order"]["basis"] == "the only silent rank"
    assert ended.verdict["either"] == []


def test_every_kind_of_sign_keeps_a_rank_alive(ranks: Ranks) -> None:
    """Each for three times the timeout: heartbeats as systemd's clients send them, a status, progress, one byte."""
    text = f"""{SAY}
begun = time.monotonic()
usec, pid = int(os.environ["WATCHDOG_USEC"]), int(os.environ["WATCHDOG_PID"])
assert pid == os.getpid()
import rankguard
signs = [
    lambda: say("WATCHDOG=1"), lambda: say("STATUS=step"), lambda: say("X_RANKGUARD_PROGRESS=1/2 steps"),
    lambda: os.write(2, b"."), rankguard.this_rank().alive,
]
while time.monotonic() < begun + 3 * usec / 1e6:
    signs[RANK]()
    time.sleep(usec / 1e6 / 8)
"""
    ended = ranks.run(5, text, "--stall-timeout", LIMIT)

    assert ended.status == 0, ended.stderr
    journal = (ended.folder / "events.jsonl").read_text()
    assert '"Listen"' in journal
    assert '"Examine"' not in journal
    assert journal.count('"Listen"') <= 6  # asked when somebody may be late, not more


def test_more_time_was_asked_for(ranks: Ranks) -> None:
    text = f"{SAY}say('EXTEND_TIMEOUT_USEC=6000000'); time.sleep(5)"

    ended = ranks.run(1, text, "--stall-timeout", "2")

    assert ended.status == 0, ended.stderr


def test_without_it_nobody_is_asked(ranks: Ranks) -> None:
    ended = ranks.run(1, "sys.exit('WATCHDOG_USEC' in os.environ)", env=dict(os.environ) | {"WATCHDOG_USEC": "1"})

    assert ended.status == 0
    assert '"Listen"' not in (ended.folder / "events.jsonl").read_text()


def test_a_reader_that_takes_nothing_makes_no_rank_silent(ranks: Ranks) -> None:
    """Our own output is full, so we leave what ranks print in their pipes, and they stand in `write`: not their fault."""
    program = ranks.program("while True: print('x' * 1000)")
    folder = ranks.next_dir()
    words = ranks.command("-n", "2", "--run-dir", str(folder), "--stall-timeout", "1.5", program)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        until(lambda: journal(folder).count('"Listen"') >= 3)
        assert '"Examine"' not in journal(folder)
    finally:
        process.terminate()
        assert process.stdout is not None
        while select.select([process.stdout], [], []) and process.stdout.read(1 << 20):
            pass
        process.stdout.close()
    assert process.wait() == 143


def test_ranks_that_are_no_python(ranks: Ranks) -> None:
    """The kernel's words must do: one waits for a clock, the others for a pipe."""
    script = ranks.folder / "waits.sh"
    fifo = ranks.folder / "peers"
    os.mkfifo(fifo)
    script.write_text(f"#!/bin/sh\n[ $RANK = 1 ] && exec sleep 1000\nexec cat <>{fifo}\n")
    script.chmod(0o755)

    ended = ranks.words(["-n", "4", "--stall-timeout", LIMIT, str(script)])

    assert (ended.status, ended.verdict["culprit"]["rank"], ended.cause["confidence"]) == (124, 1, "likely")
    assert "it waits in `clock_nanosleep`" in ended.cause["statement"]
    assert ended.verdict["culprit"]["stacks"].splitlines()[0].startswith("sleep: state S in clock_nanosleep")


def test_a_request_to_end_is_no_stall(ranks: Ranks) -> None:
    """While the stacks are taken somebody ends the job."""
    program = ranks.program("time.sleep(1000)")
    folder = ranks.next_dir()
    words = ranks.command("-n", "2", "--run-dir", str(folder), "--stall-timeout", "1", program)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: '"Examine"' in journal(folder))
    process.terminate()

    assert process.wait() == 143
    assert json.loads((folder / "verdict.json").read_text())["outcome"] == "interrupted"


def test_no_clock_runs_with_debug(ranks: Ranks) -> None:
    ended = ranks.run(1, "time.sleep(1.5)", "--stall-timeout", "0.5", "--debug", "0")

    assert ended.status == 0, ended.stderr
    assert "`--stall-timeout 0.5`: it does not run with `--debug`" in ended.stderr


def journal(folder: Path) -> str:
    try:
        return (folder / "events.jsonl").read_text()
    except OSError:
        return ""


def until(true) -> None:
    """Look into a file that is written; the bound is for a failure only."""
    end = time.monotonic() + 40
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)
