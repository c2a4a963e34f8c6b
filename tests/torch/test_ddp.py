"""The example under rankguard, with eight ranks: it trains to the end, and whatever ends one rank, that rank is named.

The others die of it within milliseconds ("Connection closed by peer"), some before the culprit's own end can be seen.
"""

import re

import pytest
from tests.linux._evidence_helpers import limited_group
from tests.torch._runs import DDP, ENDLESS, Run, innocent, who

pytestmark = pytest.mark.torch

RANKS = 8
STEPS = ("--steps", ENDLESS)
LIMIT_MIB = 4096
"""For eight ranks of about 250 MiB each, and for one that grows."""


def test_trains_to_the_end(tmp_path):
    with Run(tmp_path, RANKS, DDP, "--steps", 40) as run:
        verdict = run.end()

    told = [int(step) for step in re.findall(r"step (\d+)/40", "\n".join(run.output))]
    assert told == [10, 20, 30, 40]
    assert (run.status, verdict["outcome"], verdict["culprit"]) == (0, "succeeded", None)
    assert [row["relation"] for row in verdict["ranks"]] == ["finished"] * RANKS
    assert all(row["ready_after_s"] for row in verdict["ranks"])


def test_a_rank_killed_in_mid_training(tmp_path):
    with Run(tmp_path, RANKS, DDP, *STEPS) as run:
        run.until("step 20/")
        run.kill(5)
        verdict = run.end()

    assert who(verdict) == (5, "killed", "operator", "proven", 137)
    assert innocent(verdict)
    assert verdict["culprit"]["phase"] == "ready"
    assert re.fullmatch(r"rankguard: exit 137 killed proven rank=5 node=\S+ phase=ready run=\w+", run.last_line())


@pytest.mark.parametrize(
    "goodbye", [(), ("--finally-destroy",)], ids=["plainly", "with a finally that destroys the group"]
)
def test_a_rank_that_raises(tmp_path, goodbye):
    with Run(tmp_path, RANKS, DDP, *STEPS, "--raise-at", 20, "--raise-rank", 3, *goodbye) as run:
        verdict = run.end()

    assert who(verdict) == (3, "exception", "program", "proven", 1)
    assert innocent(verdict)
    exception = verdict["culprit"]["cause"]["exception"]
    assert (exception["type"], exception["message"]) == ("ValueError", "the loss is not a number at step 20")
    assert re.sub(r"\S+/|:\d+", "", "; ".join(exception["frames"])) == (
        "ddp.py <module>; ddp.py main; ddp.py train; trouble.py strike"
    )


@pytest.mark.cgroup
def test_a_rank_that_the_oom_killer_takes(tmp_path):
    with limited_group(LIMIT_MIB) as group:
        grow = ("--grow-at", 20, "--grow-rank", 6, "--grow-most", 2 * LIMIT_MIB)
        with Run(tmp_path, RANKS, DDP, *STEPS, *grow, group=group) as run:
            verdict = run.end()

    assert who(verdict) == (6, "oom-kill", "memory", "proven", 137)
    assert innocent(verdict)
    assert verdict["memory"]["limit_bytes"] == LIMIT_MIB << 20
    held = {row["rank"]: row["memory"]["rss_bytes"] or 0 for row in verdict["ranks"]}
    assert verdict["culprit"]["memory"]["peak_bytes"] > max(held[rank] for rank in held if rank != 6)
