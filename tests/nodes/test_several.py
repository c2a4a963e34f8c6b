"""One command on each of four machines: all of them end, with one verdict and one status, and nothing is left on any."""

import json
import os
import signal

import pytest
from tests.nodes.jobs import MET, WAIT, Job, same

WORLD = range(8)


def test_to_the_end(hosts, tmp_path):
    names = (
        "LOCAL_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
        "GROUP_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
    )
    text = MET + f"links = meet()\ntell(*(os.environ[name] for name in {names}))\n"
    text += "print('this is', RANK)\nsys.exit(0)\n"
    with Job(hosts, tmp_path, text) as job:
        told = {each.rank: each for each in job.start().tellings(8)}
        nodes = job.ended()

    verdict = same(nodes)
    assert (verdict["outcome"], verdict["exit_code"], verdict["world_size"]) == ("succeeded", 0, 8)
    assert verdict["nodes"] == ["host-a", "host-b", "host-c", "host-d"]
    assert [row["relation"] for row in verdict["ranks"]] == ["finished"] * 8
    assert [row["node"] for row in verdict["ranks"]] == [f"host-{'aabbccdd'[rank]}" for rank in WORLD]
    assert [row["pid"] for row in verdict["ranks"]] == [told[rank].pid for rank in WORLD]
    port = told[0].words[-1]
    assert [told[rank].words for rank in WORLD] == [
        (str(rank % 2), "8", "2", str(rank // 2), "4", "10.77.0.1", port) for rank in WORLD
    ]
    assert [told[rank].host for rank in WORLD] == [f"host-{'aabbccdd'[rank]}" for rank in WORLD]
    shown = nodes[0].stdout
    for rank in WORLD:
        assert sum(f"this is {rank}" in line and f"{rank}]" in line for line in shown.splitlines()) == 1, shown


def test_a_rank_is_killed(hosts, tmp_path):
    with Job(hosts, tmp_path, WAIT) as job:
        job.start().up()
        job.kill_rank(5)
        job.gone(WORLD)
        nodes = job.ended()

    verdict = same(nodes)
    culprit = verdict["culprit"]
    assert [node.status for node in nodes] == [137] * 4
    assert (culprit["rank"], culprit["local_rank"], culprit["node"], culprit["pid"]) == (
        5,
        1,
        "host-c",
        job.ranks[5].pid,
    )
    assert (culprit["cause"]["kind"], culprit["cause"]["confidence"]) == ("killed", "proven")
    assert [row["relation"] for row in verdict["ranks"]] == ["stopped"] * 5 + ["culprit"] + ["stopped"] * 2
    assert (verdict["either"], verdict["teardown"]["survivors"]) == ([], [])
    for node in nodes:
        assert node.last_line == (
            f"rankguard: exit 137 killed proven rank=5 node=host-c phase=running run={verdict['run_id']}"
        )


@pytest.mark.slow
def test_what_it_did_to_the_others_is_no_cause(hosts, tmp_path):
    text = (
        MET
        + "links = meet()\nif RANK == 5:\n    tell()\n    os.read(os.open(sys.argv[2], os.O_RDONLY), 1)\n    raise ValueError('shard')\ntogether(links)\n"
    )
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Job(hosts, tmp_path, text) as job:
        job.args = (str(gate),)
        job.start().up()
        with open(gate, "wb", buffering=0) as file:
            file.write(b"!")
        nodes = job.ended()

    verdict = same(nodes)
    culprit = verdict["culprit"]
    assert (culprit["rank"], culprit["node"], culprit["cause"]["kind"]) == (5, "host-c", "exception")
    assert culprit["cause"]["exception"]["type"] == "ValueError"
    assert {row["relation"] for row in verdict["ranks"] if row["rank"] != 5} <= {"stopped", "collateral"}


@pytest.mark.slow
def test_tried_again_on_all_of_them(hosts, tmp_path):
    text = "tell(os.environ['TORCHELASTIC_RESTART_COUNT'])\n"
    text += "if os.environ['TORCHELASTIC_RESTART_COUNT'] == '1': sys.exit(0)\n"
    text += "if RANK != 5: signal.pause()\n"
    text += "os.read(os.open(sys.argv[2], os.O_RDONLY), 1)\nsys.exit(3)\n"
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Job(hosts, tmp_path, text) as job:
        job.args = (str(gate),)
        told = job.start("--max-restarts", "1").tellings(8)
        gate.write_bytes(b"!")  # not before all of the first attempt are there
        told += job.tellings(8)
        nodes = job.ended()

    assert sorted((int(each.words[0]), each.rank) for each in told) == [(n, rank) for n in (0, 1) for rank in WORLD]
    verdict = same(nodes)
    assert (verdict["outcome"], len(verdict["attempts"])) == ("succeeded", 1)
    failed = verdict["attempts"][0]
    assert (failed["rank"], failed["cause"], failed["exit_code"]) == (5, "exit-code", 3)


@pytest.mark.slow
def test_asked_to_end_through_node_0(hosts, tmp_path):
    _asked_to_end(hosts, tmp_path, 0, signal.SIGTERM, 143)


@pytest.mark.slow
def test_asked_to_end_through_another_node(hosts, tmp_path):
    _asked_to_end(hosts, tmp_path, 2, signal.SIGTERM, 143)


@pytest.mark.slow
def test_ctrl_c(hosts, tmp_path):
    _asked_to_end(hosts, tmp_path, 0, signal.SIGINT, 130)


def _asked_to_end(hosts, tmp_path, node, number, status):
    with Job(hosts, tmp_path, "signal.signal(signal.SIGINT, signal.SIG_DFL)\n" + WAIT) as job:
        job.start().up()
        os.killpg(job.fronts[node].pid, number)  # as a terminal does it, or a batch system
        job.gone(WORLD)
        nodes = job.ended()
    verdict = same(nodes)
    assert (verdict["outcome"], verdict["exit_code"], verdict["culprit"]) == ("interrupted", status, None)
    assert verdict["stopped_by"]["signal"] == signal.Signals(number).name


@pytest.mark.slow
def test_the_journal_of_node_0_tells_it_all(hosts, tmp_path):
    with Job(hosts, tmp_path, "tell()\n") as job:
        job.start().tellings(8)
        same(job.ended())
        lines = [json.loads(line) for line in (job.run_dir(0) / "events.jsonl").read_text().splitlines()]
    exited = {line["rank"] for line in lines if line.get("fact") == "Exited"}
    joined = [line for line in lines if line.get("fact") == "NodeJoined"]
    assert exited == set(WORLD)
    assert {line["node"] for line in joined} == {0, 1, 2, 3}
