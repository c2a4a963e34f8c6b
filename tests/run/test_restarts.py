"""`--max-restarts` on real ranks: all together, each time on a new port, with nothing left of the attempt before."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.run.command import Ended, Ranks
from tests.run.test_verdicts import checked

ATTEMPT = "ATTEMPT = int(os.environ['TORCHELASTIC_RESTART_COUNT'])\n"
REST = "\nsignal.pause()\n"
NOTIFY = """
import socket
def ready():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
"""


def failing(times: int, how: str, then: str = "") -> str:
    """Rank 1 fails so often, at once; after that all do `then`."""
    return f"{ATTEMPT}if ATTEMPT < {times}:\n    if RANK == 1:\n        {how}\n    signal.pause()\n{then}"


def notes(ended: Ended) -> list[str]:
    lines = (ended.folder / "events.jsonl").read_text().splitlines()
    return [entry["note"] for entry in map(json.loads, lines) if "note" in entry]


def test_it_heals(ranks: Ranks) -> None:
    ports = "print(os.environ['MASTER_PORT'], os.environ['TORCHELASTIC_MAX_RESTARTS'], flush=True)\n"

    ended = ranks.run(3, ports + failing(1, "os.kill(os.getpid(), 9)"), "--max-restarts", "3")

    told = checked(ended)
    assert (ended.status, told["outcome"], told["not_restarted"]) == (0, "succeeded", None), ended.stderr
    (before,) = told["attempts"]
    assert (before["attempt"], before["cause"], before["rank"], before["exit_code"]) == (0, "killed", 1, 137)
    assert (before["restarted"], before["delay_s"]) == ("restart 1 of 3", 0.0)
    assert before["statement"].startswith("rank 1 of 3 was killed by SIGKILL")
    told_by_rank_1 = [(ended.folder / f"rank-1/attempt-{k}/stdout.log").read_text().split() for k in (0, 1)]
    assert [words[1] for words in told_by_rank_1] == ["3", "3"]
    assert told_by_rank_1[0][0] != told_by_rank_1[1][0]  # another port
    assert "all ranks are started again now (restart 1 of 3)" in ended.stderr
    assert "note: attempt 2 succeeded; before: attempt 1 failed after " in ended.stderr
    assert ended.last_line == f"rankguard: exit 0 succeeded run={told['run_id']}"


def test_the_last_attempt_is_the_verdict(ranks: Ranks) -> None:
    ended = ranks.run(2, failing(9, "sys.exit(3 + ATTEMPT)"), "--max-restarts", "1")

    told = checked(ended)
    culprit = told["culprit"]
    assert (ended.status, culprit["rank"], culprit["attempt"], culprit["cause"]["kind"]) == (4, 1, 1, "exit-code")
    assert culprit["log_path"] is None or "/attempt-1/" in culprit["log_path"]
    assert [each["exit_code"] for each in told["attempts"]] == [3]
    assert told["not_restarted"] == "it was started again once, as often as --max-restarts allows"
    assert "  before  attempt 1 failed after " in ended.stderr
    assert "  again   no: it was started again once" in ended.stderr


CANNOT_HEAL = {
    "syntax": ("def (:\n", "SyntaxError is in the program itself"),
    "import": ("import no_such_module_at_all\n", "ModuleNotFoundError is in the program itself"),
    "usage": (
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--lr', required=True)\nparser.parse_args()\n",
        "the program was called in a wrong way",
    ),
}


@pytest.mark.parametrize("name", CANNOT_HEAL)
def test_what_cannot_heal(ranks: Ranks, name: str) -> None:
    text, because = CANNOT_HEAL[name]

    ended = ranks.run(2, text, "--max-restarts", "3")

    told = checked(ended)
    assert (told["attempts"], told["not_restarted"]) == ([], because), ended.stderr
    assert ended.status == (2 if name == "usage" else 1)
    assert not (ended.folder / "rank-0/attempt-1").exists()


def test_what_cannot_be_started(ranks: Ranks) -> None:
    ended = ranks.words(["-n", "2", "--max-restarts", "3", "--no-python", "/no/such/program"])

    told = ended.verdict
    assert (ended.status, told["attempts"]) == (127, [])
    assert told["not_restarted"] == "what cannot be started now cannot be started again"


def test_the_same_twice_before_ready(ranks: Ranks) -> None:
    text = NOTIFY + "if RANK == 1: raise LookupError('no such shard')\nready()\n" + REST

    ended = ranks.run(3, text, "--max-restarts", "5", "--ready-timeout", "30")

    told = checked(ended)
    assert [each["unready"] for each in told["attempts"]] == [True]
    assert told["not_restarted"] == "it failed in the same way twice before it was ready"


def test_readiness_is_counted_anew(ranks: Ranks) -> None:
    text = (
        NOTIFY + ATTEMPT + "ready()\nif ATTEMPT == 0:\n    if RANK == 2: os.kill(os.getpid(), 9)\n    signal.pause()\n"
    )

    ended = ranks.run(3, text, "--max-restarts", "1")

    told = checked(ended)
    assert (ended.status, told["outcome"]) == (0, "succeeded")
    assert all(row["ready_after_s"] is not None for row in told["ranks"])
    assert ended.stderr.count("all 3 ranks ready in ") >= 1


COUNTS = """
counted = os.path.join(sys.argv[1], f"counted-{ATTEMPT}")
if RANK == 0:
    started = '"fact": "Spawned"'
    while open(os.environ["RANKGUARD_RUN_DIR"] + "/events.jsonl").read().count(started) < 2 * (ATTEMPT + 1):
        time.sleep(0.01)  # while ranks start, some pipes more are open
    several = []
    for _ in range(20):  # and while something is written, a file
        several.append(len(os.listdir(f"/proc/{os.getppid()}/fd")))
        time.sleep(0.01)
    print(min(several), flush=True)
    open(counted, "w").close()
    if ATTEMPT < 2: signal.pause()
while not os.path.exists(counted): time.sleep(0.01)
if ATTEMPT < 2: os.kill(os.getpid(), 9)
"""


def test_each_attempt_begins_with_the_same_descriptors(ranks: Ranks, tmp_path: Path) -> None:
    """What an attempt held (pipes, sockets, pidfds, groups, event descriptors) is given back, and so are its folders."""
    ended = ranks.run(2, ATTEMPT + COUNTS, "--max-restarts", "2", "--sample", "0", args=(str(tmp_path),))

    counts = [int((ended.folder / f"rank-0/attempt-{k}/stdout.log").read_text()) for k in range(3)]
    assert counts[0] == counts[1] == counts[2]
    assert ended.status == 0
    groups = [
        path for note in notes(ended) for path in note.split() if path.endswith(f"rankguard-{ended.verdict['run_id']}")
    ]
    assert groups
    assert not [path for path in groups if os.path.exists(path)]


def test_what_an_earlier_attempt_left_behind_is_told(ranks: Ranks, tmp_path: Path) -> None:
    name = f"rg-restarts-{os.getpid()}"
    leave = f"open('/dev/shm/{name}', 'w').write('x' * 100)\n"
    try:
        ended = ranks.run(2, failing(1, f"{leave.strip()}; os.kill(os.getpid(), 9)"), "--max-restarts", "1")
        assert [left["path"] for left in ended.verdict["teardown"]["left"]] == [f"/dev/shm/{name}"]
        assert (ended.status, ended.verdict["outcome"]) == (0, "succeeded")
    finally:
        Path(f"/dev/shm/{name}").unlink(missing_ok=True)


def test_explain_tells_it_in_chapters(ranks: Ranks) -> None:
    ended = ranks.run(2, failing(1, "os.kill(os.getpid(), 9)"), "--max-restarts", "1")

    words = [sys.executable, "-m", "rankguard", "explain", str(ended.folder)]
    told = " ".join(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())

    assert told.count("the job began") == 2
    assert "attempt 2 begins, restart 1 of 1; from here on times count from its launch" in told


def test_filtered_lines_of_each_attempt(ranks: Ranks) -> None:
    text = ATTEMPT + "print('keep', ATTEMPT, flush=True)\nsys.exit(3 if ATTEMPT == 0 else 0)"

    ended = ranks.run(1, text, "--max-restarts", "1", "--duplicate-stdout-filters", "keep")

    files = [ended.folder / "filtered_stdout.log", ended.folder / "filtered_stdout.1.log"]
    assert [file.read_text().split()[-2:] for file in files] == [["keep", "0"], ["keep", "1"]]


def test_a_given_port_stays(ranks: Ranks) -> None:
    ended = ranks.run(
        1, ATTEMPT + "print(os.environ['MASTER_PORT'], flush=True)\nsys.exit(3 if ATTEMPT == 0 else 0)", "--max-restarts", "1",
        "--master-port", "29511",
    )  # fmt: skip

    logs: list[Any] = [(ended.folder / f"rank-0/attempt-{k}/stdout.log").read_text().split() for k in (0, 1)]
    assert logs == [["29511"], ["29511"]]


def test_a_window(ranks: Ranks) -> None:
    ended = ranks.run(1, ATTEMPT + "sys.exit(7)", "--max-restarts", "1", "--restart-window", "600")

    assert ended.verdict["not_restarted"] == "it was started again once within 600 s, as often as --max-restarts allows"
