"""`srun` starts the command once per node: Debian's Slurm, with one slurmd on each host of the rig.

`--node-rank auto` and what else rankguard reads of Slurm's variables; one home for all nodes, as on a cluster with NFS.
"""

import json
from pathlib import Path

import pytest
from tests.nodes import slurm
from tests.nodes.jobs import PORT, TOKEN, WAIT, Job
from tests.nodes.slurm import Slurm

pytestmark = [pytest.mark.slow, pytest.mark.skipif(slurm.why_not() is not None, reason=slurm.why_not() or "")]


@pytest.fixture
def cluster(hosts, tmp_path):
    (tmp_path / "slurm").mkdir()
    with Slurm(hosts[:2], tmp_path / "slurm") as cluster:
        yield cluster


class Step:
    """One `srun` of a job with 2 ranks on each of 2 nodes; `ranks` as a `Job` has them."""

    def __init__(self, job: Job, cluster: Slurm, *options: str, endpoint: bool = True) -> None:
        words = job.words("auto", *options)
        at = words.index("--rdzv-endpoint")
        words[at : at + 2] = ["--rdzv-endpoint", f"{job.hosts[0].name}:{PORT}"] if endpoint else []
        self.home = job.folder / "home"
        self.home.mkdir()
        env = cluster.env(RANKGUARD_HOME=str(self.home), RANKGUARD_TOKEN=TOKEN)
        self._output = job.folder / "output"
        with self._output.open("wb") as file:
            self.srun = cluster.popen(["srun", "-N2", "--unbuffered", "-l", *words], env=env, stdout=file, stderr=file)
        job.fronts[0] = self.srun

    def ended(self, limit: float = 30.0) -> int:
        """The status of `srun`."""
        return int(self.srun.wait(limit))

    @property
    def output(self) -> str:
        """Of both, each line with the number of its task."""
        return self._output.read_text(errors="replace")

    @property
    def verdicts(self) -> list[dict]:
        """Of every run folder in the one home, the agent's of node 0 not counted."""
        return [json.loads(path.read_text()) for path in Path(self.home).glob("*/verdict.json")]


def test_to_the_end(hosts, tmp_path, cluster):
    with Job(hosts[:2], tmp_path, "tell()\n") as job:
        step = Step(job, cluster)
        told = {each.rank: each.host for each in job.tellings(4)}
        assert step.ended() == 0, step.output
    assert told == {0: "host-a", 1: "host-a", 2: "host-b", 3: "host-b"}
    assert [verdict["outcome"] for verdict in step.verdicts] == ["succeeded"] * 2
    assert step.verdicts[0] == step.verdicts[1]


def test_node_0_is_found(hosts, tmp_path, cluster):
    """Without an endpoint: the first node of the allocation."""
    with Job(hosts[:2], tmp_path, "tell()\n") as job:
        step = Step(job, cluster, endpoint=False)
        job.tellings(4)
        assert step.ended() == 0, step.output
    assert [verdict["nodes"] for verdict in step.verdicts] == [["host-a", "host-b"]] * 2


def test_a_rank_is_killed(hosts, tmp_path, cluster):
    with Job(hosts[:2], tmp_path, WAIT) as job:
        step = Step(job, cluster)
        job.up()
        job.kill_rank(3)
        job.gone(range(4))
        assert step.ended() == 137, step.output
    assert [(told["culprit"]["rank"], told["culprit"]["node"]) for told in step.verdicts] == [(3, "host-b")] * 2
    for task in "01":
        assert f"{task}: rankguard: exit 137 killed proven rank=3 node=host-b" in step.output, step.output


def test_scancel(hosts, tmp_path, cluster):
    with Job(hosts[:2], tmp_path, WAIT) as job:
        step = Step(job, cluster)
        job.up()
        cluster.run("scancel", *cluster.run("squeue", "-h", "-o", "%A").split())
        job.gone(range(4))
        assert step.ended() != 0
        cluster.until_idle()
    assert [told["outcome"] for told in step.verdicts] == ["interrupted"] * 2, step.output
