"""The real driver over scripted ranks: what it does with facts and orders, to the end, in no time."""

import errno

import pytest

from rankguard.facts import FailureReported, FrontLost, Ready, Resumed, StopRequested, Suspended, TreeEmpty, Warned
from rankguard.model import Ending, ExceptionInfo, Report
from rankguard.testing import Clock, Script, ScriptedRun, Stuck
from rankguard.testing.player import new_spec

KILLED = Ending("signal", signal="SIGKILL", number=9)
ENDED = Ending("exit", code=0)
NEVER_HEEDS = Script(ignores=frozenset({1, 2, 15}))


def story(run):
    """What happened, and when, in short."""
    return [f"{fact.at:.3f} {type(fact).__name__}{rank(fact)}" for fact, _orders in run.until_finished()]


def rank(fact):
    told = getattr(fact, "rank", None)
    return "" if told is None else f" {told}"


def test_a_rank_is_killed_and_the_others_are_told():
    run = ScriptedRun(new_spec(3), {1: Script(ends=(0.5, KILLED))})

    told = story(run)

    assert told[:5] == ["0.000 JobStarted", "0.010 Spawned 0", "0.010 Spawned 1", "0.010 Spawned 2", "0.510 Exited 1"]
    assert told[-1] == "0.520 TreeEmpty"
    assert run.ranks.signals == [(0.51, 0, 15), (0.51, 2, 15)]
    assert (run.job.judged.rank, run.job.judged.kind, run.job.judged.exit_code) == (1, "killed", 137)


def test_all_end_well():
    run = ScriptedRun(new_spec(2), dict.fromkeys((0, 1), Script(says=((0.2, Ready),), ends=(3.0, ENDED))))

    told = story(run)

    expected = """0.000 JobStarted
0.010 Spawned 0
0.010 Spawned 1
0.210 Ready 0
0.210 Ready 1
3.010 Exited 0
3.010 OutputClosed 0
3.010 Exited 1
3.010 Reaped 0
3.010 OutputClosed 1
3.010 Reaped 1
3.010 TreeEmpty"""
    assert sorted(expected.splitlines()) == sorted(told)
    assert run.ranks.signals == []
    assert run.job.failed_at is None


def test_who_ignores_sigterm_is_killed_after_the_grace():
    run = ScriptedRun(new_spec(2).replace(grace=5.0), {0: Script(ends=(1.0, KILLED)), 1: NEVER_HEEDS})

    told = story(run)

    assert "6.010 DeadlinePassed" in told
    assert run.ranks.signals == [(1.01, 1, 15), (6.01, 1, 9)]
    assert told[-1] == "6.011 TreeEmpty"


def test_who_outlives_sigkill_is_named():
    run = ScriptedRun(new_spec(2), {0: Script(ends=(1.0, KILLED)), 1: Script(unkillable=True)})

    told = story(run)

    assert told[-1] == "16.010 TreeEmpty"
    assert [survivor.pid for survivor in run.job.tree.survivors] == [101]


def test_what_a_rank_leaves_behind_is_killed_when_it_does_not_heed():
    child = Script(ends=(1.0, ENDED), leaves=True, ignores=frozenset({15}))
    run = ScriptedRun(new_spec(1).replace(grace=5.0), {0: child})

    told = story(run)

    expected = "JobStarted Spawned Exited Reaped DeadlinePassed OutputClosed TreeEmpty"
    assert expected == " ".join(line.split()[1] for line in told)
    assert told[-1].startswith("6.011 ")


def test_a_program_that_cannot_be_executed_cancels_the_others():
    run = ScriptedRun(new_spec(3), {0: Script(errno=errno.ENOENT), 1: Script(starts=5.0), 2: Script(starts=0.005)})

    told = story(run)

    assert "0.010 NotSpawned 0" in told
    assert "0.010 NotSpawned 1" in told
    assert "0.020 Exited 2" in told
    assert (run.job.judged.rank, run.job.judged.exit_code) == (0, 127)


def test_the_large_culprit_is_seen_dying_and_waited_for():
    peer = "Connection closed by peer"
    lost = Report("exception", peer, ExceptionInfo("ConnectionError", peer))
    victim = Script(says=((1.0, lambda at, number: FailureReported(at, number, lost, peer)),))
    run = ScriptedRun(new_spec(2), {0: victim, 1: Script(ends=(1.05, KILLED), exiting=0.1)})

    told = story(run)

    assert told.index("1.010 Looked") < told.index("1.060 Exited 1") < told.index("1.060 Judged 1")


def test_asked_from_outside():
    run = ScriptedRun(new_spec(2), {}, [(2.0, lambda at: StopRequested(at, 2))])

    told = story(run)

    assert "2.000 StopRequested" in told
    assert run.ranks.signals == [(2.0, 0, 2), (2.0, 1, 2)]
    assert run.job.failed_at is None


def test_the_front_is_lost_while_ranks_start():
    run = ScriptedRun(new_spec(2), {0: NEVER_HEEDS, 1: Script(starts=60.0)}, [(1.0, lambda at: FrontLost(at, 7))])

    told = story(run)

    assert "1.000 NotSpawned 1" in told
    assert told[-1] == "1.001 TreeEmpty"
    assert {100} == run.ranks.killed


def test_whoever_is_told_hears_each_fact_and_order_in_turn():
    run = ScriptedRun(new_spec(2), {0: Script(ends=(1.0, KILLED))})
    run.until_finished()

    facts = [entry for entry in run.told if hasattr(entry, "at")]
    orders = [entry for entry in run.told if not hasattr(entry, "at")]

    assert [fact for fact, _orders in run.steps] == facts
    assert sorted(map(repr, (order for _fact, given in run.steps for order in given))) == sorted(map(repr, orders))


def test_a_job_that_nothing_ends_is_stuck():
    run = ScriptedRun(new_spec(1), {})

    with pytest.raises(Stuck, match=r"at 0\.010 no process"):
        run.until_finished()


def test_facts_come_in_the_order_of_time():
    run = ScriptedRun(new_spec(3), {1: Script(ends=(0.5, KILLED)), 2: NEVER_HEEDS})

    instants = [fact.at for fact, _orders in run.until_finished()]

    assert sorted(instants) == instants
    assert isinstance(run.steps[-1][0], TreeEmpty)


def test_the_clock_goes_forward_only():
    clock = Clock(5.0)

    assert (clock(), clock.advance(1.5), clock.move_to(8.0), clock()) == (5.0, 6.5, 8.0, 8.0)
    with pytest.raises(ValueError, match=r"stands at 8\.0 and cannot go back to 7\.0"):
        clock.move_to(7.0)


def standing_still(run, seconds, *, at, asleep):
    """The clock goes on by `seconds` while nothing runs: in the middle of a sleep, or of a turn of work."""
    agenda = run.driver._selector
    select = agenda.select
    left = [seconds]

    def stopped(timeout=None):
        if left and run.clock() >= at and not asleep:
            run.driver.emit(Warned(run.clock(), "a turn of work"))
        news = select(timeout)
        if left and run.clock() >= at:
            if asleep:
                run.clock.advance(left.pop())
            else:
                run.driver.launcher.wake = lambda now: left and run.clock.advance(left.pop())
        return news

    agenda.select = stopped
    return run


@pytest.mark.parametrize("asleep", [True, False])
@pytest.mark.parametrize("seconds", [1.5, 60.0, 86400.0])
def test_no_deadline_runs_while_we_stand_still(seconds, asleep):
    slow = Script(says=((9.9 + seconds, Ready),), ends=(20.0 + seconds, ENDED))
    run = standing_still(
        ScriptedRun(new_spec(1).replace(ready_timeout=10.0), {0: slow}), seconds, at=4.0, asleep=asleep
    )

    told = story(run)

    assert run.job.failed_at is None, told
    if seconds > 2.0:
        assert any("TimeLost" in line for line in told)


@pytest.mark.parametrize("asleep", [True, False])
def test_an_overloaded_machine_loses_no_time(asleep):
    """We waited 60 s for a processor: nobody had stopped us, and the deadline holds."""
    run = ScriptedRun(new_spec(1).replace(ready_timeout=10.0), {})
    run.driver._awake = run.clock
    standing_still(run, 60.0, at=4.0, asleep=asleep)

    told = story(run)

    assert not any("TimeLost" in line for line in told)
    assert run.job.judged.kind == "ready-timeout"


def test_what_we_were_awake_before_any_deadline_excuses_no_stop():
    """An hour of work without a deadline, then one, in the first turn of which we are stopped for a minute."""
    awake = [0.0]
    asked = (3600.0, lambda now: StopRequested(now, 15))
    run = ScriptedRun(new_spec(1), {0: NEVER_HEEDS}, outside=(asked,), awake=lambda: awake[0])
    agenda = run.driver._selector
    select = agenda.select
    stop = [60.0]

    def works(timeout=None):
        begun = run.clock()
        news = select(timeout)
        if begun < 3600.0:
            awake[0] = run.clock()
        elif stop:
            run.clock.advance(stop.pop())
        return news

    agenda.select = works
    told = story(run)

    assert [line for line in told if "TimeLost" in line], told


def test_whoever_is_late_is_late_though_time_was_lost():
    run = standing_still(ScriptedRun(new_spec(1).replace(ready_timeout=10.0), {}), 600.0, at=4.0, asleep=True)

    told = story(run)

    (passed,) = [line for line in told if "DeadlinePassed" in line]
    assert 610.0 <= float(passed.split()[0]) <= 612.0
    assert run.job.judged.kind == "ready-timeout"


def test_without_a_deadline_nobody_wakes():
    waits = []
    run = ScriptedRun(new_spec(1), {0: Script(ends=(7200.0, ENDED))})
    select = run.driver._selector.select
    run.driver._selector.select = lambda timeout=None: waits.append(timeout) or select(timeout)

    run.until_finished()

    assert waits.count(None) == len(waits)
    assert len(waits) < 8


def test_a_suspended_job_has_no_deadline_and_goes_on_where_it_was():
    spec = new_spec(2).replace(ready_timeout=10.0)
    says = {0: Script(says=((1.0, Ready),))}
    run = ScriptedRun(spec, says, [(4.0, Suspended), (5000.0, Resumed)])

    told = story(run)

    assert [line for line in told if "DeadlinePassed" in line] == ["5006.000 DeadlinePassed"]
    assert run.ranks.signals[:4] == [(4.0, 0, 19), (4.0, 1, 19), (5000.0, 0, 18), (5000.0, 1, 18)]
    assert (run.job.judged.rank, run.job.judged.kind) == (1, "ready-timeout")
