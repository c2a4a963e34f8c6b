"""`rankguard run --on ray` for real: agents, ranks and verdicts of three nodes that Ray has given."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.ray.conftest import LIMIT, RAY, kill, line_of, parent

PROGRAM = Path(__file__).parent / "programs.py"
NODES, RANKS = 3, 6


class Run:
    """One job. Its verdict is on stdout, what it says on stderr."""

    def __init__(self, folder: Path, address: str, *words: str) -> None:
        self.folder = folder
        for name in ("journal", "end"):
            os.mkfifo(folder / name)
        self.journal = open(os.open(folder / "journal", os.O_RDWR), "rb", buffering=0)  # noqa: SIM115
        self.end = os.open(folder / "end", os.O_RDWR)
        self.home = folder / "home"
        env = {**os.environ, **RAY, "JOURNAL": str(folder / "journal"), "END": str(folder / "end")}
        options = ["run", "--on", "ray", "--nnodes", "3", "--nproc-per-node", "2", "--report", "json", "--grace", "2"]
        options += ["--ready-timeout", str(LIMIT)]
        with (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rankguard", *options, *words, str(PROGRAM)],
                stdout=subprocess.PIPE, stderr=err, cwd=folder,
                env={**env, "RAY_ADDRESS": address, "RANKGUARD_HOME": str(self.home)},
            )  # fmt: skip
        self.ranks: list[dict] = []

    def started(self) -> list[dict]:
        """What each rank says of itself, once all have."""
        self.ranks = sorted((line_of(self.journal) for _ in range(RANKS)), key=lambda rank: int(rank["env"]["RANK"]))
        return self.ranks

    def holder(self, rank: int) -> int:
        """The actor's process of that rank's node."""
        pid = self.ranks[rank]["pid"]
        while not _title(pid).startswith("ray::"):
            pid = parent(pid)
        return pid

    def child(self, words: str) -> int:
        """One of the job's own processes on the coordinator's side."""
        with os.scandir("/proc") as every:
            pids = [int(entry.name) for entry in every if entry.name.isdigit()]
        (found,) = [pid for pid in pids if words in _title(pid) and self.process.pid in _above(pid)]
        return found

    def verdict(self) -> tuple[int, dict]:
        out, _ = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, json.loads(out)

    def said(self) -> str:
        return (self.folder / "err").read_text()

    def verdicts_of_nodes(self) -> list[dict]:
        return [json.loads(path.read_text()) for path in sorted(self.home.glob("**/*-node-*/verdict.json"))]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.journal.close()
        os.close(self.end)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def _above(pid: int) -> list[int]:
    found = []
    try:
        while pid > 1:
            pid = parent(pid)
            found.append(pid)
    except OSError:
        pass
    return found


@pytest.fixture
def run(tmp_path, raylets, wait_for_exit):
    started = []

    def start(*words):
        started.append(Run(tmp_path, raylets.address, *words))
        return started[-1]

    yield start
    for job in started:
        job.close()
        for rank in job.ranks:
            wait_for_exit(rank["pid"], LIMIT)


def test_to_its_end(run):
    job = run()
    ranks = job.started()
    host = ranks[0]["env"]["MASTER_ADDR"]
    assert [
        tuple(rank["env"][name] for name in ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE")) for rank in ranks
    ] == [(str(rank), str(rank % 2), str(rank // 2), "6") for rank in range(RANKS)]
    assert not host.startswith("127.")
    assert len({(rank["env"]["MASTER_ADDR"], rank["env"]["MASTER_PORT"], rank["cwd"]) for rank in ranks}) == 1
    os.write(job.end, b"." * RANKS)
    status, verdict = job.verdict()
    assert (status, verdict["outcome"], verdict["world_size"]) == (0, "succeeded", RANKS)
    assert [(one["rank"], one["relation"]) for one in verdict["ranks"]] == [(rank, "finished") for rank in range(RANKS)]
    assert {line for line in job.said().splitlines() if "of 6" in line and line.startswith("[")} == {
        f"[{rank // 2}:{rank}] rank {rank} of 6" for rank in range(RANKS)
    }
    assert [one["outcome"] for one in job.verdicts_of_nodes()] == ["succeeded"] * NODES


def test_a_rank_is_killed(run, wait_for_exit):
    job = run()
    ranks = job.started()
    kill(ranks[5]["pid"])
    status, verdict = job.verdict()
    assert (status, verdict["culprit"]["rank"], verdict["culprit"]["cause"]["kind"]) == (137, 5, "killed")
    for rank in ranks:
        wait_for_exit(rank["pid"], 1)
    each = [(one["outcome"], one["culprit"]["rank"], one["statement"]) for one in job.verdicts_of_nodes()]
    assert each == [("failed", 5, verdict["statement"])] * NODES


@pytest.mark.parametrize("what", ["actor", "raylet"])
def test_ray_loses_a_node(run, raylets, wait_for_exit, what):
    job = run()
    ranks = job.started()
    actor = job.holder(4)
    raylet = parent(actor)
    if raylet == raylets.pids[0]:  # the head's: another one
        actor = job.holder(2)
        raylet = parent(actor)
    kill(actor if what == "actor" else raylet)
    status, verdict = job.verdict()
    for rank in ranks:
        wait_for_exit(rank["pid"], LIMIT)
    assert (status, verdict["outcome"], verdict["culprit"]["cause"]["kind"]) == (1, "failed", "node-lost")
    why = "Ray ended the actor that held its agent" if what == "actor" else "the raylet of this node has ended"
    assert why in verdict["statement"]
    if what == "raylet":
        wait_for_exit(actor, LIMIT)
        raylets.replace(raylet, 4 if raylet == raylets.pids[-1] else 0)


def test_ray_loses_the_only_node(run):
    """The program that asked Ray for it then has nothing left to keep, and ends: that is not the reason."""
    job = run("--nnodes", "1", "--nproc-per-node", "6", "--resources", "CPU=1")
    job.started()
    kill(job.holder(0))
    status, verdict = job.verdict()
    assert (status, verdict["culprit"]["cause"]["kind"]) == (1, "node-lost")
    assert "Ray ended the actor that held its agent" in verdict["statement"]


def test_a_raylet_that_is_stopped_is_none_of_our_business(run, raylets):
    """Ray calls its node dead after a minute; the ranks need nothing of it."""
    job = run()
    job.started()
    raylet = next(pid for pid in (parent(job.holder(rank)) for rank in (0, 2, 4)) if pid != raylets.pids[0])
    os.kill(raylet, signal.SIGSTOP)
    try:
        os.write(job.end, b"." * RANKS)
        status, verdict = job.verdict()
    finally:
        os.kill(raylet, signal.SIGCONT)
    assert (status, verdict["outcome"]) == (0, "succeeded")


def test_the_command_is_killed(run, wait_for_exit):
    job = run()
    ranks = job.started()
    actors = {job.holder(rank) for rank in (0, 2, 4)}
    kill(job.process.pid)
    for pid in (*(rank["pid"] for rank in ranks), *actors):
        wait_for_exit(pid, LIMIT)


def test_the_placing_program_is_killed(run, wait_for_exit):
    job = run()
    ranks = job.started()
    kill(job.child("rankguard.nodes.rayplace"))
    status, verdict = job.verdict()
    for rank in ranks:
        wait_for_exit(rank["pid"], LIMIT)
    assert (status, verdict["outcome"]) == (143, "interrupted")
    assert "the program that has Ray place the agents has ended" in verdict["statement"]


def test_somebody_asks_for_the_end(run, wait_for_exit):
    job = run()
    ranks = job.started()
    job.process.terminate()
    status, verdict = job.verdict()
    for rank in ranks:
        wait_for_exit(rank["pid"], 1)
    assert (status, verdict["outcome"], verdict["culprit"]) == (143, "interrupted", None)


def test_nodes_with_gpus_that_are_not_there(run):
    job = run("--resources", "GPU=4,CPU=1", "--join-timeout", "15")
    status, verdict = job.verdict()
    waits = "bundles 1-2 of 3 wait for {CPU: 1, GPU: 4} on a node of its own"
    assert (status, verdict["culprit"]["cause"]["kind"]) == (1, "node-lost")
    assert f"rankguard: {waits}: alive nodes have free " in job.said()
    assert verdict["statement"] == f"Ray has not placed all agents within 15 s: {waits}"
    (proof,) = verdict["culprit"]["cause"]["evidence"]
    assert (proof["source"], proof["statement"].count("CPU 2 of 2, no GPU")) == ("ray", 2)
    assert verdict["hints"] == ["--nnodes 1, or 2 more such nodes"]


def test_ranks_see_the_gpus_that_ray_has_assigned(run):
    job = run("--nnodes", "1", "--nproc-per-node", "6", "--resources", "GPU=4,CPU=1")
    seen = {rank["env"]["CUDA_VISIBLE_DEVICES"] for rank in job.started()}
    os.write(job.end, b"." * RANKS)
    assert seen == {"0,1,2,3"}
    assert job.verdict()[0] == 0
