"""An agent's end of the link, without a coordinator: what it stamps, and what it says while it waits."""

from collections.abc import Iterator
from selectors import DefaultSelector

import pytest

from rankguard.facts import Exited, Fact, NodeStopping
from rankguard.jobspec import Share
from rankguard.model import Ending
from rankguard.orders import Look, SignalAll
from rankguard.supervisor.nodes.uplink import Uplink
from rankguard.testing.player import new_spec

JOIN_S = 200.0


class Alone:
    """An uplink whose coordinator never comes, with a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.facts: list[Fact] = []
        self.lines: list[str] = []
        share = Share("127.0.0.1", 1, 2, node=1, join_timeout=JOIN_S)
        self.selector = DefaultSelector()
        spec = new_spec(2).replace(share=share)
        self.uplink = Uplink(spec, self.selector, lambda: self.now, self.lines.append)
        self.uplink.tell = self.facts.append  # type: ignore[method-assign]  # nothing is sent


@pytest.fixture
def alone() -> Iterator[Alone]:
    made = Alone()
    yield made
    made.uplink.wake(1001.0 + JOIN_S)  # it gives up
    made.selector.close()


def test_ranks_are_told_to_end_before_any_of_them_can_have_obeyed(alone: Alone) -> None:
    """The first may have ended before the last is signalled: it ended by us, and not by somebody else."""
    ending = Ending(kind="exit", code=7)
    for at, told in (
        (1002.0, Exited(1001.9, 1, ending)),
        (1002.3, Look("rank 1 ended")),
        (1002.9, SignalAll("rank 1 ended", 15)),
    ):
        alone.now = at
        alone.uplink.listen(told)

    stopping = [fact for fact in alone.facts if isinstance(fact, NodeStopping)]
    assert [(fact.at, fact.signal) for fact in stopping] == [(1002.3, 15)]


def test_what_is_waited_for_is_said_now_and_then(alone: Alone) -> None:
    for seconds in (1.0, 10.0, 10.5, 30.0, 60.0, 119.0, 120.0):
        alone.now = 1000.0 + seconds
        alone.uplink.wake(alone.now)

    said = [line.partition(":")[0] for line in alone.lines]
    assert said == ["10 s", "30 s", "60 s", "120 s"]
    assert all("waiting for node 0 at 127.0.0.1:1" in line for line in alone.lines)
