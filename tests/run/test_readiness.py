"""Readiness as a rank reports it, in any language: sd_notify's datagrams, payloads, deadlines, and all that is not so."""

import json

import pytest
from tests.run.command import Ended, Ranks

SAY = """
import socket, array
def say(data, *fds):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        s.sendmsg([data.encode() if isinstance(data, str) else data], ancillary, 0, os.environ["NOTIFY_SOCKET"])
def payload(size):
    fd = os.memfd_create("payload"); os.write(fd, b'"' + b"x" * (size - 2) + b'"') if size < 1 << 30 else os.truncate(fd, size)
    return fd
"""


def names(facts: list[dict[str, object]], *kinds: str) -> list[object]:
    return [fact["fact"] for fact in facts if fact["fact"] in kinds]


def test_all_ready_then_done(ranks: Ranks) -> None:
    ended = ranks.run(3, SAY + 'say("READY=1\\nSTATUS=serving\\nUNKNOWN=1")', "--ready-timeout", "30")

    verdict = ended.verdict
    assert (ended.status, verdict["outcome"], verdict["ready_at"] is not None) == (0, "succeeded", True)
    assert "all 3 ranks ready in" in ended.stderr


def test_ending_with_0_before_ready_is_a_failure_where_readiness_is_expected(ranks: Ranks) -> None:
    ended = ranks.run(2, SAY + "RANK == 1 and sys.exit(0)\nsay('READY=1')\nsignal.pause()", "--ready-timeout", "30")

    assert (ended.status, ended.cause["kind"], ended.verdict["culprit"]["rank"]) == (1, "exit-before-ready", 1)


def test_the_first_ready_makes_readiness_expected(ranks: Ranks) -> None:
    """Rank 1 has ended with 0 when rank 0 reports: nobody had said before that ranks report readiness."""
    text = SAY + "if RANK == 1: sys.exit(0)\nopen(sys.argv[1]).read()\nsay('READY=1')\nsignal.pause()"
    fifo = ranks.folder / "fifo"
    import os
    import subprocess

    os.mkfifo(fifo)
    run_dir = ranks.next_dir()
    job = subprocess.Popen(ranks.command("-n", "2", "--run-dir", str(run_dir), ranks.program(text), str(fifo)))
    journal = run_dir / "events.jsonl"
    while not journal.exists() or '"Reaped"' not in journal.read_text():
        assert job.poll() is None
    fifo.write_text("go")

    assert job.wait(30) == 1
    verdict = json.loads((run_dir / "verdict.json").read_text())
    assert (verdict["culprit"]["rank"], verdict["culprit"]["cause"]["kind"]) == (1, "exit-before-ready")


def clock(ended: Ended) -> str:
    return next(each["statement"] for each in ended.cause["evidence"] if each["source"] == "clock")


@pytest.mark.slow
def test_a_rank_that_prints_is_not_called_lifeless(ranks: Ranks) -> None:
    """What it said last, and how long ago, is in the proof, beside the place where it was."""
    text = SAY + "if RANK: say('READY=1')\nprint('step', flush=True)\nsignal.pause()"
    silent = ranks.run(2, text, "--ready-timeout", "6")  # long enough for two interpreters on a busy machine
    assert (silent.status, silent.verdict["culprit"]["rank"]) == (124, 0)
    assert clock(silent).startswith("its last sign of progress (output) was ")
    assert silent.verdict["hints"][0].startswith("if rank 0 is only slow, raise --ready-timeout above 6 s")

    told = ranks.run(2, text.replace("print", "RANK or say('STATUS=loading'); print"), "--ready-timeout", "6")
    assert (told.verdict["culprit"]["status"], clock(told)[:28]) == ("loading", "its last sign of progress (o")


def test_a_rank_that_is_ready_may_end_with_0_while_others_load(ranks: Ranks) -> None:
    ended = ranks.run(2, SAY + "RANK == 1 and time.sleep(0.3)\nsay('READY=1')", "--ready-timeout", "30")

    assert ended.status == 0


def test_a_confirmed_rank_that_dies_while_others_load(ranks: Ranks) -> None:
    text = SAY + "if RANK: say('READY=1'); os.kill(os.getpid(), 9)\nsignal.pause()"

    ended = ranks.run(2, text, "--ready-timeout", "30")

    culprit = ended.verdict["culprit"]
    assert (ended.status, culprit["rank"], culprit["was_ready"], culprit["phase"]) == (137, 1, True, "ready")


@pytest.mark.slow
def test_ready_timeout_names_the_late_and_spares_who_asked_for_time(ranks: Ranks) -> None:
    text = (
        SAY
        + """
if RANK == 0: say("READY=1")
if RANK == 2: say("EXTEND_TIMEOUT_USEC=60000000\\nSTATUS=loading")
signal.pause()
"""
    )

    ended = ranks.run(3, text, "--ready-timeout", "6")  # long enough for three interpreters on a busy machine

    assert (ended.status, ended.verdict["culprit"]["rank"], ended.cause["kind"]) == (124, 1, "ready-timeout")
    assert ended.verdict["either"] == []


def test_errno_and_failed_are_failures_at_once(ranks: Ranks) -> None:
    by_errno = ranks.run(2, SAY + 'if RANK: say("ERRNO=12\\nSTATUS=no memory for the cache")\nsignal.pause()')
    text = "import rankguard\nif RANK: rankguard.this_rank().failed('GPU 3 fell off')\nsignal.pause()"
    by_word = ranks.run(2, text)

    for ended, said in ((by_errno, "Cannot allocate memory"), (by_word, "GPU 3 fell off")):
        assert (ended.status, ended.verdict["culprit"]["rank"], ended.cause["kind"]) == (1, 1, "reported-failure")
        assert said in ended.cause["statement"] + json.dumps(ended.cause["evidence"])


def test_a_child_may_speak_for_its_rank_and_be_gone(ranks: Ranks) -> None:
    text = SAY + "pid = os.fork()\nif pid == 0: say('READY=1'); os._exit(0)\nos.waitpid(pid, 0)"

    ended = ranks.run(2, text, "--ready-timeout", "30")

    assert (ended.status, len(names(ended.facts, "Ready"))) == (0, 2)


def test_garbage_is_ignored_and_said(ranks: Ranks) -> None:
    text = (
        SAY
        + r"""
for data in (b"", b"\xff\xfe", b"no equals", "EXTEND_TIMEOUT_USEC=soon", "ERRNO=x", "X_RANKGUARD_PROGRESS=1/0/", "=", "READY=2"):
    say(data)
say("READY=1")
"""
    )

    ended = ranks.run(1, text, "--ready-timeout", "30")

    assert ended.status == 0
    assert 1 <= len(names(ended.facts, "Warned")) <= 4


def test_a_flood_of_datagrams_hurts_nobody(ranks: Ranks) -> None:
    """Rank 0 floods; the death of rank 1 is told all the same, and the journal stays small."""
    text = (
        SAY
        + """
if RANK == 1:
    time.sleep(0.5); os.kill(os.getpid(), 9)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.connect(os.environ["NOTIFY_SOCKET"])
    while True:
        s.send(b"STATUS=" + b"x" * 100); s.send(b"garbage")
"""
    )

    ended = ranks.run(2, text)

    assert (ended.status, ended.verdict["culprit"]["rank"]) == (137, 1)
    assert (ended.folder / "events.jsonl").stat().st_size < 200_000


def test_payloads_that_are_none_are_protocol_errors(ranks: Ranks) -> None:
    for bad in (
        'say("READY=1\\nX_RANKGUARD_PAYLOAD={not json")',
        'say("READY=1\\nX_RANKGUARD_PAYLOAD_SIZE=5000000000")',
        'say("READY=1\\nX_RANKGUARD_PAYLOAD_SIZE=1", payload(1 << 30))',
        'say("X_RANKGUARD_FAILED=7")',
    ):
        ended = ranks.run(2, SAY + f"if RANK: {bad}\nsignal.pause()", "--ready-timeout", "30")

        assert (ended.status, ended.verdict["culprit"]["rank"], ended.cause["kind"]) == (1, 1, "protocol-error"), bad


def test_progress_and_status_reach_the_verdict(ranks: Ranks) -> None:
    text = (
        SAY
        + """
if RANK: say("STATUS=loading\\nX_RANKGUARD_PROGRESS=3/8 shards"); os.kill(os.getpid(), 9)
signal.pause()
"""
    )

    culprit = ranks.run(2, text).verdict["culprit"]

    assert (culprit["status"], culprit["progress"]) == ("loading", {"done": 3.0, "total": 8.0, "unit": "shards"})
