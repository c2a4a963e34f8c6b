"""A rank that says by its interpreter that it is leaving with a code, and takes its time: the stop waits for its end."""

from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import DeadlinePassed, Exited, FailureReported, JobStarted, Looked, Spawned
from rankguard.model import Ending, ExceptionInfo, Report
from rankguard.orders import Judge, SignalAll
from rankguard.testing.player import new_spec

LOST = "Connection reset by peer"


def job(nprocs=8):
    made = Job(new_spec(nprocs))
    for fact in (JobStarted(0.0, 1.8e9), *(Spawned(0.1, rank, 100 + rank) for rank in range(nprocs))):
        step(made, fact)
    return made


def leaves(at, rank, code=3, peer=None):
    raised = ExceptionInfo(type="SystemExit", message=str(code))
    return FailureReported(at, rank, Report("exit", f"SystemExit: {code}", raised, at, code=code), peer)


def loses(at, rank):
    raised = ExceptionInfo(type="ConnectionResetError", message=LOST)
    return FailureReported(at, rank, Report("exception", LOST, raised, at), LOST)


def ends(at, rank, code, peer=None):
    return Exited(at, rank, Ending("exit", code), peer_death=peer)


def given(made, fact, kind):
    return [order for order in step(made, fact) if isinstance(order, kind)]


def test_nothing_is_done_until_it_has_left():
    made = job()

    assert step(made, leaves(5.0, 2)) == ()
    assert given(made, ends(6.0, 2, 3), SignalAll)


def test_its_victims_do_not_stop_the_job_before_it_has_left():
    made = job()
    step(made, leaves(5.0, 2))
    step(made, loses(5.01, 1))
    step(made, Looked(5.01))

    assert not given(made, DeadlinePassed(6.01, "hold", 1), SignalAll)  # one of eight has noticed
    assert given(made, ends(7.0, 2, 3), SignalAll)
    step(made, Looked(7.0))
    step(made, DeadlinePassed(7.1, "echo", 1))
    judged = choose(made.case())
    assert (judged.rank, judged.kind, judged.exit_code, judged.either) == (2, "exit-code", 3, ())


def test_one_that_takes_longer_than_anybody_waits():
    made = job()
    for fact in (leaves(5.0, 2), loses(5.01, 1), Looked(5.01), DeadlinePassed(6.01, "hold", 1)):
        step(made, fact)

    [signal] = given(made, DeadlinePassed(10.01, "hold", 2), SignalAll)
    assert 2 in signal.spare
    step(made, Looked(10.02))
    assert given(made, DeadlinePassed(12.02, "suspects", 1), Judge)
    told = verdict(made.case().replace(now=12.02), "0")
    assert (told.culprit.rank, told.culprit.cause.kind, told.exit_code) == (2, "exit-code", 3)
    assert told.statement == "rank 2 of 8 was leaving with exit code 3 while running"


def test_one_whose_log_tells_of_a_lost_peer_is_a_victim():
    made = job()
    step(made, leaves(5.0, 1, 1))

    assert not given(made, ends(5.1, 1, 1, LOST), SignalAll)
    step(made, Looked(5.1))
    step(made, Exited(5.2, 2, Ending("signal", None, "SIGKILL", 9)))
    assert choose(made.case()).rank == 2


def test_one_that_leaves_because_we_told_it_to_is_no_failure():
    made = job()
    step(made, ends(5.0, 0, 4))
    step(made, Looked(5.0))
    step(made, leaves(5.01, 1, 143))
    step(made, ends(5.02, 1, 143))
    step(made, DeadlinePassed(5.1, "echo", 1))
    rows = verdict(made.case().replace(now=6.0), "0").ranks
    assert [row.relation for row in rows[:2]] == ["culprit", "stopped"]
