"""Whether a failed job is started again, and when: verdicts and instants in, a decision out."""

import pytest
from tests.report import samples

from rankguard.core.policy import STEADY
from rankguard.core.restarts import Again, Restarts, backoff, unready
from rankguard.model import Attempt, ExceptionInfo, Retry, Survivor, Verdict


def failed(kind: str = "killed", *, phase: str = "running", fingerprint: str = "a", **of_culprit: object) -> Verdict:
    sample = samples.ALL["killed"]()
    assert sample.culprit is not None
    cause = sample.culprit.cause.replace(kind=kind)
    culprit = sample.culprit.replace(cause=cause, phase=phase, **of_culprit)
    teardown = sample.teardown.replace(survivors=())
    return sample.replace(culprit=culprit, fingerprint=fingerprint, attempts=(), teardown=teardown)


def attempt(verdict: Verdict, lasted_s: float = 1.0) -> Attempt:
    return Attempt(0, "killed", verdict.fingerprint, lasted_s, unready=unready(verdict))


def ask(budget: Restarts, verdict: Verdict, at: float = 0.0, lasted_s: float = 1.0) -> Again | str:
    return budget.after(verdict, attempt(verdict, lasted_s), at, 0.5)


def test_as_often_as_allowed():
    budget = Restarts(2)

    told = [ask(budget, failed()) for _ in range(3)]
    assert not budget.heals(failed(), 0.0)  # whoever waits is told of the last failure at once

    assert [type(answer) for answer in told] == [Again, Again, str]
    assert [answer.because for answer in told[:2]] == ["restart 1 of 2", "restart 2 of 2"]
    assert told[2] == "it was started again twice, as often as --max-restarts allows"


def test_none_is_allowed():
    assert not Restarts(0).heals(failed(), 0.0)
    assert ask(Restarts(0), failed()) == "it was started again 0 times, as often as --max-restarts allows"


def test_a_window_gives_the_budget_back():
    budget = Restarts(1, window=100)

    assert isinstance(ask(budget, failed(), at=10), Again)
    assert ask(budget, failed(), at=109) == "it was started again once within 100 s, as often as --max-restarts allows"
    assert isinstance(ask(budget, failed(), at=110), Again)


def test_the_first_is_at_once_and_the_next_ones_wait_longer_and_longer():
    budget = Restarts(9)

    waits = [ask(budget, failed()).delay_s for _ in range(9)]

    assert waits[:5] == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == 60.0


def test_who_lasted_begins_a_new_row():
    budget = Restarts(9)
    for _ in range(4):
        ask(budget, failed())

    assert ask(budget, failed(), lasted_s=STEADY).delay_s == 0.0
    assert ask(budget, failed()).delay_s == 1.0


@pytest.mark.parametrize("failures", range(2, 12))
def test_jitter_is_a_quarter_at_most(failures: int):
    least, most = backoff(failures, 60.0, 0.0), backoff(failures, 60.0, 1.0)

    assert least / 0.75 == pytest.approx(most / 1.25)
    assert most <= 1.25 * 60.0


def test_the_same_failure_twice_before_ready():
    budget = Restarts(9)

    assert isinstance(ask(budget, failed(phase="starting")), Again)
    assert ask(budget, failed(phase="starting")) == "it failed in the same way twice before it was ready"
    assert not budget.heals(failed(phase="starting"), 0.0)
    assert budget.heals(failed(phase="starting", fingerprint="b"), 0.0)


def test_what_the_verdict_itself_calls_hopeless_before_ready():
    retry = Retry(advice="no", because="the same memory limit would be met again")
    early, late = (failed("oom-kill", phase=phase).replace(retry=retry) for phase in ("starting", "ready"))

    expected = "it was not ready yet, and would not be the next time: the same memory limit would be met again"
    assert ask(Restarts(9), early) == expected
    assert not Restarts(9).heals(early, 0.0)
    assert isinstance(ask(Restarts(9), late), Again)  # it did work, and may for as long again


@pytest.mark.parametrize("phase", ["ready", "running"])
def test_the_same_failure_twice_after_ready_may_heal(phase: str):
    budget = Restarts(9)
    ask(budget, failed(phase=phase))

    assert isinstance(ask(budget, failed(phase=phase)), Again)


def test_the_same_failure_with_another_between_them():
    budget = Restarts(9)

    told = [ask(budget, failed(phase="starting", fingerprint=which)) for which in "aba"]

    assert [type(answer) for answer in told] == [Again] * 3


@pytest.mark.parametrize("name", ["SyntaxError", "IndentationError", "ImportError", "builtins.ModuleNotFoundError"])
def test_a_program_that_is_not_whole(name: str):
    verdict = failed("exception")
    assert verdict.culprit is not None
    cause = verdict.culprit.cause.replace(exception=ExceptionInfo(name, "no"))
    verdict = verdict.replace(culprit=verdict.culprit.replace(cause=cause))

    assert ask(Restarts(9), verdict) == f"{name} is in the program itself"
    assert not Restarts(9).heals(verdict, 0.0)


def test_what_cannot_be_started():
    assert ask(Restarts(9), failed("cannot-start")) == "what cannot be started now cannot be started again"


def test_called_in_a_wrong_way():
    ending = samples.ALL["killed"]().culprit.ending.replace(kind="exit", code=2, signal=None, number=None)
    usage = failed("exit-code", ending=ending, log_tail=("usage: train.py [-h]", "train.py: error: no such option"))

    assert ask(Restarts(9), usage) == "the program was called in a wrong way"
    assert isinstance(ask(Restarts(9), failed("exit-code", ending=ending, log_tail=("it broke",))), Again)


def test_something_still_lives():
    verdict = failed()
    alive = Survivor(pid=7, state="D", comm="stuck")
    verdict = verdict.replace(teardown=verdict.teardown.replace(survivors=(alive,)))

    assert ask(Restarts(9), verdict) == "a process of the failed attempt refuses to die"


@pytest.mark.parametrize("name", ["succeeded", "interrupted"])
def test_only_failures(name: str):
    assert not Restarts(9).heals(samples.ALL[name](), 0.0)
