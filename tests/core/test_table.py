"""The table is total: each (phase, fact) has a cell that is a function, or says why it is ignored or refused."""

import ast
import inspect
from pathlib import Path

import pytest

import rankguard.core
from rankguard import facts
from rankguard.core.job import Job
from rankguard.core.machine import JOB_TABLE, RANK_TABLE, Ignored, JobPhase, Refused, step
from rankguard.errors import RankguardBug
from rankguard.facts import Fact, JobStarted, RankFact, Ready, SupervisorLost
from rankguard.model import Phase
from rankguard.testing.player import new_spec

FRONTS_OWN = {SupervisorLost}
"""Facts that no core is left to be told of."""

CELLS = [
    pytest.param(cell, arguments, id=f"{fact.__name__}-{phase}")
    for table, arguments in ((RANK_TABLE, 3), (JOB_TABLE, 2))
    for fact, row in table.items()
    for phase, cell in row.items()
]


def test_every_fact_is_in_exactly_one_table():
    every = {kind for kind in vars(facts).values() if isinstance(kind, type) and issubclass(kind, Fact)}
    every -= {Fact, RankFact} | FRONTS_OWN

    assert every == {*RANK_TABLE, *JOB_TABLE}
    assert set() == {*RANK_TABLE} & {*JOB_TABLE}
    assert {kind for kind in every if issubclass(kind, RankFact)} == {*RANK_TABLE}


def test_every_phase_has_a_cell_in_every_row():
    assert {fact: list(Phase) for fact in RANK_TABLE} == {fact: list(row) for fact, row in RANK_TABLE.items()}
    assert {fact: list(JobPhase) for fact in JOB_TABLE} == {fact: list(row) for fact, row in JOB_TABLE.items()}


@pytest.mark.parametrize(("cell", "arguments"), CELLS)
def test_every_cell_acts_or_says_why_not(cell, arguments):
    if isinstance(cell, Ignored | Refused):
        assert cell.why.strip()
    else:
        assert arguments == len(inspect.signature(cell).parameters)


@pytest.mark.parametrize("fact", RANK_TABLE)
def test_a_rank_that_the_job_does_not_have_is_refused(fact):
    job = Job(new_spec(1))
    step(job, JobStarted(0.0, 0.0))
    made = fact(**dict.fromkeys(fact._fields, 1))

    with pytest.raises(RankguardBug, match="has no such rank"):
        step(job, made)


def test_a_bug_tells_the_story():
    job = Job(new_spec(1))
    step(job, JobStarted(0.0, 5.0))

    with pytest.raises(RankguardBug) as raised:
        step(job, Ready(1.0, 0))

    expected = """refused Ready(at=1.0, rank=0) in a watching job: the rank has no process yet
the last facts and orders:
  JobStarted(at=0.0, wall=5.0)
  Spawn(because='the job begins', first=0, last=0)"""
    assert expected == str(raised.value)


@pytest.mark.parametrize("file", sorted(Path(rankguard.core.__file__).parent.glob("*.py")), ids=lambda file: file.name)
def test_the_core_touches_nothing(file):
    """No clock, no process, no input or output: not even by a name that is only imported."""
    impure = {"os", "time", "signal", "subprocess", "threading", "asyncio", "socket", "random", "logging"}
    impure |= {"select", "selectors", "sys", "pathlib", "io", "datetime", "uuid", "secrets", "multiprocessing"}
    tree = ast.parse(file.read_text())
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}

    assert set() == {name.partition(".")[0] for name in named} & impure
    assert set() == called & {"open", "print", "input", "__import__", "exec", "eval", "id", "hash"}
