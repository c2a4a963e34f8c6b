"""`launch(on="ray")`: functions, commands, payloads, failures, on a cluster of three raylets."""

import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from tests.ray.conftest import RAY, Raylets

import rankguard

LIMIT = 120.0


@pytest.fixture
def launch(raylets: Raylets, tmp_path: Any) -> Any:
    def one(target: Any, nprocs: int = 4, **more: Any) -> rankguard.Job:
        more = {
            "on": "ray",
            "nnodes": 2,
            "ray_address": raylets.address,
            "run_dir": tmp_path / "run",
            "console": "none",
        } | more
        return rankguard.launch(target, nprocs, join_timeout=LIMIT, **more)

    return one


def where(rank: rankguard.Rank, offset: int) -> None:
    names = ("LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "OWN")
    rank.ready({"rank": rank.rank + offset} | {name: os.environ.get(name) for name in names})


def fails(rank: rankguard.Rank) -> None:
    if rank.rank == 3:
        raise ValueError("shards are of different sizes")
    rank.ready()
    signal.pause()


def test_a_function_and_what_each_of_its_ranks_says(launch: Any) -> None:
    with launch(where, args=(100,), env=lambda rank: {"OWN": f"of {rank}"}) as job:
        told = job.wait_ready(LIMIT)
        verdict = job.wait(LIMIT)

    assert [each["rank"] for each in told] == [100, 101, 102, 103]
    assert [(each["GROUP_RANK"], each["LOCAL_RANK"]) for each in told] == [
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
        ("1", "1"),
    ]
    assert {(each["WORLD_SIZE"], each["LOCAL_WORLD_SIZE"]) for each in told} == {("4", "2")}
    assert {each["TORCHELASTIC_RUN_ID"] for each in told} == {job.run_id}
    assert [each["OWN"] for each in told] == ["of 0", "of 1", "of 2", "of 3"]
    assert (verdict.outcome, verdict.world_size, len(verdict.nodes)) == ("succeeded", 4, 2)


def test_a_rank_that_fails_on_another_node_is_raised_with_its_exception(launch: Any) -> None:
    with launch(fails) as job, pytest.raises(rankguard.RankFailed) as failed:
        job.wait_ready(LIMIT)

    culprit = failed.value.verdict.culprit
    assert (culprit.rank, culprit.cause.kind, culprit.local_rank) == (3, "exception", 1)
    assert "shards are of different sizes" in str(failed.value)


def test_a_command(launch: Any, tmp_path: Any) -> None:
    command = ["/bin/sh", "-c", "echo said by $RANK; exit $RANK"]
    with launch(command, nprocs=2) as job, pytest.raises(rankguard.RankFailed) as failed:
        job.wait(LIMIT)

    verdict = failed.value.verdict
    assert (verdict.culprit.rank, verdict.exit_code) == (1, 1)
    assert "said by 1\n" in (tmp_path / "run" / "rank-1" / "attempt-0" / "stdout.log").read_text()


def test_one_command_line(raylets: Raylets, tmp_path: Any) -> None:
    words = [sys.executable, "-m", "rankguard", "run", "--on", "ray", "--nnodes", "3", "-n", "2"]
    words += ["--ray-address", raylets.address, "--run-dir", str(tmp_path / "run"), "--join-timeout", "100"]
    program = [
        "/bin/sh",
        "-c",
        'echo "$RANK of $WORLD_SIZE on $GROUP_RANK"; test $RANK != 4 || exit 9; exec sleep 1000',
    ]
    ended = subprocess.run([*words, *program], capture_output=True, text=True, timeout=LIMIT, env={**os.environ, **RAY})

    assert ended.returncode == 9, ended.stderr
    assert "[2:4] 4 of 6 on 2\n" in ended.stdout
    assert "exit-code proven rank=4" in ended.stderr.splitlines()[-1]
