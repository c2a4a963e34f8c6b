"""`launch(max_restarts=…)`: who waits for readiness is told of the attempt that can be waited for."""

import os
import signal

import pytest
from tests.job import targets

import rankguard
from rankguard import RankFailed, ReadyTimeout


def test_ready_in_the_second_attempt() -> None:
    with rankguard.launch(targets.dies_at_first, 2, (False,), max_restarts=1) as job:
        assert job.wait_ready(timeout=60) == [[0, False], [1, False]]
        assert job.attempt == 1
        verdict = job.stop()
    assert [each.cause for each in verdict.attempts] == ["killed"]


def test_readiness_is_forgotten_with_its_attempt() -> None:
    with rankguard.launch(targets.dies_at_first, 2, (True,), max_restarts=1) as job:
        while job.attempt == 0:
            job.poll(None)
        assert job.wait_ready(timeout=60) == [[0, False], [1, False]]


def test_a_restart_can_be_waited_for() -> None:
    with rankguard.launch(targets.ready_with_pid, 2, max_restarts=1) as job:
        os.kill(job.wait_ready(timeout=60)[1], signal.SIGKILL)
        failed = job.wait_restart()
        assert failed is not None
        assert failed.startswith("rank 1 of 2 was killed by SIGKILL")
        assert failed.endswith("after it was ready; all ranks are started again now (restart 1 of 1)")
        assert (job.attempt, job.wait_restart()) == (1, failed)

        os.kill(job.wait_ready(timeout=60)[0], signal.SIGKILL)
        with pytest.raises(RankFailed, match="rank 0 of 2 was killed by SIGKILL"):
            job.wait_restart()
    assert job.verdict is not None  # that the block was left then is not the reason
    assert job.verdict.not_restarted == "it was started again once, as often as --max-restarts allows"


def test_without_a_failure_there_is_no_restart() -> None:
    with rankguard.launch(targets.report_ready, 2, ("x",), max_restarts=1) as job:
        job.wait_ready(timeout=60)
        assert job.wait_restart() is None


def test_the_last_failure_is_raised() -> None:
    with rankguard.launch(targets.kill_one, 2, (1, 9), max_restarts=1) as job, pytest.raises(RankFailed) as caught:
        job.wait()
    assert caught.value.verdict.not_restarted == "it was started again once, as often as --max-restarts allows"
    assert caught.value.verdict.culprit.attempt == 1


def test_the_caller_s_time_is_for_all_attempts() -> None:
    with rankguard.launch(targets.never_ready, 2, max_restarts=5) as job:
        with pytest.raises(ReadyTimeout):
            job.wait_ready(timeout=0.5)
        while (verdict := job.poll(None)) is None:
            pass
    assert verdict.attempts == ()
    assert verdict.not_restarted == "whoever waited for it to be ready does not wait any longer"


@pytest.mark.parametrize("bad", [{"max_restarts": -1}, {"max_restarts": 1, "restart_window": 0}])
def test_usage(bad: dict[str, int]) -> None:
    with pytest.raises(rankguard.UsageError):
        rankguard.launch(targets.never_ready, 1, **bad)
