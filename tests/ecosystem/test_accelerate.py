"""Hugging Face's accelerate: its own test script as ranks, and its launcher under watch."""

import os
import sys

import pytest
from tests.ecosystem.engine import PROGRAMS, Latencies, program_of, until
from tests.torch._runs import innocent, who

from rankguard.linux.ports import hold_free_port

pytest.importorskip("torch")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.usefixtures("orderly")

OWN = ("-m", "accelerate.test_utils.scripts.test_script")
"""What `accelerate test` runs."""
RANKS = 2


@pytest.fixture
def env(tmp_path):
    return {"ACCELERATE_USE_CPU": "true", "HF_HOME": str(tmp_path / "hf")}


def test_its_own_script_to_the_end(run, env):
    with run(RANKS, *OWN, env=env) as job:
        verdict = job.end()

    assert (job.status, verdict["outcome"]) == (0, "succeeded"), job.stderr()
    said = "\n".join(job.output)
    assert said.count(f"Num processes: {RANKS}") == RANKS  # one group, not two groups of one
    assert "Training yielded the same results on one CPU or distributed setup with batch split." in said


def test_a_rank_of_its_own_script_is_killed(run, env):
    with run(RANKS, *OWN, env=env) as job:
        job.until("**DataLoader integration test**")
        job.kill(1)
        verdict = job.end()

    assert who(verdict) == (1, "killed", "operator", "proven", 137)
    assert innocent(verdict)


@pytest.mark.parametrize("way", ["torch", "mpirun"])
def test_a_rank_of_its_own_launcher_is_killed(watch, env, tmp_path, way):
    """`accelerate launch` has torch's elastic agent in its own process; on CPUs it calls mpirun."""
    port, lock = hold_free_port()  # its own would be 29500, whoever has that
    lock.close()
    words = ["--num_processes", str(RANKS), "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    words += ["--main_process_port", str(port)]
    rule = {"torch": "torchrun", "mpirun": "openmpi"}[way]
    if way == "mpirun":
        program_of("mpirun")
        (tmp_path / "hosts").write_text(f"localhost slots={RANKS}\n")
        words += ["--cpu", "--mpirun_hostfile", str(tmp_path / "hosts")]
        env |= {"OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none"}
        if os.getuid() == 0:
            env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    else:
        words += ["--multi_gpu"]
    command = (sys.executable, "-m", "accelerate.commands.launch", *words, str(PROGRAMS / "accelerate_fit.py"))
    latencies = Latencies()
    while latencies.wanting:
        with watch(*command, env=env, options=("--settle", "2")) as engine:
            pids = {int(engine.said(f"rank {n} of {RANKS} is").split()[-1]): n for n in range(RANKS)}
            joined = until("all joined", lambda: len(engine.facts("Joined")) == RANKS and engine.facts("Joined"))
            assert {fact["pid"]: fact["index"] for fact in joined} == pids
            assert {fact["rule"] for fact in joined} == {rule}
            pid = next(pid for pid, rank in pids.items() if rank == 1)

            latencies.took.append(engine.falls_with(pid))
    latencies.check()
