"""What a rank tells becomes facts: its status, and of its collectives what is part of its report; it may send anything."""

import pytest

from rankguard.collective import Entry, Recorded
from rankguard.facts import StatusTold
from rankguard.launchers.mailbox import Mailbox
from rankguard.linux.notify import Message


def recorded(collectives):
    exception = {"type": "RuntimeError", "message": "Timed out waiting", "collectives": collectives}
    (fact,) = Mailbox(3).take(Message(1, exception=exception), 5.0, lambda _text: None)
    return fact.report.recorded


def test_the_numbers_of_each_group():
    told = [["0", 7, 6, [[6, "all_reduce", "completed"], [7, "broadcast", "scheduled"]]], ["tp", None, None, []]]

    assert recorded(told) == (
        Recorded(3, "0", 7, 6, (Entry(6, "all_reduce", "completed"), Entry(7, "broadcast", "scheduled"))),
        Recorded(3, "tp"),
    )


def test_what_has_another_shape_is_left_out_and_there_is_never_too_much():
    good = ["0", 1, 0, [[n, "barrier", "scheduled"] for n in range(1000)]]

    assert [len(each.entries) for each in recorded([["x"], 7, None, [1, 2, 3, [[4]]], good])] == [8]
    assert len(recorded([good] * 1000)) == 16


@pytest.mark.parametrize("told", [None, "x", 7, {}, [], [[]], [["0", 1, 0, 5]]])
def test_no_list_of_groups(told):
    assert recorded(told) == ()


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (Message(1, status="loading"), StatusTold(2.0, 3, "loading", 3, 8, "")),
        (Message(1, alive=True), StatusTold(2.0, 3, "loading", 3, 8, "")),
        (Message(1, status="serving"), StatusTold(2.0, 3, "serving")),
        (Message(1, status="serving", progress=(1, 2, "")), StatusTold(2.0, 3, "serving", 1, 2, "")),
    ],
)
def test_progress_is_of_what_the_status_says(second, expected):
    mailbox = Mailbox(3)
    mailbox.take(Message(1, status="loading", progress=(3, 8, "")), 1.0, lambda _text: None)

    mailbox.take(second, 2.0, lambda _text: None)

    assert mailbox.flush(2.0) == [expected]
