"""An environment of some hundred KB, as clusters make them: more than the line between two of our processes takes at once.

A start that waits for room which nobody makes would wait for ever, so what counts is that it ends at all.
"""

import os
from pathlib import Path

import pytest
from tests.job import targets
from tests.run.command import Ranks

import rankguard

TELLS = "print(RANK, sum(len(value) for name, value in os.environ.items() if name.startswith('LONG_')))"
BLOCK = 100_000
"""One variable; none may be longer than 128 KiB (execve(2))."""


def long(blocks: int) -> dict[str, str]:
    return {f"LONG_{n}": "x" * BLOCK for n in range(blocks)}


@pytest.mark.parametrize(("start", "blocks"), [("exec", 3), ("exec", 6), ("warm", 6)])
def test_every_rank_gets_it_whole(ranks: Ranks, start: str, blocks: int) -> None:
    ended = ranks.run(2, TELLS, "--start", start, "--log-line-prefix-template", "", env=os.environ | long(blocks))

    assert ended.status == 0, ended.stderr
    assert sorted(ended.stdout.splitlines()) == [f"{rank} {blocks * BLOCK}" for rank in (0, 1)]


@pytest.mark.parametrize("start", ["exec", "warm"])
def test_by_the_library(tmp_path: Path, start: str) -> None:
    with rankguard.launch(
        targets.report_length, 2, args=("LONG_",), env=long(6), start=start, run_dir=tmp_path / "run"
    ) as job:
        assert job.wait_ready(timeout=60) == [6 * BLOCK] * 2
        assert job.wait().outcome == "succeeded"
