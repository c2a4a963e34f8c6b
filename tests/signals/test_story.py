"""What `explain` tells of suspended jobs, lost time and requests: the journals of scenarios as stories."""

from pathlib import Path

from rankguard.core import story
from rankguard.report.tale import entries, tale
from rankguard.testing import Player
from rankguard.testing.player import spec_of

SCENARIOS = Path(__file__).parents[1] / "scenarios"


def told(name: str) -> list[str]:
    lines = [line for line in (SCENARIOS / f"{name}.txt").read_text().splitlines() if line and line[0] not in " #"]
    player = Player(spec_of(lines[0]))
    for line in lines[1:]:
        player.play(line)
    journal = story.first_line(player.job.spec) + "".join(story.lines(fact, orders) for fact, orders in player.steps)
    return [
        f"{moment.at_s:.0f} {moment.what} → {'; '.join(moment.then)}" for moment in tale(entries(journal.splitlines()))
    ]


def test_a_suspended_job() -> None:
    lines = told("suspended_and_resumed")

    assert "4 asked to stand still (Ctrl-Z) → SIGSTOP to all ranks, because the job is suspended; " in lines[3]
    assert "the clock `ready` stopped" in lines[3]
    assert any(
        line.startswith(
            "64 asked to go on → SIGCONT to all ranks, because the job goes on; the clock `ready` runs until 67"
        )
        for line in lines
    )


def test_lost_time() -> None:
    assert any(
        line.startswith("600 rankguard itself stood still for 595.0 s → the clock `ready` runs until 605")
        for line in told("time_lost")
    )


def test_a_node_that_is_cut_off() -> None:
    lines = told("nodes_silent_after_victims")

    assert "1 node 2 (host-c) joined, with ranks 4 to 5 → " in lines
    assert "11 nothing was heard of node 2 (host-c) for 1.0 s → " in lines
    assert any(line.startswith("12 the clock `nodes` was over → the clock `nodes` runs until 15.7") for line in lines)
    assert any(line.startswith("15 node 2 (host-c) was lost: nothing was heard of it for 5.0 s → ") for line in lines)
    assert any(line.startswith("15 judged: node 2 failed first (node-lost; all suspects") for line in lines)


def test_an_agent_that_stops_its_ranks() -> None:
    lines = told("nodes_agent_stops_by_itself")

    said = "the agent of node 1 (host-b) sent SIGTERM to its ranks: a rank lost a peer, and another was seen dying"
    assert any(line.startswith(f"10 {said} → ") for line in lines)
    assert "the agent of node 1 (host-b) sent SIGKILL to its ranks: the grace was over" in "\n".join(lines)
