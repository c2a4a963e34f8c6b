"""Signals from outside, to the front and to our other processes."""

import os

import pytest
from tests.faults.nest import Nest
from tests.marks import slowly


def shell(trap, *options):
    return ("-n", "2", *options, "--no-python", "sh", "-c", f"{trap}; echo up >>up; while :; do sleep 0.02; done")


SAVES = shell("trap 'sleep 0.3; exit 0' TERM INT HUP")
LATE = shell("trap 'sleep 9; exit 0' TERM INT HUP", "--shutdown-timeout", "0.5")
SLOW = shell("trap 'echo got >>got; sleep 600; exit 0' TERM INT HUP", "--shutdown-timeout", "600")
FAILS = shell("trap 'exit 7' TERM")
PLAIN = ("-n", "2", "--no-python", "sh", "-c", "echo up >>up; exec sleep 30")


REQUESTS = [
    (who, *each)
    for who in ("front", "supervisor")
    for each in (
        (SAVES, [15], 0), (SAVES, [2], 0), (SAVES, [1], 0), (LATE, [15], 143), (LATE, [2], 130), (FAILS, [15], 143),
        (PLAIN, [15], 143), (PLAIN, [2], 130), (PLAIN, [1], 129), (PLAIN, [3, 14, 13, 26, 34, 64, 15], 143),
    )
]  # fmt: skip


@pytest.mark.parametrize(
    ("who", "words", "numbers", "expected"),
    [*REQUESTS[::4], *slowly(*(each for nth, each in enumerate(REQUESTS) if nth % 4))],
)
def test_requests_to_end(who, words, numbers, expected):
    with Nest() as nest:
        nest.run(*words)
        nest.until("up", 2)
        process = nest.ours()[who]
        for number in numbers:
            os.kill(process, number)
        assert nest.ended()[0] == expected


def test_a_second_interrupt_ends_all_at_once():
    with Nest() as nest:
        front = nest.run(*SLOW)
        nest.until("up", 2)
        os.kill(front.pid, 2)
        nest.until("got", 2)
        os.kill(front.pid, 2)
        assert nest.ended()[0] == 130  # nothing else would have ended them for ten minutes


def test_usr1_is_forwarded_and_stops_nothing():
    with Nest() as nest:
        front = nest.run(*shell("trap 'echo got >>got' USR1; trap 'exit 0' TERM"))
        nest.until("up", 2)
        os.kill(front.pid, 10)
        nest.until("got", 2)
        front.terminate()
        assert nest.ended()[0] == 0


def test_the_warden_is_deaf():
    with Nest() as nest:
        front = nest.run(*SAVES)
        nest.until("up", 2)
        for number in (15, 2, 1, 3, 10, 12, 13, 14):
            os.kill(nest.ours()["warden"], number)
        os.kill(front.pid, 18)
        front.terminate()
        assert nest.ended()[0] == 0
