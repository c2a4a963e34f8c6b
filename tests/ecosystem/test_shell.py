"""A shell script round a Python program: what it makes of signals, of the exit status, and of who failed."""

import os
import signal
import sys

import pytest
from tests.ecosystem.engine import PROGRAMS
from tests.torch._runs import innocent, who

RANKS = 3


@pytest.fixture
def script(run, monkeypatch):
    """`script(how, whom)` → the job, as a block."""
    monkeypatch.setenv("PYTHON", sys.executable)
    return lambda how, whom=-1: run(RANKS, PROGRAMS / "around.sh", how, whom)


def within(job):
    """Rank → the Python within its script, once all are there."""
    lines = [job.until(f" of {RANKS} is ").replace(",", "").split() for _ in range(RANKS)]
    return {int(words[2]): int(words[6]) for words in lines}


def test_to_the_end(script):
    with script("end") as job:
        verdict = job.end()

    assert (job.status, verdict["outcome"]) == (0, "succeeded")
    assert sorted(line.partition("] ")[2] for line in job.output if "hands on" in line) == [
        f"the script of rank {rank} hands on 0" for rank in range(RANKS)
    ]


def test_its_exit_status_is_that_of_the_program(script):
    with script("exit", 1) as job:
        verdict = job.end()

    assert who(verdict) == (1, "exit-code", "program", "proven", 85)
    assert innocent(verdict)


def test_an_exception_within_is_quoted(script):
    """The script is the rank, so its own word is missing: what is known is in the log, together with the script's lines."""
    with script("raise", 2) as job:
        verdict = job.end()

    assert who(verdict) == (2, "exception", "program", "likely", 1)
    exception = verdict["culprit"]["cause"]["exception"]
    assert exception["type"] == "ValueError"
    assert exception["message"].splitlines()[0] == "the third shard has no header"
    assert innocent(verdict)


def test_the_script_is_killed(script):
    """The program within goes, too."""
    with script("wait") as job:
        pids = within(job)
        job.kill(1)
        verdict = job.end()

    assert who(verdict) == (1, "killed", "operator", "proven", 137)
    assert innocent(verdict)
    assert [pid for pid in pids.values() if os.path.exists(f"/proc/{pid}")] == []


def test_the_program_within_is_killed(script):
    """Its end is known to the script alone, which hands on 128 + 9: a code, and what it means is a hint."""
    with script("wait") as job:
        os.kill(within(job)[1], signal.SIGKILL)
        verdict = job.end()

    assert who(verdict) == (1, "exit-code", "program", "proven", 137)
    assert any("128 + 9" in hint and "SIGKILL" in hint for hint in verdict["hints"])
    assert innocent(verdict)


def test_a_request_to_end_reaches_the_program_within(script):
    """dash ends by SIGTERM itself; the program has its own time to save, as it has under torchrun."""
    with script("save") as job:
        within(job)
        job._process.terminate()
        verdict = job.end()

    assert (verdict["outcome"], verdict["culprit"]) == ("interrupted", None)
    assert sum("has saved its state" in line for line in job.output) == RANKS
