"""Ray places the agents: one a node, with what they asked for; whatever ends, their pipe ends, and they end with it."""

import json
import os
import subprocess
import sys

import pytest
from tests.ray.conftest import LIMIT, RAY, kill, line_of, parent


def test_a_job_to_its_end(place, raylets, wait_for_exit):
    job = place(spec={"cwd": "/"})
    agents = job.placed()
    assert [len(agent["ranks"]) for agent in agents] == [2, 2, 2]
    assert len({agent["worker"] for agent in agents}) == 3
    assert all(agent["host"] == raylets.address.split(":")[0] for agent in agents)  # as Ray knows this machine
    assert all(agent["name"] == os.uname().nodename for agent in agents)
    assert {agent["score"] for agent in agents} == {_score(pid) for pid in raylets.pids}  # not the 1000 of a worker
    assert all((agent["run_dir"], agent["cwd"]) == (None, "/") for agent in agents)
    job.let_end()
    ended = sorted((job.next()["ended"] for _ in agents), key=lambda one: one["node"])
    assert ended == [{"node": node, "status": 0, "said": "the stand-in ends"} for node in range(3)]
    assert job.process.wait(LIMIT) == 0
    for agent in agents:
        wait_for_exit(agent["worker"])  # the actor's place is free again


def test_the_environment_is_the_jobs_own(place):
    """Nothing of Ray's worker: a rank may be a Ray driver itself, and has its own idea of OMP_NUM_THREADS."""
    job = place(env={"OMP_NUM_THREADS": "7", "MINE": "1", "RAY_JOB_ID": "of a worker that runs the command"})
    for agent in job.placed():
        of_worker = [name for name in agent["environ"] if name.startswith("RAY_") and name not in os.environ]
        assert (of_worker, "PYTHONBREAKPOINT" in agent["environ"]) == ([], False)
        assert {**agent["environ"], "PWD": ""} == {**agent["environ"], **agent["env"], "PWD": ""}  # a shell's own
        assert (agent["env"]["OMP_NUM_THREADS"], agent["env"]["MINE"]) == ("7", "1")
        assert agent["env"].get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_gpus_are_those_that_ray_has_assigned(place):
    first = place(
        count=1, settings={"resources": '{"GPU": 3, "CPU": 1}'}, env={"CUDA_VISIBLE_DEVICES": "of-the-coordinator"}
    )
    second = place(count=1, settings={"resources": '{"CPU": 1, "GPU": 1}'})
    seen = [job.placed(1)[0]["env"]["CUDA_VISIBLE_DEVICES"].split(",") for job in (first, second)]
    assert [len(each) for each in seen] == [3, 1]
    assert sorted(seen[0] + seen[1]) == ["0", "1", "2", "3"]


def test_a_rank_is_killed(place):
    """That agent's business, and its exit status."""
    job = place()
    agents = job.placed()
    kill(agents[1]["ranks"][0])
    assert job.next()["ended"] == {"node": 1, "status": 137, "said": "the stand-in ends"}
    job.let_end()
    assert {job.next()["ended"]["node"] for _ in range(2)} == {0, 2}
    assert job.process.wait(LIMIT) == 0


def test_an_actor_is_killed(place, wait_for_exit):
    """As Ray's memory monitor does it: the agent's stdin ends, and its ranks with it."""
    job = place()
    agents = job.placed()
    kill(agents[2]["worker"])
    for pid in (*agents[2]["ranks"], agents[2]["pid"]):
        wait_for_exit(pid, LIMIT)
    lost = job.next()["lost"]
    assert lost["node"] == 2
    assert "died" in lost["why"], lost
    job.let_end()
    assert {job.next()["ended"]["node"] for _ in range(2)} == {0, 1}
    assert job.process.wait(LIMIT) == 0


def test_a_raylet_is_killed(place, raylets, wait_for_exit):
    """Its workers see it gone and end, and so does our actor."""
    job = place()
    agents = job.placed()
    victim = raylets.pids[2]  # of the one with the GPUs: any but the head's
    (lost,) = [agent for agent in agents if parent(agent["worker"]) == victim]
    kill(victim)
    for pid in (*lost["ranks"], lost["pid"], lost["worker"]):
        wait_for_exit(pid, LIMIT)
    assert job.next()["lost"]["node"] == lost["node"]
    job.let_end()
    assert {job.next()["ended"]["node"] for _ in range(2)} == {0, 1, 2} - {lost["node"]}
    assert job.process.wait(LIMIT) == 0
    raylets.replace(victim, 4)


@pytest.mark.parametrize("how", ["killed", "stdin ends"])
def test_whoever_placed_them_is_gone(place, how, wait_for_exit):
    job = place()
    agents = job.placed()
    if how == "killed":
        kill(job.process.pid)
    else:
        job.process.stdin.close()
    for pid in (*job.everybody(), *(agent["worker"] for agent in agents)):
        wait_for_exit(pid, LIMIT)
    assert job.process.wait(LIMIT) == (-9 if how == "killed" else 0)
    again = place()  # nothing of the cluster is held: all places are free
    again.placed()


def test_what_is_waited_for_is_said(place):
    first = place()
    first.placed()
    second = place(settings={"resources": '{"CPU": 1, "GPU": 2}'}, count=2)
    told = line_of(second.process.stdout)["told"]
    while told.startswith("no answer"):  # on a busy machine
        told = line_of(second.process.stdout)["told"]
    waits = "bundles 0-1 of 2 wait for {CPU: 1, GPU: 2} on a node of its own: alive nodes have free "
    assert told.startswith(waits)
    # At least: for Ray a node that an earlier test has killed may be alive for a while.
    assert told.count("CPU 0 of 2, no GPU") >= 2
    assert told.count("CPU 0 of 2, GPU 4 of 4") >= 1


def test_a_folder_that_the_node_does_not_have(place):
    job = place(spec={"cwd": "/no/such/folder"})
    failed = job.next()
    assert failed == {
        "failed": f"there is no folder `/no/such/folder` on {os.uname().nodename}",
        "hint": "have the program at one path on every node: a shared file system, the image, or `ray job submit --working-dir .`",
    }
    assert job.process.wait(LIMIT) == 1


def test_no_cluster_there(place):
    job = place(address="127.0.0.1:1", join_timeout=1.2)
    failed = line_of(job.process.stdout)
    assert failed["failed"] == "Ray has not placed all agents within 1.2 s: no answer from Ray at `127.0.0.1:1` yet"
    assert job.process.wait(LIMIT) == 1


def test_an_address_of_ray_client(place):
    job = place(address="ray://127.0.0.1:10001")
    failed = job.next()
    assert failed["failed"].startswith("`ray://127.0.0.1:10001` is an address of Ray Client: expected"), failed
    assert job.process.wait(LIMIT) == 1


def test_the_coordinator_goes_while_it_is_waited_for(place):
    job = place(count=9)
    assert "bundles 3-8 of 9 wait" in iter(lambda: line_of(job.process.stdout)["told"][:21], "")
    job.process.stdin.close()
    assert job.process.wait(LIMIT) == 0


def test_from_a_program_that_is_a_driver_itself(raylets):
    """`launch(on="ray")` after `ray.init`: the cluster is the program's own."""
    script = (
        "import json, sys, ray\n"
        "from rankguard.nodes.rayplace import address_of_this_process as ours\n"
        "print(json.dumps(ours()))\n"
        "ray.init(sys.argv[1], logging_level='ERROR')\n"
        "print(json.dumps(ours()))"
    )
    words = [sys.executable, "-c", script, raylets.address]
    told = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **RAY}, check=True).stdout
    assert [json.loads(line) for line in told.splitlines()] == [None, raylets.address]


def _score(pid: int) -> str:
    with open(f"/proc/{pid}/oom_score_adj") as score:
        return score.read()
