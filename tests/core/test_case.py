"""What the case says of a job: the part of the core's memory that the diagnosis goes by."""

import pytest

from rankguard.facts import StatusTold
from rankguard.model import Phase
from rankguard.testing import Player
from rankguard.testing.player import spec_of

FAILED = """job nprocs=3 ready_timeout=60
0.000 start
0.010 ranks 0-2 spawned
1.000 rank 1 ready
2.000 rank 1 killed SIGSEGV
2.002 looked 2=exiting
2.003 signalled SIGTERM 2"""


def case(text):
    first, *lines = text.splitlines()
    player = Player(spec_of(first))
    for line in lines:
        player.play(line)
    return player.job.case()


def test_each_phase_is_the_one_at_its_own_failure_or_at_the_stop():
    told = case(f"{FAILED}\n2.010 rank 0 killed SIGTERM\n2.020 rank 2 killed SIGKILL")

    assert [rank.phase for rank in told.ranks] == [Phase.STARTING, Phase.READY, Phase.STARTING]


def test_whom_we_signalled():
    """The failed one had ended, and the one seen dying did not die of our signal."""
    told = case(f"{FAILED}\n2.010 rank 0 killed SIGTERM\n2.020 rank 2 killed SIGKILL")

    assert [rank.signalled_at for rank in told.ranks] == [2.0, None, None]
    assert [rank.suspect for rank in told.ranks] == [False, True, True]
    assert [rank.failed_at for rank in told.ranks] == [None, 2.0, 2.002]


@pytest.mark.parametrize(("ended_at", "expected"), [("6.000", False), ("7.001", True)])
def test_our_sigkill_is_told_from_anybody_elses(ended_at, expected):
    """A rank that ended before our SIGKILL for the leftovers did not die of it."""
    before = f"{ended_at} rank 0 killed SIGKILL\n" if ended_at < "7" else ""
    after = f"{ended_at} rank 0 killed SIGKILL\n" if ended_at > "7" else ""
    told = case(
        f"{FAILED}\n2.020 rank 2 killed SIGKILL\n4.000 deadline suspects\n{before}7.000 deadline grace\n{after}"
    )

    assert told.ranks[0].killed_by_us is expected


def test_a_spared_rank_was_signalled_when_it_was_told():
    told = case(
        """job nprocs=2
0.000 start
0.000 ranks 0-1 spawned
5.000 rank 1 reports exception "ValueError: x"
5.000 looked
5.000 signalled SIGTERM 1
5.100 deadline echo
7.000 deadline suspects
8.000 deadline settle"""
    )

    assert [rank.signalled_at for rank in told.ranks] == [5.0, 8.0]


def test_detection_is_counted_to_the_signal_that_stops():
    """A signal that was only passed on, long before, is none of that."""
    told = case(
        FAILED.replace("1.000 rank 1 ready", "1.000 rank 1 ready\n1.500 signal SIGUSR1\n1.500 signalled SIGUSR1 3")
    )

    assert told.detected_in_s == pytest.approx(0.003)


def test_a_report_after_our_signal_is_no_failure_of_its_own():
    text = """job nprocs=3
0.000 start
0.000 ranks 0-2 spawned
5.000 rank 0 exits 1
5.000 looked
5.000 signalled SIGTERM 2
5.001 rank 1 reports exception "ValueError: x" raised=4.9
5.001 rank 2 reports exception "KeyboardInterrupt" raised=5.0005"""

    assert [rank.suspect for rank in case(text).ranks] == [True, True, False]


def test_what_a_rank_said_is_merged():
    told = case(
        """job nprocs=1
0.000 start
0.000 rank 0 spawned
1.000 rank 0 says "loading" done=3 total=8 unit=shards
2.000 rank 0 says "loading"
3.000 oom-log 0
4.000 oom-log nobody"""
    )

    status = told.ranks[0].status
    assert status == StatusTold(2.0, 0, "loading", 3.0, 8.0, "shards")
    assert (len(told.ranks[0].ooms), len(told.other_ooms)) == (1, 1)


def test_how_far_a_rank_was_with_one_thing_is_not_said_of_the_next():
    told = case(
        """job nprocs=1
0.000 start
0.000 rank 0 spawned
1.000 rank 0 says "loading" done=3 total=8 unit=shards
2.000 rank 0 says "serving"
3.000 oom-log nobody""",
    )

    assert told.ranks[0].status == StatusTold(2.0, 0, "serving")


def test_a_request_during_a_held_stop_is_no_request_before_the_failure():
    text = """job nprocs=2
0.000 start
0.000 ranks 0-1 spawned
5.000 rank 0 exits 1 peer="Connection reset by peer"
5.000 looked
5.100 asked SIGTERM"""

    told = case(text)

    assert (told.stop, told.failed_at, told.stopped_at) == (None, 5.0, 5.1)


def test_the_timeline():
    told = case(f"{FAILED}\n2.020 rank 2 killed SIGKILL\n2.020 judged 1 crash exit=139")

    expected = [
        (0.0, "launched"),
        (0.01, "all ranks started"),
        (2.0, "rank 1 was ended by SIGSEGV"),
        (2.0, "told the other ranks to end"),
        (2.02, "judged: rank 1 failed first (crash; only suspect)"),
    ]
    assert expected == [(moment.at_s, moment.what) for moment in told.timeline]
