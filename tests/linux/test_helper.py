"""A program that nobody waits for: its words, its end, what is left of it. (That it dies with us: `test_stacks.py`.)"""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rankguard.linux.helper import Helper, Said

ENV = {"PATH": os.defpath}


@pytest.fixture
def selector() -> Iterator[selectors.EpollSelector]:
    """As it was, when the test is over: no news, no descriptor, no child. (What others have left may go meanwhile.)"""
    with selectors.EpollSelector() as made:
        files, processes = opened(), children()
        yield made
        assert (opened() - files, children() - processes) == (set(), set())
        assert not made.get_map()


def opened() -> set[str]:
    """Descriptors; that of the listing itself is the same number each time."""
    return set(os.listdir("/proc/self/fd"))


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def turn(selector: selectors.EpollSelector) -> None:
    """One of the driver's."""
    for key, _events in selector.select(30):
        key.data[1](time.monotonic())


def shell(selector: selectors.EpollSelector, script: str, on_end: Callable[[float], None], **more) -> Helper:
    return Helper(selector, 4, ("sh", "-c", script), ENV, on_end, **more)


def test_its_words_and_its_end(selector) -> None:
    said: list[Said] = []
    helper = shell(selector, "read line; echo out; echo err >&2; exit 3", lambda _now: said.append(helper.close()))

    turn(selector)

    assert said == [Said(b"out\n", b"err\n")]  # what it reads has ended


def test_one_whose_time_is_over_is_ended_and_what_it_said_counts(selector, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "there")
    helper = shell(selector, f"echo out; echo >{tmp_path}/there; exec sleep 1000", pytest.fail)
    (tmp_path / "there").read_text()

    assert helper.close() == Said(b"out\n", b"")


def test_one_closed_in_the_turn_in_which_it_ended_has_no_news(selector) -> None:
    news: list[float] = []
    helpers = [
        shell(selector, "exit 0", lambda now: (news.append(now), [each.close() for each in helpers])) for _ in "ab"
    ]
    for pidfd in selector.get_map():
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)  # both have news by now

    turn(selector)

    assert len(news) == 1


def test_signals_that_do_not_end_it(selector) -> None:
    said: list[Said] = []
    helper = shell(
        selector, "kill -TERM $$; echo here", lambda _now: said.append(helper.close()), ignore=(signal.SIGTERM,)
    )

    turn(selector)

    assert said == [Said(b"here\n", b"")]


def test_one_that_cannot_be_executed_says_nothing(selector) -> None:
    said: list[Said] = []
    helper = Helper(selector, 4, ("/no/such/program",), ENV, lambda _now: said.append(helper.close()))

    turn(selector)

    assert said == [Said(b"", b"")]


FEW = """
import os, resource, selectors
from rankguard.linux.helper import Helper
selector = selectors.EpollSelector()
opened = lambda: sorted(os.listdir("/proc/self/fd"))
before = opened()
for more in range(6):
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) - 1 + more, 1024))
    try:
        Helper(selector, 4, ("true",), {"PATH": os.defpath}, print).close()
        print("started")
    except OSError as error:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
        assert opened() == before, (more, opened())
        print(error.errno)
"""


def test_where_descriptors_run_out_on_the_way_nothing_stays_open() -> None:
    """At each step in turn: stdin, two outputs, both ends of the pipe for the child's news."""
    ended = subprocess.run([sys.executable, "-c", FEW], capture_output=True, text=True)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == ["24"] * 5 + ["started"]
