"""Ranks that wait in a gloo collective, a barrier or the store for one that does not come: that one is named.

Whoever gives up first is a victim, as are all that give up. What the one did meanwhile is told where it is alive.
"""

import re

import pytest
from tests.torch._runs import PROGRAMS, Run, others, who

pytestmark = pytest.mark.torch

TIMEOUTS = f"{PROGRAMS}/timeouts.py"
WAIT = 5
"""Once the group is made; only `init` makes it with the same patience. Long enough for what is done in between."""
LINE = "load_shard (timeouts.py:"


def run(tmp_path, how, *rest, ranks=4):
    with Run(tmp_path, ranks, TIMEOUTS, how, WAIT, *rest) as job:
        return job.end()


def wrong_relations(verdict):
    """Of the others. Some have given up; who was slower may have been stopped before it did, on a busy machine."""
    assert "collateral" in others(verdict)
    return others(verdict) - {"collateral", "stopped"}


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        ("sleep", "it waits in `load_shard` (timeouts.py:"),
        ("spin", "it is in `load_shard` (timeouts.py:"),
        ("stop", "it is stopped by a signal (SIGSTOP"),
        ("barrier", "it waits in `load_shard` (timeouts.py:"),
        ("init", "it waits in `load_shard` (timeouts.py:"),
        ("store", "it waits in `load_shard` (timeouts.py:"),
    ],
)
def test_the_rank_that_does_not_come(tmp_path, how, seen):
    verdict = run(tmp_path, how)

    assert who(verdict) == (3, "collective-timeout", "time", "likely", 1)
    assert (verdict["either"], wrong_relations(verdict)) == ([], set())
    # Under load one of the others may meet a connection that was closed before its own patience is over.
    assert re.match(
        r"rank 3 of 4 did not join a collective in which ranks? [0-2, -]+ timed out: it ", verdict["statement"]
    )
    assert seen in verdict["statement"]
    assert "load_shard" in verdict["culprit"]["stacks"]
    assert verdict["owner"] == ("outside" if how == "stop" else "program")
    assert {row["cause"]["kind"] for row in verdict["ranks"]} <= {"collective-timeout", "exception"}


def test_it_need_not_be_the_last(tmp_path):
    verdict = run(tmp_path, "sleep", 0)

    assert who(verdict) == (0, "collective-timeout", "time", "likely", 1)
    assert wrong_relations(verdict) == set()


def test_two_that_do_not_come_to_a_barrier(tmp_path):
    verdict = run(tmp_path, "barriers")

    assert (who(verdict)[1:4], {verdict["culprit"]["rank"], *verdict["either"]}) == (
        ("collective-timeout", "time", "likely"),
        {2, 3},
    )
    assert {row["relation"] for row in verdict["ranks"][:2]} <= {"collateral", "stopped"}


def test_a_rank_that_died_in_front_of_a_barrier(tmp_path):
    """torch says of it that it failed to pass: it is no time-out all the same."""
    verdict = run(tmp_path, "dead")

    assert who(verdict) == (3, "killed", "operator", "proven", 137)
    assert others(verdict) <= {"collateral", "stopped"}


def test_one_that_comes_when_the_others_have_given_up(tmp_path):
    verdict = run(tmp_path, "late")

    assert who(verdict) == (3, "collective-timeout", "time", "likely", 1)
    assert wrong_relations(verdict) == set()


def test_an_error_of_its_own_is_the_better_reason(tmp_path):
    """The one that was waited for raises while the stop is held: then it is that error."""
    verdict = run(tmp_path, "failed")

    assert who(verdict) == (3, "exception", "program", "proven", 1)
    assert verdict["culprit"]["cause"]["exception"]["message"] == "no such shard"
    assert wrong_relations(verdict) == set()  # one has given up, for which the one that raises waits


def test_one_collective_more_than_the_others(tmp_path):
    """All came and all gave up: gloo's own record, told by each as it gave up, has the numbers."""
    verdict = run(tmp_path, "extra")

    assert who(verdict)[:4] == (3, "collective-timeout", "time", "likely")
    assert (verdict["either"], wrong_relations(verdict)) == ([], set())
    assert verdict["statement"] == ("rank 3 of 4 was in all_reduce while the others were in broadcast (collective #2)")


@pytest.mark.parametrize("how", ["abort", "aborts"])
def test_records_in_files(tmp_path, monkeypatch, how):
    """As NCCL's watchdog ends a rank: by SIGABRT, its record in a file, and no word of Python's."""
    monkeypatch.setenv("TORCH_FR_DUMP_TEMP_FILE", f"{tmp_path}/record_")
    verdict = run(tmp_path, how)

    assert who(verdict) == (3, "collective-timeout", "time", "likely", 134)
    assert wrong_relations(verdict) == set()
    assert re.fullmatch(
        r"rank 3 of 4 was in all_reduce \(timeouts.py:\d+\) while the others were in broadcast \(collective #2\)",
        verdict["statement"],
    )


def test_sixteen_ranks(tmp_path):
    verdict = run(tmp_path, "stop", 11, ranks=16)

    assert who(verdict) == (11, "collective-timeout", "time", "likely", 1)
    assert wrong_relations(verdict) == set()
