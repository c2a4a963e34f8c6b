"""A rank that does not come to a collective: eight torch ranks looked at, none disturbed; three of them stopped as stalled."""

import os
import subprocess
import sys
import time

import pytest
from tests.torch._runs import PROGRAMS, Run, others, who

pytestmark = pytest.mark.torch

LATE = f"{PROGRAMS}/late.py"


def test_eight_ranks_are_looked_at_and_go_on(tmp_path):
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
        assert lines[2].startswith("rank 5 waits in `load_shard` (late.py:"), text
        assert lines[3].startswith("ranks 0-4, 6, 7 wait in `all_reduce`, called by `main` (late.py:"), text


def test_the_rank_that_does_not_come_is_the_culprit(tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Run(tmp_path, 3, LATE, 1, gate, options=["--stall-timeout", 6]) as run:
        verdict = run.end()

    assert who(verdict) == (1, "stall", "time", "likely", 124)
    assert (verdict["either"], others(verdict)) == ([], {"stopped"})
    evidence = [each["statement"] for each in verdict["culprit"]["cause"]["evidence"]]
    assert "it waits in `load_shard` (late.py:" in verdict["statement"]
    assert any(text.startswith("ranks 0, 2 wait in `all_reduce`, called by `main` (late.py:") for text in evidence)
    assert "load_shard" in verdict["culprit"]["stacks"]


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


HANGS = f"{PROGRAMS}/hangs.py"


def hung(tmp_path, how, *options):
    with Run(tmp_path, 3, HANGS, how, options=options or ["--stall-timeout", 6]) as run:
        verdict = run.end()
    return verdict, [each["statement"] for each in verdict["culprit"]["cause"]["evidence"]]


def test_a_rank_whose_data_loader_sleeps(tmp_path):
    verdict, evidence = hung(tmp_path, "loader")

    assert who(verdict) == (1, "stall", "time", "likely", 124)
    assert "it waits in `_BaseDataLoaderIter.__next__`, called by `loader` (hangs.py:" in verdict["statement"]
    assert any(text.startswith("ranks 0, 2 wait in `all_reduce`, called by `loader` (hangs.py:") for text in evidence)


def test_a_rank_that_waits_for_one_that_waits_for_the_culprit(tmp_path):
    verdict, evidence = hung(tmp_path, "chain")

    assert who(verdict) == (2, "stall", "time", "likely", 124)
    assert any(text.startswith("ranks 0, 1 wait in `recv`, called by `chain` (hangs.py:") for text in evidence)


def test_where_all_wait_in_the_same_call_nobody_is_named(tmp_path):
    verdict, _evidence = hung(tmp_path, "ring")

    assert who(verdict) == (None, "stall", "time", "unknown", 124)
    assert verdict["either"] == [0, 1, 2]
    assert "which holds the others up is not known" in verdict["statement"]


def test_none_is_ready_since_one_does_not_come(tmp_path):
    verdict, evidence = hung(tmp_path, "ready", "--ready-timeout", 10)

    assert who(verdict) == (2, "ready-timeout", "time", "proven", 124)
    assert verdict["either"] == []
    assert "called by `load_shard` (hangs.py:" in verdict["statement"]
    assert any(text.startswith("ranks 0, 1 wait in `barrier`, called by `ready` (hangs.py:") for text in evidence)
