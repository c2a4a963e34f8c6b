"""Without pidfds, as on macOS: sentinels and the owners' word."""

import os
import signal

import pytest
from tests.adopt import programs
from tests.adopt.programs import METHODS, Ranks

import rankguard


@pytest.fixture(autouse=True)
def _no_pidfds(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [("kill", signal.SIGKILL), ("exit", 3)], ids=["killed", "exit-3"])
def test_wait_ready(method, order):
    with Ranks(method, delivered=(1, 2)) as ranks:
        ranks.order(5, *order)
        with pytest.raises(rankguard.RankFailed) as raised:
            rankguard.wait_ready(ranks.processes, ranks.readers)
        culprit = raised.value.verdict.culprit
        assert (culprit.rank, culprit.ending.number or culprit.ending.code) == (5, order[1])


def test_all_deliver():
    with Ranks(count=3, delivered=range(3)) as ranks:
        assert len(rankguard.wait_ready(ranks.processes, ranks.readers, timeout=30)) == 3


def test_guard_and_stop():
    with Ranks(count=3) as ranks:
        pid = ranks.processes[2].pid
        with pytest.raises(rankguard.RankFailed) as raised, rankguard.guard([*ranks.processes[:2], pid]) as guard:
            ranks.order(2, "exit", 6)
            assert guard.future.result(10).culprit.ending.code == 6
        assert raised.value.verdict.culprit.rank == 2
        endings = rankguard.stop(ranks.processes, grace=1)
        assert [ending.signal for ending in endings] == ["SIGTERM", "SIGTERM", None]
        assert rankguard.stop([ranks.processes[0].pid], grace=0)[0].code is None
        assert programs.zombies() & {process.pid for process in ranks.processes} == set()
