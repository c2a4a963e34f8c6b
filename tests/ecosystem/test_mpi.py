"""Programs of MPI under Open MPI's `mpirun`, whose daemons put the ranks into process groups of their own; and as ranks.

A program that nobody has started as one of several is a world of its own to MPI (a singleton). Open MPI starts a daemon
for each, which is to go with its rank.
"""

import os
import sys

import pytest
from tests.ecosystem.engine import PROGRAMS, Latencies, program_of, until
from tests.torch._runs import innocent, who

pytest.importorskip("mpi4py")

RANKS = 4
FAKE_SSH = '#!/bin/sh\n# What ssh would do, on this machine: the host\'s name, then a command line for a shell.\nwhile [ "${1#-}" != "$1" ]; do shift; done\nshift\nexec /bin/sh -c "$*"\n'


@pytest.fixture
def mpirun():
    root = ["--allow-run-as-root"] if os.getuid() == 0 else []
    return [program_of("mpirun"), *root, "--oversubscribe", "--mca", "btl", "self,tcp"]


def kill_one(engine, rank):
    """A failure of that rank, whatever it is to `mpirun`; how soon it was told."""
    pids = {int(engine.said(f"rank {each} of {RANKS} is").split()[-1]): each for each in range(RANKS)}
    joined = until("all joined", lambda: len(engine.facts("Joined")) == RANKS and engine.facts("Joined"))
    assert {fact["pid"]: fact["index"] for fact in joined} == pids
    assert {(fact["role"], fact["rule"], fact["may_end"]) for fact in joined} == {("rank", "openmpi", True)}
    pid = next(pid for pid, each in pids.items() if each == rank)
    fact, took = engine.told(pid, engine.kill(pid))
    assert fact["ending"]["signal"] == "SIGKILL"
    assert engine.ended() == 137
    culprit = engine.verdict["culprit"]
    assert (culprit["pid"], culprit["role"], culprit["cause"]["kind"]) == (pid, "rank", "killed")
    return took


def test_a_rank_of_one_machine_is_killed(watch, mpirun):
    latencies = Latencies()
    while latencies.wanting:
        with watch(*mpirun, "-n", str(RANKS), sys.executable, str(PROGRAMS / "mpi.py")) as engine:
            latencies.took.append(kill_one(engine, 2))
            assert "noticed that process rank 2" in engine.stderr  # mpirun's own words
    latencies.check()


def test_a_rank_below_orted_is_killed(watch, mpirun, tmp_path):
    ssh = tmp_path / "ssh"
    ssh.write_text(FAKE_SSH)
    ssh.chmod(0o755)
    # Two daemons on one machine share the names of what Open MPI keeps in shared memory: none of it is used.
    hosts = ["--host", "one:2,two:2", "--mca", "plm_rsh_agent", str(ssh), "--mca", "rtc", "^hwloc"]
    latencies = Latencies()
    while latencies.wanting:
        with watch(*mpirun, *hosts, "-n", str(RANKS), sys.executable, str(PROGRAMS / "mpi.py")) as engine:
            until("orted runs", lambda: engine.processes("orted"))
            latencies.took.append(kill_one(engine, 3))
    latencies.check()


# ── Ranks that use MPI each for itself ───────────────────────────────────────────────────────────────────────────


def test_singletons_to_the_end(run):
    with run(3, PROGRAMS / "mpi_singleton.py", "end") as job:
        verdict = job.end()

    assert (job.status, verdict["outcome"]) == (0, "succeeded"), job.stderr()
    assert sorted(line.partition(", ")[2] for line in job.output) == [f"0 of 1 to MPI: sum {n}" for n in range(3)]


def test_a_singleton_is_killed(run):
    with run(3, PROGRAMS / "mpi_singleton.py", "wait") as job:
        for _ in range(3):
            job.until("to MPI")
        job.kill(1)
        verdict = job.end()

    assert who(verdict) == (1, "killed", "operator", "proven", 137)
    assert innocent(verdict)
