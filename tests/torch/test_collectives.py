"""Ranks in a gloo collective when one of them ends: how fast the others go must not decide who is to blame."""

import os
import sys

import pytest
from tests.torch._runs import PROGRAMS, Run, innocent, who

pytestmark = pytest.mark.torch

REDUCE = f"{PROGRAMS}/reduce.py"


@pytest.mark.parametrize("loss", ["raise", "say", "quit"])
def test_a_large_rank_is_named_though_its_victims_are_gone_first(tmp_path, loss):
    with Run(tmp_path, 3, REDUCE, "--hold", 1500, "--hold-rank", 1, "--loss", loss) as run:
        run.until("adding up")
        run.kill(1)
        verdict = run.end()

    assert who(verdict) == (1, "killed", "operator", "proven", 137)
    assert innocent(verdict)


def test_a_rank_that_crashes(tmp_path):
    with Run(tmp_path, 3, REDUCE, "--crash-rank", 2) as run:
        verdict = run.end()

    assert who(verdict) == (2, "crash", "program", "proven", 139)
    assert innocent(verdict)
    assert "Fatal Python error: Segmentation fault" in "\n".join(verdict["culprit"]["log_tail"])


def test_a_rank_that_leaves_with_0_is_pointed_at(tmp_path):
    """No failure of its own; but the others still worked with it, and only victims are left to name."""
    with Run(tmp_path, 3, REDUCE, "--leave-rank", 1) as run:
        verdict = run.end()

    assert (who(verdict)[1:], verdict["culprit"]["rank"] != 1) == (("exception", "program", "likely", 1), True)
    assert verdict["ranks"][1]["relation"] == "finished"
    assert verdict["hints"][0] == "see whether the others still needed rank 1, which ended with exit code 0"


def test_the_stop_is_held_until_a_slow_goodbye_has_told_the_first_error(tmp_path):
    """docs/decisions/0004: the first report is a victim's, and nobody is seen dying."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Run(tmp_path, 4, f"{PROGRAMS}/goodbye.py", fifo) as run:
        verdict = run.end()

    reports = run.facts("FailureReported")
    journal = [entry.get("fact") or entry.get("order") for entry in run.journal()]
    assert reports[0]["rank"] != 2
    assert "Connection closed by peer" in reports[0]["peer_death"] or "reset by peer" in reports[0]["peer_death"]
    assert journal.index("SignalAll") > journal.index("FailureReported")
    assert next(entry["name"] for entry in run.journal() if entry.get("order") == "WakeAt") == "hold"
    assert who(verdict) == (2, "exception", "program", "proven", 1)
    assert innocent(verdict)
    assert verdict["culprit"]["cause"]["exception"]["message"] == "the first error of all"


@pytest.mark.parametrize(
    "how", [(), ("--no-python", sys.executable)], ids=["under rankguard's bootstrap", "executed as it is"]
)
def test_a_recorded_script(tmp_path, how):
    """Executed as it is, torch's error file is all that tells of the exception."""
    with Run(tmp_path, 3, *how, f"{PROGRAMS}/recorded.py") as run:
        verdict = run.end()

    assert who(verdict) == (1, "exception", "program", "proven", 1)
    assert innocent(verdict)
    exception = verdict["culprit"]["cause"]["exception"]
    assert (exception["type"], exception["message"]) == ("KeyError", "'no such layer'")
    assert "recorded.py" in exception["traceback"]
