"""A part of a job on four machines is lost: every node that can be told says so; nothing is left on any.

Clocks are short here (`CLOCKS`): `--node-timeout` until a silent node is lost, `--orphan-timeout` for its own ranks. What
is lost by silence says how long that was. `losses.py` does the same a hundred times at random, in a stated time.
"""

import re
import signal

import pytest
from tests.marks import slowly
from tests.nodes.jobs import WAIT, Job, same

WORLD = range(8)
NODE, ORPHAN = 1.0, 1.5
DEFAULT_NODE, DEFAULT_ORPHAN = 5.0, 10.0
CLOCKS = ("--node-timeout", str(NODE), "--orphan-timeout", str(ORPHAN))


@pytest.mark.parametrize("role", ["supervisor", *slowly("front", "warden")])
def test_an_agent(hosts, tmp_path, role):
    with Job(hosts, tmp_path, WAIT) as job:
        job.start(*CLOCKS).up()
        job.kill(2, role)
        job.gone(WORLD)
        nodes = job.ended()

    verdict = same([nodes[0], nodes[1], nodes[3]])
    told(verdict, "host-c")
    assert nodes[2].status != 0


@pytest.mark.slow
@pytest.mark.parametrize("role", ["agent-supervisor", "agent-front", "agent-warden"])
def test_the_agent_of_node_0(hosts, tmp_path, role):
    with Job(hosts, tmp_path, WAIT) as job:
        job.start(*CLOCKS).up()
        job.kill(0, role)
        job.gone(WORLD)
        nodes = job.ended()

    told(same(nodes), "host-a")


@pytest.mark.parametrize("role", ["supervisor", *slowly("front", "warden")])
def test_the_coordinator(hosts, tmp_path, role):
    with Job(hosts, tmp_path, WAIT) as job:
        job.start(*CLOCKS).up()
        job.kill(0, role)
        job.gone(WORLD)
        nodes = job.ended()

    assert 0 not in [node.status for node in nodes]
    if role == "supervisor":  # nobody is left who could tell the others
        for node in nodes[1:]:
            assert (node.kind, node.status) == ("node-lost", 1)
            assert hosts[0].address in node.verdict["statement"]
    else:
        verdict = same(nodes[1:])
        assert verdict["culprit"]["cause"]["kind"] == "supervisor-lost"
        assert "on host-a" in verdict["statement"]


@pytest.mark.parametrize("silently", [True, *slowly(False)])
def test_a_node_is_cut_off(hosts, tmp_path, silently):
    with Job(hosts, tmp_path, WAIT) as job:
        job.start(*CLOCKS).up()
        hosts[2].cut(silently=silently)
        job.gone(set(WORLD) - {4, 5})
        job.gone({4, 5})
        nodes = job.ended()

    verdict = same([nodes[0], nodes[1], nodes[3]])
    told(verdict, "host-c")
    assert NODE <= silence(verdict) < DEFAULT_NODE
    alone = nodes[2]
    assert ORPHAN <= silence(alone.verdict) < DEFAULT_ORPHAN
    assert (alone.verdict["outcome"], alone.kind, alone.status) == ("failed", "node-lost", 1)
    assert hosts[0].address in alone.verdict["statement"]


@pytest.mark.slow
def test_node_0_is_cut_off(hosts, tmp_path):
    with Job(hosts, tmp_path, WAIT) as job:
        job.start(*CLOCKS).up()
        hosts[0].cut()
        job.gone(WORLD)
        nodes = job.ended()

    assert [node.status for node in nodes] == [1] * 4
    assert [node.kind for node in nodes] == ["node-lost"] * 4
    for node in nodes[1:]:
        assert hosts[0].address in node.verdict["statement"]
        assert ORPHAN <= silence(node.verdict) < DEFAULT_ORPHAN


@pytest.mark.slow
def test_an_agent_that_is_stopped(hosts, tmp_path):
    """SIGSTOP: it answers nothing, and ends nothing, until its own warden or somebody else does."""
    with Job(hosts, tmp_path, WAIT) as job:
        job.start(*CLOCKS).up()
        job.kill(2, "supervisor", signal.SIGSTOP)
        job.gone(set(WORLD) - {4, 5})
        job.kill(2, "supervisor", signal.SIGCONT)
        job.gone({4, 5})
        nodes = job.ended()

    told(same([nodes[0], nodes[1], nodes[3]]), "host-c")
    assert nodes[2].status != 0


@pytest.mark.slow
def test_a_rank_dies_on_a_node_that_is_cut_off_at_once(hosts, tmp_path):
    """Its own node acts by itself, and keeps the cause."""
    with Job(hosts, tmp_path, WAIT) as job:
        job.start(*CLOCKS).up()
        hosts[2].cut()
        job.kill_rank(5)
        job.gone({4, 5})
        job.gone(WORLD)
        nodes = job.ended()

    told(same([nodes[0], nodes[1], nodes[3]]), "host-c")
    assert (nodes[2].kind, nodes[2].verdict["culprit"]["rank"], nodes[2].status) == ("killed", 1, 137)
    assert any("are ranks 4 to 5 of 8" in warning for warning in nodes[2].verdict["warnings"])


def silence(verdict):
    """Seconds, as the statement has them."""
    return float(re.search(r"nothing was heard of it for ([\d.]+) s", verdict["statement"])[1])


def told(verdict, host):
    """That this node is lost, and nothing else."""
    assert verdict["outcome"] == "failed"
    assert verdict["culprit"]["cause"]["kind"] == "node-lost"
    assert (verdict["culprit"]["node"], verdict["exit_code"]) == (host, 1)
    assert host in verdict["statement"]
    assert verdict["teardown"]["survivors"] == []
