"""`launch(..., stall_timeout=)`."""

import sys

import pytest

import rankguard


@pytest.mark.slow
def test_a_stall_is_a_failure_with_its_verdict(tmp_path):
    hang = "import threading; threading.Event().wait()"

    with (
        pytest.raises(rankguard.RankFailed, match="rank 0 of 1 has shown no sign of progress for 2 s") as raised,
        rankguard.launch([sys.executable, "-c", hang], 1, stall_timeout=2, run_dir=tmp_path / "run") as job,
    ):
        job.wait()

    verdict = raised.value.verdict
    assert (verdict.exit_code, verdict.culprit.cause.kind, verdict.culprit.rank) == (124, "stall", 0)
    assert not isinstance(raised.value, TimeoutError)  # that is of `wait_ready`, and of the caller's clock


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_limit_that_is_none(limit):
    with pytest.raises(rankguard.UsageError, match="stall_timeout must be more than 0 seconds"):
        rankguard.launch(["true"], stall_timeout=limit)
