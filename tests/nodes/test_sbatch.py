"""deploy/slurm/job.sbatch, on Debian's Slurm with a slurmd on each of two hosts: only sizes and names are changed in it."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.deploy.manifests import SBATCH
from tests.nodes import slurm
from tests.nodes.slurm import Slurm

pytestmark = [pytest.mark.slow, pytest.mark.skipif(slurm.why_not() is not None, reason=slurm.why_not() or "")]

PROGRAM = """
import os, sys, time
print("argument", sys.argv[1], flush=True)
if os.environ["RANK"] == "3":
    raise ValueError("shards are of different sizes")
time.sleep(1000)
"""


def script(folder: Path) -> Path:
    text = SBATCH[0].read_text()
    for ours, here in (
        ("--nodes=4", "--nodes=2"),
        ("--cpus-per-task=64", "--cpus-per-task=1"),
        ("#SBATCH --gpus-per-node=8\n", ""),
        ("-n 8", "-n 2"),
        ("    train.py", f"    {folder}/train.py"),
        ("rankguard run", f"{sys.executable} -m rankguard run"),
        ("--output=%x-%j.out", f"--output={folder}/output"),
    ):
        assert ours in text
        text = text.replace(ours, here)
    made = folder / "job.sbatch"
    made.write_text(text)
    (folder / "train.py").write_text(PROGRAM)
    return made


def test_the_script_ends_with_the_culprits_class(hosts, tmp_path):
    (tmp_path / "slurm").mkdir()
    with Slurm(hosts[:2], tmp_path / "slurm") as cluster:
        done = cluster.popen(
            ["sbatch", "--wait", str(script(tmp_path))],
            env=cluster.env(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        said, _none = done.communicate(timeout=60)
        output = (tmp_path / "output").read_text()

    assert done.returncode == 80, said + output
    assert "[1:2] argument --resume\n" in output
    assert output.count("rankguard: exit 80 exception proven rank=3 node=host-b") == 2
    assert len(list((tmp_path / "runs").glob("*/verdict.json"))) == 2  # one of each node, in the folder they share
