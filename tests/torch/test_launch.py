"""`rankguard.launch` of a function that uses torch's collectives."""

import multiprocessing
import re

import pytest
from tests.torch._functions import add_up, add_up_until_told
from tests.torch._runs import PATIENCE, innocent, survivors, who

import rankguard

pytestmark = pytest.mark.torch

RANKS = 4


def test_ranks_meet_work_and_end(tmp_path):
    with rankguard.launch(add_up, nprocs=RANKS, args=(50,), run_dir=tmp_path / "run", console="none") as job:
        payloads = job.wait_ready(timeout=PATIENCE)
        verdict = job.wait(timeout=PATIENCE)

    pids = {row.rank: row.pid for row in verdict.ranks}
    assert payloads == [{"rank": r, "size": RANKS, "sum": 10, "pid": pids[r]} for r in range(RANKS)]
    assert (verdict.outcome, [row.relation for row in verdict.ranks]) == ("succeeded", ["finished"] * RANKS)
    assert survivors(job.run_id) == []


def test_the_rank_with_an_error_of_its_own_is_named(tmp_path):
    told, tell = multiprocessing.Pipe(duplex=False)
    with (
        told, tell,
        rankguard.launch(
            add_up_until_told, nprocs=RANKS, args=(told, 2), run_dir=tmp_path / "run", console="none"
        ) as job,
    ):  # fmt: skip
        job.wait_ready(timeout=PATIENCE)
        tell.send("stop")
        with pytest.raises(rankguard.RankFailed, match="rank 2 of 4 raised LookupError: nothing left to add") as failed:
            job.wait(timeout=PATIENCE)

    verdict = failed.value.verdict.to_dict()
    assert who(verdict) == (2, "exception", "program", "proven", 1)
    assert innocent(verdict)
    assert re.search(r"_functions\.py:\d+ add_up_until_told$", verdict["culprit"]["cause"]["exception"]["frames"][-1])
    assert survivors(job.run_id) == []
