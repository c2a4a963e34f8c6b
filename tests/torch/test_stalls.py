"""A rank that does not come to a collective: eight torch ranks looked at, none disturbed; three of them stopped as stalled."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from tests.torch._runs import PROGRAMS, ROOT, Run, others, who

pytestmark = pytest.mark.torch

LATE = f"{PROGRAMS}/late.py"


@pytest.fixture(autouse=True)
def lines_are_told(monkeypatch):
    """Whether there is a py-spy: beside torch mostly not, then the one of our own environment."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{ROOT}/.venv/bin")
    return shutil.which("py-spy") is not None


def test_eight_ranks_are_looked_at_and_go_on(tmp_path, lines_are_told):
    """`rankguard stacks` twice, then the late one comes: all end well."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Run(tmp_path, 8, LATE, 5, gate) as run:
        for _ in range(8):
            run.until("the first is done")
        with gate.open("w"):  # it opened the other end: so it is in `load_shard`
            told, took = zip(*(stacks(run) for _ in range(2)), strict=True)
        verdict = run.end()

    assert verdict["outcome"] == "succeeded"
    assert sum("the second is done" in line for line in run.output) == 8
    print(f"rankguard stacks of 8 torch ranks: {', '.join(f'{s:.2f} s' for s in took)}")
    for text in told:
        lines = text.splitlines()
        assert lines[2].startswith(
            "rank 5 waits in `load_shard` (late.py:" if lines_are_told else "rank 5 waits in "
        ), text
        where = "`all_reduce`, called by `main` (late.py:" if lines_are_told else "`futex`"
        assert lines[3].startswith(f"ranks 0-4, 6, 7 wait in {where}"), text


def test_the_rank_that_does_not_come_is_the_culprit(tmp_path, lines_are_told):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Run(tmp_path, 3, LATE, 1, gate, options=["--stall-timeout", 6]) as run:
        verdict = run.end()

    assert who(verdict) == (1, "stall", "time", "likely", 124)
    assert (verdict["either"], others(verdict)) == ([], {"stopped"})
    evidence = [each["statement"] for each in verdict["culprit"]["cause"]["evidence"]]
    if lines_are_told:
        assert "it waits in `load_shard` (late.py:" in verdict["statement"]
        assert any(text.startswith("ranks 0, 2 wait in `all_reduce`, called by `main` (late.py:") for text in evidence)
        assert "load_shard" in verdict["culprit"]["stacks"]
    else:
        assert "ranks 0, 2 wait in `futex`" in evidence


def stacks(run):
    """What is told, and how long it took."""
    began = time.monotonic()
    told = subprocess.run(
        [sys.executable, "-m", "rankguard", "stacks", str(run.folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return told.stdout, time.monotonic() - began
