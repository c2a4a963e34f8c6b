"""Ranks that hang in the ways that need a second look: what the kernel tells of files and locks, who has the GIL, what
stands where a shell is the rank; and ranks that are not ready in time.
"""

import json
import os
import subprocess

import pytest
from tests.run.command import Ended, Ranks
from tests.run.test_stalls import LIMIT, WAIT, evidence, stalled

pytestmark = pytest.mark.slow

MORE = "import ctypes, fcntl"


def test_a_thread_that_sleeps_with_the_gil(ranks: Ranks) -> None:
    ended = stalled(
        ranks,
        f"{MORE}\ndef native(): ctypes.PyDLL(None).pause()\n"
        "def hang():\n    threading.Thread(target=native, name='loader').start(); threading.Event().wait()",
    )

    assert (ended.status, ended.verdict["culprit"]["rank"]) == (124, 1)
    assert (
        "it waits for its thread `loader`, which sleeps with the GIL in `native` (program.py:"
        in ended.cause["statement"]
    )


def test_a_main_thread_that_sleeps_with_the_gil(ranks: Ranks) -> None:
    ended = stalled(ranks, f"{MORE}\ndef hang(): ctypes.PyDLL(None).pause()")

    assert (ended.status, ended.verdict["culprit"]["rank"]) == (124, 1)
    assert "it waits in `hang` (program.py:" in ended.cause["statement"]
    assert "state S in pause, holds the GIL" in ended.verdict["culprit"]["stacks"]


def test_a_busy_loop_in_c_is_told_with_its_calls(ranks: Ranks) -> None:
    ended = stalled(ranks, "def hang(): hashlib.pbkdf2_hmac('sha256', b'x', b'y', 2**31 - 1)")

    assert evidence(ended, "cpu")[0].startswith("it has used ")
    assert " s of CPU in the last " in evidence(ended, "cpu")[0]
    told = [text for text in evidence(ended, "stacks") if text.startswith("in C it is in `")]
    assert told or "in C: " not in ended.verdict["culprit"]["stacks"]  # a py-spy without libunwind tells none
    assert all("crypto" in text or "hash" in text for text in told), told


def test_the_rank_that_has_the_lock_which_another_waits_for(ranks: Ranks) -> None:
    """Rank 1 waits for rank 2, which sleeps; the others wait for both. Two of four are no majority."""
    gate = ranks.folder / "gate"
    os.mkfifo(gate)
    text = f"""{WAIT}{MORE}
file = open({str(ranks.folder / "cache.lock")!r}, "w")
def cache(): fcntl.flock(file, fcntl.LOCK_EX)
def slow(): threading.Event().wait()
if RANK == 2: cache(); os.write(os.open({str(gate)!r}, os.O_WRONLY), b"x"); slow()
if RANK == 1: os.read(os.open({str(gate)!r}, os.O_RDONLY), 1); cache()
wait_for_all()
"""
    ended = ranks.run(4, text, "--stall-timeout", LIMIT)

    assert (ended.status, ended.verdict["culprit"]["rank"]) == (124, 2)
    assert ended.verdict["order"]["basis"] == "has the lock that another rank waits for"
    assert f"rank 1 waits for a lock on {ranks.folder / 'cache.lock'} that it holds" in evidence(ended, "proc")


def test_a_lock_that_a_forked_child_has(ranks: Ranks) -> None:
    path = str(ranks.folder / "cache.lock")
    ended = stalled(
        ranks,
        f"{MORE}\n"
        "def hang():\n    r, w = os.pipe()\n"
        f"    file = open({path!r}, 'w')\n"
        "    if os.fork() == 0: fcntl.lockf(file, fcntl.LOCK_EX); os.write(w, b'x'); threading.Event().wait()\n"
        "    os.read(r, 1); fcntl.lockf(file, fcntl.LOCK_EX)",
    )

    assert (ended.status, ended.verdict["culprit"]["rank"]) == (124, 1)
    assert f"it sleeps in `fcntl` on {path}" in evidence(ended, "proc")
    assert any(text.startswith("the lock that it waits for is held by pid ") for text in evidence(ended, "proc"))
    assert ended.verdict["hints"][0].startswith("see why pid ")


def test_a_python_lock_that_nobody_has_after_a_fork(ranks: Ranks) -> None:
    """The rank waits for its child, and that for a lock that was taken when it was forked: the child is looked at."""
    ended = stalled(
        ranks,
        "lock = threading.Lock()\ndef worker(): lock.acquire()\n"
        "def hang():\n    lock.acquire()\n    pid = os.fork()\n    if pid == 0: worker()\n    os.waitpid(pid, 0)",
    )

    assert "it waits in `worker` (program.py:" in ended.cause["statement"]
    assert ", the Python below the rank's own process (pid " in ended.verdict["culprit"]["stacks"]


def test_input_that_nobody_gives(ranks: Ranks) -> None:
    program = ranks.program(f"{WAIT}\ndef ask(): input('who? ')\nask() if RANK == 0 else wait_for_all()")
    folder = ranks.next_dir()
    words = ranks.command("-n", "3", "--stdin", "0", "--run-dir", str(folder), "--stall-timeout", LIMIT, program)
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        assert process.wait() == 124

    verdict = json.loads((folder / "verdict.json").read_text())
    assert (verdict["culprit"]["rank"], verdict["culprit"]["cause"]["kind"]) == (0, "stall")
    assert "it waits in `ask` (program.py:" in verdict["statement"]
    assert verdict["hints"][0].startswith("rank 0 waits for input that nobody gives")


def test_a_main_thread_that_has_ended(ranks: Ranks) -> None:
    ended = stalled(
        ranks,
        f"{MORE}\ndef hang():\n    threading.Thread(target=threading.Event().wait).start()\n"
        "    ctypes.CDLL(None).pthread_exit(None)",
    )

    assert (ended.status, ended.verdict["culprit"]["rank"]) == (124, 1)
    assert "it is without its main thread, which has ended; 1 other thread lives on" in ended.cause["statement"]


# ── Not ready in time ────────────────────────────────────────────────────────────────────────────────────────────


def unready(ranks: Ranks, text: str, n: int = 4) -> Ended:
    ended = ranks.run(n, f"{WAIT}{text}", "--ready-timeout", LIMIT)
    assert (ended.status, ended.cause["kind"], ended.cause["family"]) == (124, "ready-timeout", "time")
    return ended


def test_none_is_ready_and_one_holds_the_others_up(ranks: Ranks) -> None:
    ended = unready(ranks, "def load_shard(): threading.Event().wait()\nload_shard() if RANK == 3 else wait_for_all()")

    assert (ended.verdict["culprit"]["rank"], ended.verdict["either"]) == (3, [])
    assert ended.cause["statement"].startswith("rank 3 of 4 was not ready within 2.5 s: it waits in `Event.wait`")
    first, second = evidence(ended, "stacks")[:2]
    assert first.startswith("rank 3 waits in `Event.wait`, called by `load_shard` (program.py:")
    assert second.startswith("ranks 0-2 wait in `wait_for_all` (program.py:")
    assert "load_shard (" in ended.verdict["culprit"]["stacks"]
    assert ended.verdict["hints"][0].startswith("if rank 3 is only slow, raise --ready-timeout above 2.5 s")
    assert (ended.folder / "stacks-1.txt").exists()


def test_none_is_ready_and_all_do_the_same(ranks: Ranks) -> None:
    """Each is late, that is proven; why the first of them is named is said, and that it may be any."""
    ended = unready(ranks, "wait_for_all()", n=3)

    assert len(ended.verdict["either"]) == 2
    assert evidence(ended, "stacks")[0].startswith("all 3 ranks wait in `wait_for_all` (program.py:")


def test_the_one_that_is_late(ranks: Ranks) -> None:
    ended = unready(
        ranks, "import rankguard\nif RANK != 2: rankguard.this_rank().ready()\nwait_for_all()", n=3
    )  # fmt: skip

    assert (ended.verdict["culprit"]["rank"], ended.cause["confidence"]) == (2, "proven")
    assert "it waits in `wait_for_all` (program.py:" in ended.cause["statement"]


def test_a_stopped_rank_is_not_ready(ranks: Ranks) -> None:
    ended = unready(ranks, "def hang(): os.kill(os.getpid(), signal.SIGSTOP)\nhang() if RANK == 1 else wait_for_all()")

    assert ended.verdict["culprit"]["rank"] == 1
    assert "it is stopped by a signal (SIGSTOP or SIGTSTP), in `hang`" in ended.cause["statement"]
    assert "`kill -CONT " in ended.verdict["hints"][0]
    assert (ended.verdict["owner"], ended.verdict["teardown"]["killed"]) == ("outside", [])
