"""The scenarios of PyTorch's own launcher tests: the same words under torchrun and under `rankguard run`, side by side.

docs/torchrun-parity.md has them all, by their names there, with the test that covers each; these are the ones that no
other test of ours plays. What ranks see, option by option, is in `test_parity.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.torch._runs import PATIENCE, PROGRAMS, ROOT

from rankguard.linux.ports import hold_free_port

pytestmark = pytest.mark.torch

SCENARIO = str(ROOT / PROGRAMS / "scenario.py")
SUMS = str(ROOT / PROGRAMS / "sums.py")
LAUNCHERS = {"torchrun": ("torch.distributed.run",), "rankguard": ("rankguard", "run")}
ALIKE = ("--monitor-interval=1", "--start-method=spawn")
"""In each of torch's scenarios; both change nothing for a rank."""


class Launched:
    """One agent of one launcher, ended. `ranks`: number → what it wrote."""

    def __init__(self, which, folder, ended):
        self.which, self.status, self.stdout, self.stderr = which, ended.returncode, ended.stdout, ended.stderr
        self.ranks = {int(path.name): path.read_text() for path in Path(folder).iterdir()}

    @property
    def verdict(self):
        assert self.which == "rankguard"
        return json.loads(subprocess.run(
            [sys.executable, "-m", "rankguard", "report", "--json"], capture_output=True, text=True, check=True
        ).stdout)  # fmt: skip


@pytest.fixture
def launch(tmp_path):
    """`launch(launcher, words, agents=1, env={})` → each agent, ended; FOLDER and PORT in a word are one's own."""

    def start(which, words, agents=1, env=None):
        folder, (port, lock) = tmp_path / which, hold_free_port()
        folder.mkdir(exist_ok=True)
        lock.close()
        words = [str(word).replace("FOLDER", str(folder)).replace("PORT", str(port)) for word in words]
        started = []
        for _ in range(agents):
            started.append(subprocess.Popen(
                [sys.executable, "-m", *LAUNCHERS[which], *words], cwd=tmp_path, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, "SENTINEL": "there", "CUDA_VISIBLE_DEVICES": "", **(env or {})},
            ))  # fmt: skip
        try:
            said = [agent.communicate(timeout=PATIENCE) for agent in started]
        finally:
            for agent in started:
                agent.terminate()  # which has ended, unless it took too long
        return [
            Launched(which, folder, subprocess.CompletedProcess([], agent.returncode, *words))
            for agent, words in zip(started, said, strict=True)
        ]

    return start


@pytest.fixture
def both(launch):
    """`both(*words, agents=1, env={})` → {launcher: as `launch` gives it}."""
    return lambda *words, agents=1, env=None: {which: launch(which, words, agents, env) for which in LAUNCHERS}


def the_same(made, ranks):
    """All went well under both, with as many ranks, and each rank saw the same."""
    for which, agents in made.items():
        assert [agent.status for agent in agents] == [0] * len(agents), (which, [agent.stderr for agent in agents])
    theirs, ours = (agents[0].ranks for agents in made.values())
    assert theirs == ours
    assert sorted(ours) == list(range(ranks))


# ── To the end ───────────────────────────────────────────────────────────────────────────────────────────────────

TO_THE_END = {
    "python": (4, ["--nnodes=1", "--nproc-per-node=4", "--rdzv-id=17", *ALIKE, SCENARIO, "FOLDER"], {}),
    "master-addr and node-rank": (
        2, ["--nnodes=1", "--nproc-per-node=2", *ALIKE, "--master-addr=localhost", "--master-port=PORT", "--node-rank=0",
            SCENARIO, "FOLDER"], {}),
    "bash": (2, ["--nnodes=1", "--nproc-per-node=2", "--rdzv-id=17", *ALIKE, "--no-python", "bash", "-c",
                 f'"{sys.executable}" "$@"', "bash", SCENARIO, "FOLDER"], {}),
    "one unless told": (1, ["--nnodes=1", "--rdzv-id=17", *ALIKE, SCENARIO, "FOLDER"], {}),
    "variables": (
        2, [SCENARIO, "FOLDER"],
        {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2", "PET_RDZV_ID": "17", "PET_MONITOR_INTERVAL": "1",
         "PET_START_METHOD": "spawn", "PET_MODULE": "0"}),
    "auto": (os.cpu_count(), ["--nproc-per-node=auto", "--rdzv-id=17", *ALIKE, SCENARIO, "FOLDER"], {}),
    "standalone": (2, ["--nnodes=1", "--nproc-per-node=2", "--standalone", *ALIKE, SCENARIO, "FOLDER"], {}),
    "run-path, logs-specs": (2, ["--run-path", "--nproc-per-node=2", "--logs_specs=default", *ALIKE, SCENARIO, "FOLDER"], {}),
    "conf in quotes": (
        2, ["--nnodes=1:1", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:PORT",
            "--rdzv-conf='join_timeout=60,last_call_timeout=1,timeout=60'", "--rdzv-id=17", *ALIKE, SCENARIO, "FOLDER"], {}),
}  # fmt: skip


@pytest.mark.parametrize(("ranks", "words", "env"), TO_THE_END.values(), ids=TO_THE_END)
def test_every_rank_ran(both, ranks, words, env):
    the_same(both(*words, env=env), ranks)


def test_two_agents_on_one_machine(both):
    words = ["--nnodes=2", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:PORT"]

    the_same(both(*words, "--rdzv_conf=timeout=60", "--rdzv-id=17", *ALIKE, SCENARIO, "FOLDER", agents=2), 4)


@pytest.mark.parametrize("method", ["env://", "tcp://localhost:PORT"])
def test_ranks_meet_by_an_init_method(both, method):
    """At the very port of MASTER_PORT, which no store of ours holds; torch knows that it was launched."""
    words = ["--nproc-per-node=2", "--master-addr=localhost", "--master-port=PORT", *ALIKE, SUMS, method]

    made = both(*words)

    said = [sorted(line.partition("rank ")[2] for line in made[which][0].stdout.splitlines()) for which in LAUNCHERS]
    assert said[0] == said[1] == [f"{rank}: [1, 1], elastic True" for rank in range(2)], made["rankguard"][0].stderr


def test_two_agents_sum_over_all_ranks(both):
    words = [
        "--nnodes=2",
        "--nproc-per-node=1",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:PORT",
        "--rdzv-id=17",
    ]

    made = both(*words, *ALIKE, SUMS, "env://", agents=2)

    for agents in made.values():
        assert [agent.status for agent in agents] == [0, 0], [agent.stderr for agent in agents]
        said = [line for agent in agents for line in agent.stdout.splitlines()]
        assert sorted(line.partition("rank ")[2] for line in said if "elastic" in line) == [
            f"{rank}: [1, 1], elastic True" for rank in range(2)
        ]


def test_teed_lines_have_the_prefix_that_was_asked_for(both):
    env = {"TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": "[rank${rank}]: "}

    made = both("--nproc-per-node=4", "--redirect=3", "--tee=3", *ALIKE, SCENARIO, "FOLDER", env=env)

    said = [sorted(line for line in made[which][0].stdout.splitlines() if "was here" in line) for which in LAUNCHERS]
    assert said[0] == said[1] == [f"[rank{rank}]: rank {rank} was here" for rank in range(4)]


# ── A rank fails ─────────────────────────────────────────────────────────────────────────────────────────────────

FAILURES = {
    "raise": ("exception", 1),
    "exit-138": ("exit-code", 138),
    "exit-85": ("exit-code", 85),
    "segv": ("crash", 139),
    "killed": ("killed", 137),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_rank_fails(both, how):
    """Under both the job ends and says so; torchrun with 1 in any case, rankguard with what the rank ended with."""
    kind, code = FAILURES[how]

    made = both("--nproc-per-node=2", *ALIKE, SCENARIO, "FOLDER", how, "1")

    [theirs], [ours] = made["torchrun"], made["rankguard"]
    assert (theirs.status, ours.status) == (1, code)
    assert sorted(theirs.ranks) == sorted(ours.ranks) == [0, 1]
    culprit = ours.verdict["culprit"]
    assert (culprit["rank"], culprit["cause"]["kind"], culprit["cause"]["confidence"]) == (1, kind, "proven")


def test_a_rank_of_one_of_two_agents_fails(launch):
    """Both end with it, at once: not beside torchrun, whose other agent would wait for as long as its own rank does."""
    words = [
        "--nnodes=2",
        "--nproc-per-node=1",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:PORT",
        "--rdzv-id=17",
    ]

    agents = launch("rankguard", [*words, *ALIKE, SCENARIO, "FOLDER", "exit-138", "1"], agents=2)

    assert [agent.status for agent in agents] == [138, 138]


# ── What is refused ──────────────────────────────────────────────────────────────────────────────────────────────

REFUSED = {
    "python and module": (["--no-python", "--module", "train"], {}),
    "both by variables": (["train"], {"PET_NO_PYTHON": "1", "PET_MODULE": "1"}),
    "unknown nproc": (["--nproc-per-node=unknown", SCENARIO, "FOLDER"], {}),
    "unknown logs-specs": (["--logs_specs=NOWHERE", SCENARIO, "FOLDER"], {}),
    "three numbers of nodes": (["--nnodes=2:20:30", SCENARIO, "FOLDER"], {}),
    "no such program": (["--no-python", "/nowhere/program"], {}),
}


THEIRS = """
import json, os, sys
from torch.distributed.run import main
for name, (words, env) in json.load(sys.stdin).items():
    os.environ.update(env)
    try:
        main(words)
    except (Exception, SystemExit):
        print("refused:", name)
    for variable in env:
        del os.environ[variable]
"""
"""torch is imported once for all."""


def test_both_refuse(tmp_path, launch):
    words = {
        name: ([word.replace("FOLDER", str(tmp_path)) for word in each], env) for name, (each, env) in REFUSED.items()
    }

    theirs = subprocess.run(
        [sys.executable, "-c", THEIRS], input=json.dumps(words), stdout=subprocess.PIPE, text=True, timeout=PATIENCE,
        env=os.environ | {"SENTINEL": "there"},
    )  # fmt: skip

    assert theirs.stdout.splitlines() == [f"refused: {name}" for name in REFUSED]
    assert [path for path in tmp_path.iterdir() if path.name.isdecimal()] == []
    for each, env in words.values():
        [ours] = launch("rankguard", each, env=env)
        assert (ours.status in (2, 127), ours.stdout) == (True, ""), each
        assert "error: " in ours.stderr
    assert [path for path in tmp_path.iterdir() if path.name.isdecimal()] == []


def test_without_a_launcher_torch_knows_it():
    (port, lock), env = (
        hold_free_port(),
        {name: value for name, value in os.environ.items() if "TORCHELASTIC" not in name},
    )
    with lock:
        said = subprocess.run(
            [sys.executable, SUMS, f"tcp://127.0.0.1:{port}"], capture_output=True, text=True, timeout=PATIENCE,
            env=env | {"RANK": "0", "WORLD_SIZE": "1"},
        )  # fmt: skip
    assert said.stdout == "rank 0: [1], elastic False\n"
