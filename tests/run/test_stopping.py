"""How a job is stopped: two clocks, one grace for all, and nothing left of it."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from tests.run.command import Ranks
from tests.runs.jobs import state, until

TELL = "\nos.write(os.open(sys.argv[1], os.O_WRONLY), b'x')\n"


def start(ranks: Ranks, n: int, text: str, *options: str) -> tuple[subprocess.Popen[str], Path]:
    """A job whose ranks have all opened the FIFO that they are given."""
    fifo = ranks.folder / "started"
    os.mkfifo(fifo)
    run_dir = ranks.next_dir()
    words = ranks.command("-n", str(n), "--run-dir", str(run_dir), *options, ranks.program(text), str(fifo))
    job = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = ""
    fd = os.open(fifo, os.O_RDWR)
    while len(said) < n:
        said += os.read(fd, n).decode()
    os.close(fd)
    return job, run_dir


def verdict(run_dir: Path) -> dict[str, object]:
    return dict(json.loads((run_dir / "verdict.json").read_text()))


def test_a_rank_that_ignores_sigterm_costs_the_grace_once(ranks: Ranks) -> None:
    fifo = ranks.folder / "ignoring"
    os.mkfifo(fifo)
    text = """
signal.signal(15, signal.SIG_IGN)
if RANK: open(sys.argv[1], "w").write("x"); signal.pause()
said = ""
with open(sys.argv[1]) as f:
    while len(said) < 4: said += f.read()
os.kill(os.getpid(), 9)
"""

    ended = ranks.run(5, text, "--grace", "1", args=(str(fifo),))

    told = ended.verdict
    assert ended.status == 137
    assert len(told["teardown"]["killed"]) == 4
    assert told["teardown"]["took_s"] > 0.9
    (told_to_end,) = [fact["at"] for fact in ended.facts if fact["fact"] == "Signalled"]
    (over,) = [fact["at"] for fact in ended.facts if fact["fact"] == "DeadlinePassed" and fact["name"] == "grace"]
    assert [fact for fact in ended.facts if fact["fact"] == "Exited" and told_to_end < fact["at"] < over] == []


def test_children_and_escapees_are_ended_and_proved_so(ranks: Ranks) -> None:
    text = """
def escape():
    if os.fork() == 0:
        os.setsid()
        signal.signal(15, signal.SIG_IGN)  # before there is anybody whom the end of rank 1 could meet without it
        if os.fork() == 0:
            os.execve("/bin/sh", ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1000; done"], {})
        os._exit(0)
    os.wait()
escape()
if RANK == 1: os.kill(os.getpid(), 9)
signal.pause()
"""

    ended = ranks.run(3, text, "--grace", "0.5")

    told = ended.verdict
    assert (ended.status, told["teardown"]["survivors"]) == (137, [])
    assert told["teardown"]["killed"]


def test_what_a_successful_rank_left_behind_is_ended_too(ranks: Ranks) -> None:
    ended = ranks.run(1, "subprocess = __import__('subprocess'); subprocess.Popen(['sleep', '1000'])")

    assert (ended.status, ended.verdict["outcome"]) == (0, "succeeded")


def test_sigterm_from_outside_and_a_clean_end_is_0(ranks: Ranks) -> None:
    text = "signal.signal(15, lambda *_: sys.exit(0))" + TELL + "signal.pause()"
    job, run_dir = start(ranks, 3, text)

    job.terminate()
    job.communicate()

    told = verdict(run_dir)
    assert (job.returncode, told["outcome"], told["exit_code"], told["culprit"]) == (0, "interrupted", 0, None)
    assert told["stopped_by"]["signal"] == "SIGTERM"  # type: ignore[index]  # an object
    assert told["stopped_by"]["pid"] == os.getpid()  # type: ignore[index]  # an object


def test_sigterm_from_outside_kills_who_does_not_handle_it(ranks: Ranks) -> None:
    job, run_dir = start(ranks, 2, TELL + "signal.pause()")

    job.terminate()
    output, _none = job.communicate()

    assert (job.returncode, verdict(run_dir)["outcome"]) == (143, "interrupted")
    assert "SIGTERM from" in output


def test_the_shutdown_timeout_ends_who_takes_longer(ranks: Ranks) -> None:
    text = "signal.signal(15, lambda *_: None)" + TELL + "while True: signal.pause()"
    job, run_dir = start(ranks, 2, text, "--shutdown-timeout", "0.5")

    job.terminate()
    job.communicate()

    assert job.returncode == 143
    assert len(verdict(run_dir)["teardown"]["killed"]) == 2  # type: ignore[index]  # an object


def test_sigint_is_forwarded_and_the_second_ends_all(ranks: Ranks) -> None:
    text = (
        """
def hear(*_):
    print("heard", flush=True)
signal.signal(2, hear)
"""
        + TELL
        + "while True: signal.pause()"
    )
    job, run_dir = start(ranks, 1, text)

    job.send_signal(signal.SIGINT)
    assert job.stdout is not None
    assert job.stdout.readline() == "heard\n"
    job.send_signal(signal.SIGINT)
    job.communicate()

    assert (job.returncode, verdict(run_dir)["outcome"]) == (130, "interrupted")


def test_other_signals_are_forwarded_and_stop_nothing(ranks: Ranks) -> None:
    text = (
        """
import signal as s
s.pthread_sigmask(s.SIG_BLOCK, {10, 12, 28})
"""
        + TELL
        + "print(sorted(int(s.sigwait({10, 12, 28})) for _ in range(3)), flush=True)"
    )
    job, run_dir = start(ranks, 1, text)

    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
        job.send_signal(number)
    output, _none = job.communicate()

    assert (job.returncode, verdict(run_dir)["outcome"]) == (0, "succeeded")
    assert "[10, 12, 28]" in output


def test_no_rank_is_called_a_failure_after_a_request(ranks: Ranks) -> None:
    text = "signal.signal(15, lambda *_: os.abort())" + TELL + "signal.pause()"
    job, run_dir = start(ranks, 2, text)

    job.terminate()
    job.communicate()

    told = verdict(run_dir)
    assert (job.returncode, told["outcome"], told["culprit"]) == (143, "interrupted", None)


def test_shared_memory_that_outlives_the_job_is_named(ranks: Ranks) -> None:
    text = """
import mmap
path = "/dev/shm/rankguard-test-" + str(os.getpid())
with open(path, "wb") as file: file.write(b"x" * 8192)
print(path, flush=True)
os.kill(os.getpid(), 9)
"""
    ended = ranks.run(1, text)
    path = ended.stdout.strip()
    os.unlink(path)

    assert {"kind": "shm", "path": path, "bytes": 8192, "removed": False} in ended.verdict["teardown"]["left"]
    assert path in ended.stderr


def pending(pid: int, number: int) -> bool:
    """It has not been taken yet: `ShdPnd` of proc(5), the signals that are there for the whole process."""
    found = re.search(r"^ShdPnd:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return bool(int(found[1], 16) >> (number - 1) & 1)


@pytest.mark.slow
def test_a_supervisor_that_answers_no_more_does_not_keep_an_impatient_user(ranks: Ranks) -> None:
    job, run_dir = start(ranks, 2, TELL + "signal.signal(2, signal.SIG_IGN); signal.pause()")
    warden = int(Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text())
    supervisor = int(Path(f"/proc/{warden}/task/{warden}/children").read_text())
    events = run_dir / "events.jsonl"
    until(lambda: events.read_text().count('"fact": "Spawned"') == 2)  # the ranks may have spoken before that
    os.kill(supervisor, signal.SIGSTOP)
    until(lambda: state(supervisor) == "T")
    told = [json.loads(line) for line in events.read_text().splitlines() if line.endswith("}")]
    pids = [entry["pid"] for entry in told if entry.get("fact") == "Spawned"]
    job.send_signal(signal.SIGINT)
    until(lambda: not pending(job.pid, signal.SIGINT))  # two that are pending at once are one
    job.send_signal(signal.SIGINT)

    said, _none = job.communicate(timeout=30)

    assert job.returncode == 125, said
    assert "the supervisor has not answered for 10 s" in said
    assert verdict(run_dir)["culprit"]["cause"]["kind"] == "supervisor-lost"
    assert len(pids) == 2
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
