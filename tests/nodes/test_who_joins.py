"""Who may join a job on several machines, who is waited for, and what is said to those who may not."""

import sys

import pytest
from tests.nodes.jobs import PORT, WAIT, Job, same

LISTENS = """
import socket
while True:
    try:
        socket.create_connection({address}).close()
        break
    except ConnectionRefusedError:
        pass
"""


@pytest.mark.slow
def test_one_that_never_comes_is_named(hosts, tmp_path):
    with Job(hosts, tmp_path, WAIT) as job:
        # As long as three of them may take to come, on a machine that has other things to do.
        nodes = job.start("--join-timeout", "6", only=(0, 1, 3)).ended()

    verdict = same(nodes)
    assert verdict["outcome"] == "failed"
    assert "node 2" in verdict["statement"], verdict["statement"]
    assert "within 6 s" in verdict["statement"], verdict["statement"]
    assert job.ranks == {}


@pytest.mark.slow
def test_node_0_never_comes(hosts, tmp_path):
    with Job(hosts, tmp_path, WAIT) as job:
        nodes = job.start("--join-timeout", "2", only=(1, 2)).ended()

    assert [node.status for node in nodes] == [1, 1]
    for node in nodes:
        assert "10.77.0.1:29500" in node.stderr, node.stderr
        assert "within 2 s" in node.stderr, node.stderr


@pytest.mark.slow
def test_in_any_order(hosts, tmp_path):
    with Job(hosts, tmp_path, "tell()\n") as job:
        for number in (3, 2, 1):
            job.start_one(number)
        job.start_one(0)
        job.tellings(8)
        assert same(job.ended())["outcome"] == "succeeded"


@pytest.mark.slow
def test_numbered_as_they_come(hosts, tmp_path):
    with Job(hosts, tmp_path, "tell()\n") as job:
        for number in range(4):
            job.start_one(number, node_rank=0 if number == 0 else "auto")
        told = job.tellings(8)
        verdict = same(job.ended())
    assert verdict["outcome"] == "succeeded"
    assert sorted(verdict["nodes"]) == ["host-a", "host-b", "host-c", "host-d"]
    assert {each.rank: each.host for each in told} == {row["rank"]: row["node"] for row in verdict["ranks"]}


@pytest.mark.slow
def test_a_second_one_with_the_same_number(hosts, tmp_path):
    refused_then_right(hosts[:2], tmp_path, "node 1 has joined already", same_number=True)


@pytest.mark.slow
def test_a_wrong_token(hosts, tmp_path):
    refused_then_right(hosts[:2], tmp_path, "token", token="another")


@pytest.mark.slow
def test_another_number_of_ranks(hosts, tmp_path):
    refused_then_right(hosts[:2], tmp_path, "3 ranks per node", nproc=3)


def refused_then_right(hosts, tmp_path, why, *, same_number=False, **wrong):
    """Two nodes. One more command is refused, says why, and does the job no harm."""
    with Job(hosts, tmp_path, WAIT) as job:
        job.start_one(0)
        hosts[1].run(sys.executable, "-c", LISTENS.format(address=(hosts[0].address, PORT)))
        if same_number:
            job.start_one(1)
            job.up()
        (tmp_path / "other").mkdir()
        with Job(hosts, tmp_path / "other", WAIT) as other:
            [refused] = other.start("--join-timeout", "3", only=(1,), **wrong).ended()
        if not same_number:
            job.start_one(1)
            job.up()
        job.kill_rank(3)
        nodes = job.ended()

    assert refused.status != 0
    assert why in refused.stderr, refused.stderr
    verdict = same(nodes)
    assert (verdict["culprit"]["rank"], verdict["exit_code"]) == (3, 137)
