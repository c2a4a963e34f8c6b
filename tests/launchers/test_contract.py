"""What every launcher owes the driver, whatever its ranks are: the same rules, over what the driver was told and ordered.

To add a launcher: a function here that runs a job of four ranks, of which one is killed and one does not exist, and
returns its facts with their orders.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.run.command import Ranks

from rankguard.core.story import replay
from rankguard.facts import Exited, Fact, Looked, NotSpawned, OutputClosed, RankFact, Reaped, Signalled, Spawned
from rankguard.model import Ending
from rankguard.orders import Look, Order, Reap, SignalAll
from rankguard.testing import Script, ScriptedRun
from rankguard.testing.player import new_spec

Steps = list[tuple[Fact, tuple[Order, ...]]]
KILLED = Ending("signal", signal="SIGKILL", number=9)


def by_exec_killed(folder: Path) -> Steps:
    ended = Ranks(folder).run(4, "RANK == 1 and os.kill(os.getpid(), 9)\nsignal.pause()")
    return replay((ended.folder / "events.jsonl").read_text().splitlines())[1]


def by_exec_missing(folder: Path) -> Steps:
    ended = Ranks(folder).words(["-n", "4", str(folder / "missing")])
    return replay((ended.folder / "events.jsonl").read_text().splitlines())[1]


def by_script_killed(_folder: Path) -> Steps:
    return ScriptedRun(new_spec(4), {1: Script(ends=(0.5, KILLED))}).until_finished()


def by_script_missing(_folder: Path) -> Steps:
    return ScriptedRun(new_spec(4), dict.fromkeys(range(4), Script(errno=2))).until_finished()


ATTACHED = """
import os, shutil, subprocess, sys, time
for number in range(3):
    subprocess.Popen([f"VLLM::Worker_TP{number}", "1000"], executable=shutil.which("sleep"))
open(sys.argv[1]).read()
os.kill(int(open(f"/proc/self/task/{os.getpid()}/children").read().split()[0]), 9)
time.sleep(1000)
"""


def by_attached_killed(folder: Path) -> Steps:
    """The engine and three processes of its tree, the first of which kills itself once all are known."""
    (folder / "engine.py").write_text(ATTACHED)
    os.mkfifo(folder / "go")
    with subprocess.Popen([sys.executable, folder / "engine.py", folder / "go"]) as engine:
        words = ["watch", "--run-dir", folder / "run", "--settle", "0", "--pid", str(engine.pid)]
        watch = subprocess.Popen([sys.executable, "-m", "rankguard", *words, "--rank-pattern", "Worker_TP(\\d)"])
        journal = folder / "run" / "events.jsonl"
        while not journal.exists() or journal.read_text().count('"Joined"') < 3:
            assert watch.poll() is None
        (folder / "go").write_text("")
        assert watch.wait(60) == 137
    return replay(journal.read_text().splitlines())[1]


KILLS: list[Callable[[Path], Steps]] = [by_exec_killed, by_script_killed, by_attached_killed]
MISSING: list[Callable[[Path], Steps]] = [by_exec_missing, by_script_missing]


@pytest.fixture(params=[*KILLS, *MISSING], ids=lambda run: run.__name__)
def steps(request: pytest.FixtureRequest, tmp_path: Path) -> Steps:
    return list(request.param(tmp_path))


def of(steps: Steps, rank: int) -> list[type[Fact]]:
    """The facts of one rank, in order; what its output does may come at any time."""
    facts = [fact for fact, _orders in steps if isinstance(fact, RankFact) and fact.rank == rank]
    return [type(fact) for fact in facts if not isinstance(fact, OutputClosed)]


def test_every_rank_is_accounted_for_once(steps: Steps) -> None:
    whole_lives = ([Spawned, Exited, Reaped], [NotSpawned], [Exited])  # the last: of a process that others started

    assert all(of(steps, rank) in whole_lives for rank in range(4)), [of(steps, rank) for rank in range(4)]


def test_each_order_is_answered_once(steps: Steps) -> None:
    facts = [type(fact) for fact, _orders in steps]
    orders = [type(order) for _fact, given in steps for order in given]

    assert facts.count(Looked) == orders.count(Look)
    assert facts.count(Signalled) == orders.count(SignalAll)
    assert facts.count(Reaped) == orders.count(Reap)


def test_time_never_runs_back_for_a_rank(steps: Steps) -> None:
    for rank in range(4):
        instants = [fact.at for fact, _orders in steps if isinstance(fact, RankFact) and fact.rank == rank]
        assert instants == sorted(instants)


@pytest.mark.parametrize("run", KILLS, ids=lambda run: run.__name__)
def test_who_was_killed_and_who_was_told(run: Callable[[Path], Steps], tmp_path: Path) -> None:
    endings = {fact.rank: fact.ending for fact, _orders in run(tmp_path) if isinstance(fact, Exited)}

    assert endings[1] == KILLED
    assert {endings[rank].number for rank in (0, 2, 3)} == {15}


@pytest.mark.parametrize("run", MISSING, ids=lambda run: run.__name__)
def test_what_cannot_be_executed_says_so(run: Callable[[Path], Steps], tmp_path: Path) -> None:
    first = next(fact for fact, _orders in run(tmp_path) if isinstance(fact, NotSpawned))

    assert first.errno == 2
