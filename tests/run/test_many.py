"""More ranks than are forked in a row: each has what is its own, and what cannot be started is told as of few."""

import resource
import subprocess
import sys

import pytest

RANKS = 40
FEW = 300
"""Open files: enough for 40 ranks, and not for forking them in a row."""


def _run(*words: str, files: int | None = None) -> subprocess.CompletedProcess[str]:
    def limited() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    command = [sys.executable, "-m", "rankguard", "run", "-n", str(RANKS), "--no-python", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limited)  # no threads


@pytest.mark.parametrize("files", [None, FEW])
def test_each_rank_has_its_own_streams_and_environment(files: int | None) -> None:
    done = _run("sh", "-c", "echo out $RANK; echo err $RANK >&2; ls /proc/self/fd | wc -l", files=files)

    assert done.returncode == 0, done.stderr
    out = sorted(done.stdout.splitlines())
    assert sorted(f"[{rank}] out {rank}" for rank in range(RANKS)) == [line for line in out if " out " in line]
    assert {line.partition("] ")[2] for line in out if " out " not in line} == {"4"}  # 0, 1, 2 and that of `ls`
    assert {f"[{rank}] err {rank}" for rank in range(RANKS)} <= set(done.stderr.splitlines())


def test_none_of_many_can_be_executed() -> None:
    done = _run("./no-such-program")

    assert done.returncode == 127
    assert "rank=0 " in done.stderr.splitlines()[-1]
    assert "cannot-start" in done.stderr.splitlines()[-1]
