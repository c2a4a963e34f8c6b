"""Every scenario in tests/scenarios gives its checked-in transcript, to the letter.

`UPDATE_GOLDEN=1 pytest tests/core/test_scenarios.py` writes them anew; read the difference before it is committed.
"""

import os
from pathlib import Path

import pytest

from rankguard import orders
from rankguard.core.machine import JOB_TABLE, RANK_TABLE
from rankguard.orders import Order
from rankguard.testing import Player, ScenarioError, play
from rankguard.testing.player import spec_of

FOLDER = Path(__file__).parents[1] / "scenarios"
SCENARIOS = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_scenario(file):
    expected = file.read_text()

    actual = play(expected)

    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(actual)
        expected = actual
    assert expected == actual


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_scenario_runs_to_its_end(file):
    player = played(file)

    ended = [rank.exited is not None or rank.not_spawned is not None for rank in player.job.ranks]
    done = player.job.finished or (player.job.spec.adopted and all(ended))

    assert done or player.job.tree.survivors


def test_every_order_is_given_in_some_scenario():
    given = {type(order) for file in SCENARIOS for _fact, given in played(file).steps for order in given}

    assert {kind for kind in vars(orders).values() if is_order(kind)} == given


def test_every_fact_happens_in_some_scenario():
    happened = {type(fact) for file in SCENARIOS for fact, _orders in played(file).steps}

    assert {*RANK_TABLE, *JOB_TABLE} == happened


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1.000 rank 0 dances", "line 4: 1.000 rank 0 dances: no such fact of a rank: dances"),
        ("1.000 rank 0 exits 0 loudly", "line 4: 1.000 rank 0 exits 0 loudly: what is meant by loudly?"),
        ("1.000 rank 0 exits", "line 4: 1.000 rank 0 exits: the exit code is missing"),
        ("0.000 warned early\n-1 warned late", "line 5: -1.0 lies before 0.0"),
        ("2.000 deadline ready", "line 4: the deadline ready is due at 5.0"),
        ("6.000 warned late", "line 4: the deadline ready was due at 5.000"),
        ("5.000 deadline ready\n5.000 examined\n9.000 rank 0 ready", "line 6: the deadline suspects was due at 7.000"),
    ],
)
def test_what_cannot_be_is_no_scenario(line, complaint):
    with pytest.raises(ScenarioError) as raised:
        play(f"job nprocs=1 ready_timeout=5\n0.000 start\n0.000 rank 0 spawned\n{line}\n")

    assert complaint == str(raised.value)


def played(file):
    lines = [line for line in file.read_text().splitlines() if line and line[0] not in " #"]
    player = Player(spec_of(lines[0]))
    for line in lines[1:]:
        player.play(line)
    return player


def is_order(kind):
    return isinstance(kind, type) and issubclass(kind, Order) and kind is not Order
