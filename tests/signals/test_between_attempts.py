"""Asked to end, or killed, while a failed job waits to be started again."""

import json
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.signals.jobs import Job, until_in, until_state

FAILS = """
say("up")
if int(os.environ["TORCHELASTIC_RESTART_COUNT"]) >= 3:
    say("again")
    forever()
sys.exit(5)
"""


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Job]:
    """A job that has failed three times and waits, for 1.5 s at least."""
    with Job(tmp_path, 2, FAILS, "--max-restarts", "9", process_group=0) as job:
        until_in(job.run_dir / "events.jsonl", "(restart 3 of 9)")
        yield job


def test_asked_to_end(waiting: Job) -> None:
    waiting.kill(signal.SIGTERM)

    status, told, err = waiting.ended()

    assert (status, told["outcome"], told["culprit"]["attempt"], len(told["attempts"])) == (5, "failed", 2, 2), err
    assert told["not_restarted"] == "it was asked to end before it was started again"


@pytest.mark.parametrize("who", ["front", "supervisor", "warden"])
def test_one_of_ours_is_killed(waiting: Job, who: str) -> None:
    ours = waiting.ours()
    pidfds = [os.pidfd_open(pid) for pid in ours.values()]

    os.kill(ours[who], signal.SIGKILL)

    assert waiting.process is not None
    waiting.process.communicate(timeout=40)
    for pidfd in pidfds:
        assert _ended(pidfd)
        os.close(pidfd)
    lines = [json.loads(line) for line in (waiting.run_dir / "events.jsonl").read_text().splitlines()]
    assert [each["failed"]["attempt"] for each in lines if "failed" in each] == [0, 1]
    if who == "supervisor":  # the front tells what the journal knows: of the attempt that had failed
        told = waiting.verdict()
        assert (told["outcome"], told["exit_code"], told["culprit"]["attempt"], len(told["attempts"])) == (
            "failed",
            5,
            2,
            2,
        )


def test_suspended_meanwhile(waiting: Job) -> None:
    """Ctrl-Z reaches the attempt that follows."""
    assert waiting.process is not None
    waiting.kill(signal.SIGTSTP)
    waiting.until_fact("Suspended")
    until_state(
        waiting.process.pid, "T"
    )  # a SIGCONT in the instant before it stops itself would be swallowed (signal(7))

    waiting.kill(signal.SIGCONT)
    waiting.until("again", 2)
    waiting.kill(signal.SIGTERM)
    status, told, _err = waiting.ended()
    assert (status, told["outcome"]) == (143, "interrupted")


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(20_000))
