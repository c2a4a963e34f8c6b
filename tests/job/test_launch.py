"""`launch`: ranks of a function or a command, from any program."""

import asyncio
import errno
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest
from tests.job import targets
from tests.runs.jobs import until

import rankguard
from rankguard.linux import tree


def alive(run_id: str) -> list[str]:
    """The processes whose environment names the run."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path("/proc", pid, "environ").read_bytes()
            state = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"RANKGUARD_RUN_ID={run_id}".encode() in environment and state not in "ZX":
            found.append(pid)
    return found


def test_payloads_come_in_the_order_of_the_ranks() -> None:
    with rankguard.launch(targets.report_ready, nprocs=4, args=("p",)) as job:
        payloads = job.wait_ready(timeout=60)
        verdict = job.wait()

    assert payloads == [{"rank": r, "of": 4, "payload": "p"} for r in range(4)]
    assert (verdict.outcome, verdict.exit_code, verdict.culprit) == ("succeeded", 0, None)


def test_a_command_and_its_environment(capfd: pytest.CaptureFixture[str]) -> None:
    command = ["/bin/sh", "-c", "echo $RANK $SHARED $OWN"]
    with rankguard.launch(command, nprocs=2, env=lambda rank: {"OWN": f"own-{rank}"}) as job:
        job.wait()

    assert sorted(capfd.readouterr().out.splitlines()) == ["[0] 0 own-0", "[1] 1 own-1"]


def test_the_death_of_a_loading_rank_reaches_the_waiting_caller() -> None:
    with (
        pytest.raises(rankguard.RankFailed) as caught,
        rankguard.launch(targets.kill_one, nprocs=4, args=(2, 9)) as job,
    ):
        job.wait_ready(timeout=60)

    verdict = caught.value.verdict
    assert verdict.culprit is not None
    assert (verdict.culprit.rank, verdict.culprit.cause.kind, verdict.exit_code) == (2, "killed", 137)
    assert str(caught.value).startswith("rank 2 of 4 was killed")
    assert alive(job.run_id) == []


def test_an_error_is_worded_when_it_is_looked_at() -> None:
    """It comes before the verdict does; whoever looks at it inside the block waits for that."""
    with rankguard.launch(targets.kill_one, nprocs=4, args=(2, 9)) as job:
        with pytest.raises(rankguard.RankFailed) as caught:
            job.wait_ready(timeout=60)
        assert caught.value.verdict.culprit is not None
        assert caught.value.verdict.culprit.rank == 2
        again = pickle.loads(pickle.dumps(caught.value))  # our own

    assert again.verdict.fingerprint == caught.value.verdict.fingerprint


def test_an_error_whose_supervisor_is_killed_before_anybody_looks_at_it() -> None:
    deaf = ["sh", "-c", "trap '' TERM; exec sleep 1000"]  # so that the supervisor lives until it is killed
    with rankguard.launch(deaf, nprocs=4, console="none", grace=60) as job:
        (supervisor,) = tree.children(job._client.warden_pid)
        ranks = tree.children(supervisor)
        until(lambda: {Path(f"/proc/{pid}/comm").read_text() for pid in ranks} == {"sleep\n"})
        os.kill(ranks[2], signal.SIGKILL)
        with pytest.raises(rankguard.RankFailed) as caught:
            job.wait_ready(timeout=60)
        os.kill(supervisor, signal.SIGKILL)
        assert caught.value.verdict.outcome == "failed"
        while job.poll(None) is None:  # the failure may have been judged before, and was known then
            pass
        assert alive(job.run_id) == []


def test_a_rank_that_had_reported_dies() -> None:
    with pytest.raises(rankguard.RankFailed) as caught, rankguard.launch(targets.confirmed_then_dies, nprocs=3) as job:
        job.wait_ready(timeout=60)

    culprit = caught.value.verdict.culprit
    assert culprit is not None
    assert (culprit.rank, culprit.was_ready) == (1, True)


def test_an_exception_with_its_traceback() -> None:
    with (
        pytest.raises(rankguard.RankFailed) as caught,
        rankguard.launch(targets.raises, nprocs=2, args=("gone",)) as job,
    ):
        job.wait()

    cause = caught.value.verdict.culprit.cause  # type: ignore[union-attr]  # there is one
    assert (cause.kind, cause.exception.type, cause.exception.message) == ("exception", "LookupError", "gone")  # type: ignore[union-attr]  # there is one


def test_ready_timeout_is_a_timeout_error() -> None:
    with pytest.raises(TimeoutError) as caught, rankguard.launch(targets.kill_one, nprocs=2, args=(9, 9)) as job:
        job.wait_ready(timeout=0.5)

    assert isinstance(caught.value, rankguard.ReadyTimeout)
    assert caught.value.verdict.exit_code == 124


@pytest.mark.parametrize("size", [100, 1 << 20, 40 << 20])
def test_payloads_of_any_size(size: int) -> None:
    with rankguard.launch(targets.large, nprocs=2, args=(size,)) as job:
        payloads = job.wait_ready(timeout=60)

    assert [len(payload) for payload in payloads] == [size, size]


def test_a_payload_that_is_no_json_is_told_where_it_happened() -> None:
    with pytest.raises(rankguard.RankFailed) as caught, rankguard.launch(targets.unserialisable, nprocs=2) as job:
        job.wait_ready(timeout=60)

    assert "UsageError" in str(caught.value)


def test_what_travels_with_multiprocessing_travels_here() -> None:
    context = multiprocessing.get_context("spawn")
    queue, event = context.Queue(), context.Event()
    shared = SharedMemory(create=True, size=16)
    try:
        with rankguard.launch(targets.use_everything, nprocs=3, args=(queue, event, shared)) as job:
            ranks = sorted(queue.get(timeout=60) for _ in range(3))
            event.set()
            job.wait(60)
        assert (ranks, bytes(shared.buf[:3])) == ([0, 1, 2], b"\1\2\3")
    finally:
        shared.close()
        shared.unlink()
        queue.close()
        queue.join_thread()


def test_what_cannot_travel_is_named_before_anything_starts() -> None:
    with pytest.raises(rankguard.UsageError, match=r"args\[1\]"):
        rankguard.launch(targets.report_ready, args=("fine", threading.Lock()))


@pytest.mark.parametrize(
    ("command", "code", "number", "hint"),
    [
        (["/no/such/program"], 127, errno.ENOENT, "check that `/no/such/program` exists"),
        (["/etc/passwd"], 126, errno.EACCES, "make it executable: `chmod +x /etc/passwd`"),
    ],
)
def test_spawn_failed_leaves_nothing(command: list[str], code: int, number: int, hint: str) -> None:
    with pytest.raises(rankguard.SpawnFailed) as caught:
        rankguard.launch(command, nprocs=3)

    assert (caught.value.exit_code, caught.value.errno) == (code, number)
    assert command[0] in caught.value.statement
    assert str(caught.value.hint).startswith(hint)


def test_a_bad_cwd_is_spawn_failed() -> None:
    with pytest.raises(rankguard.SpawnFailed, match="unable to enter the folder"):
        rankguard.launch(["true"], cwd="/no/such/folder")


@pytest.mark.parametrize("bad", [{"nprocs": 0}, {"start": "warmish"}, {"grace": -1}, {"max_restarts": -2}])
def test_usage_errors(bad: dict[str, object]) -> None:
    with pytest.raises(rankguard.UsageError):
        rankguard.launch(["true"], **bad)  # type: ignore[arg-type]  # on purpose


def test_leaving_the_block_ends_everything() -> None:
    with rankguard.launch(targets.ready_then_wait, nprocs=3) as job:
        job.wait_ready(timeout=60)
        assert len(alive(job.run_id)) == 3

    assert alive(job.run_id) == []
    assert job.verdict is not None
    assert job.verdict.outcome == "interrupted"


def test_an_exception_in_the_block_ends_everything() -> None:
    with pytest.raises(ZeroDivisionError), rankguard.launch(targets.ready_then_wait, nprocs=2) as job:
        job.wait_ready(timeout=60)
        raise ZeroDivisionError

    assert alive(job.run_id) == []


def test_beside_asyncio() -> None:
    async def both() -> tuple[list[object], int]:
        ticks = 0
        with rankguard.launch(targets.ready_then_wait, nprocs=2) as job:
            waiting = asyncio.ensure_future(job.wait_ready_async(timeout=60))
            while not waiting.done():
                await asyncio.sleep(0)
                ticks += 1
            return waiting.result(), ticks

    payloads, ticks = asyncio.run(both())

    assert (payloads, ticks > 10) == ([0, 1], True)


def test_off_the_main_thread() -> None:
    results: list[object] = []

    def work() -> None:
        with rankguard.launch(targets.report_ready, nprocs=2, args=(1,)) as job:
            results.append(len(job.wait_ready(timeout=60)))
            results.append(job.wait().outcome)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert results == [2, "succeeded"]


def test_nothing_global_of_the_caller_changes() -> None:
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    method = multiprocessing.get_start_method(allow_none=True)
    threads, mask = threading.active_count(), signal.pthread_sigmask(signal.SIG_BLOCK, ())

    with rankguard.launch(targets.report_ready, nprocs=2, args=(1,)) as job:
        job.wait()

    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == handlers
    assert multiprocessing.get_start_method(allow_none=True) == method
    assert (threading.active_count(), signal.pthread_sigmask(signal.SIG_BLOCK, ())) == (threads, mask)


def test_a_fork_of_the_caller_does_not_end_the_job() -> None:
    with rankguard.launch(targets.ready_then_wait, nprocs=2) as job:
        job.wait_ready(timeout=60)
        pid = os.fork()
        if pid == 0:
            job.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert job.poll() is None
        assert len(alive(job.run_id)) == 2


def test_events_are_told_while_the_caller_waits() -> None:
    seen: list[str] = []
    with rankguard.launch(["true"], nprocs=2, on_event=lambda name, _fact: seen.append(name)) as job:
        job.wait()

    assert seen.count("Spawned") == seen.count("Exited") == seen.count("Reaped") == 2


def test_two_jobs_nest() -> None:
    with rankguard.launch(targets.ready_then_wait, nprocs=2) as outer, rankguard.launch(["true"], nprocs=2) as inner:
        outer.wait_ready(timeout=60)
        assert inner.wait().outcome == "succeeded"


def test_nothing_leaks() -> None:
    def fds() -> set[str]:
        gc.collect()  # what a test before has left in its objects
        return set(os.listdir("/proc/self/fd"))

    with rankguard.launch(["true"]) as job:
        job.wait()
    before = fds()
    for _ in range(10):
        with rankguard.launch(["true"], nprocs=2) as job:
            job.wait()

    assert fds() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(job._client.warden_pid, os.WNOHANG)


def test_functions_of_main_and_its_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import rankguard\n"
        "def work(rank, word): rank.ready(word * 2)\n"
        "if __name__ == '__main__':\n"
        "    with rankguard.launch(work, nprocs=2, args=('ab',)) as job: print(job.wait_ready(60))\n"
    )
    unguarded = tmp_path / "unguarded.py"
    unguarded.write_text(
        "import rankguard\ndef work(rank): pass\nwith rankguard.launch(work, nprocs=1) as job: job.wait()\n"
    )

    good = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    bad = subprocess.run([sys.executable, unguarded], capture_output=True, text=True, check=False)

    assert (good.returncode, good.stdout) == (0, "['abab', 'abab']\n")
    assert bad.returncode != 0
    assert "__name__ == '__main__'" in bad.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"nprocs": 0}, "nprocs must be at least 1, not 0"),
        ({"console": "loud"}, "console='loud' is not known (prefix, stderr or none)"),
        ({"start": "cold"}, "start='cold' is not known (auto, exec or warm)"),
        ({"grace": -1}, "grace must not be negative: -1"),
        ({"ready_timeout": -1}, "ready_timeout must not be negative: -1"),
        ({"restart_delay": float("nan")}, "restart_delay must not be negative: nan"),
        (
            {"stall_timeout": 0},
            "stall_timeout must be more than 0 seconds, not 0 (stall_timeout=None is no such limit)",
        ),
        ({"grace": None}, "grace must be a number of seconds, not None"),
        (
            {"stall_timeout": float("inf")},
            "stall_timeout must be a number of seconds, not inf (stall_timeout=None is no such limit)",
        ),
        ({"max_restarts": 1.5}, "max_restarts must be a whole number, not 1.5"),
        ({"args": (1,)}, "a command takes no args and kwargs (put them into its list of words)"),
        ({"env": {"TOKEN": b"secret"}}, "env holds 'TOKEN' with a bytes: expected text (str(…))"),
        ({"env": lambda rank: {"RANK_ID": rank}}, "env(0) holds 'RANK_ID' with a int: expected text (str(…))"),
        ({"env": {"A=B": "1"}}, "env holds 'A=B', which cannot be the name of a variable"),
        ({"env": {"A": "1\0"}}, "the value of 'A' in env holds a NUL byte, or what is no character"),
        ({"env": ["A=1"]}, "env must be a mapping of text to text, not a list"),
        ({"cwd": "/\0"}, "cwd holds a NUL byte, or what is no character"),
        ({"run_dir": ""}, "run_dir is empty (run_dir='.' is the folder where we are)"),
        ({"preload": "torch"}, "preload must be a list of texts (preload=['…'])"),
        ({"redact": "abc"}, "redact must be a list of texts (redact=['…'])"),
        ({"on_event": 5}, "on_event must be a function, not 5"),
        ({"labels": {"step": 3}}, "labels holds 'step' with a int: expected text (str(…))"),
        ({"http": "x"}, "http='x': expected HOST:PORT, such as :8080 or 0.0.0.0:8080"),
    ],
)
def test_what_has_no_meaning_is_told_before_anything_is_started(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(rankguard.UsageError) as raised:
        rankguard.launch(["true"], **asked)

    assert str(raised.value) == said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("true", "a command is a list of words, not one text (['python', 'train.py'], or shlex.split of it)"),
        (None, "target is a NoneType: expected a function, or a command as a list of words (['program', 'word'])"),
        ([""], "an empty command"),
        (["echo", "a\0b"], "word 1 of the command holds a NUL byte, or what is no character"),
    ],
)
def test_what_is_no_command_is_told_before_anything_is_started(command: Any, said: str) -> None:
    with pytest.raises(rankguard.UsageError) as raised:
        rankguard.launch(command)

    assert str(raised.value) == said


def test_what_is_no_number_of_seconds_does_not_end_the_job() -> None:
    never = float("inf")
    with rankguard.launch(targets.report_ready, nprocs=1, args=("p",)) as job:
        with pytest.raises(rankguard.UsageError, match=r"timeout must be a number of seconds, not '5'"):
            job.wait_ready("5")  # type: ignore[arg-type]
        with pytest.raises(rankguard.UsageError, match="grace must not be negative: -1"):
            job.stop(-1)
        payloads = job.wait_ready(never)
        verdict = job.wait(never)

    assert (len(payloads), verdict.outcome) == (1, "succeeded")
