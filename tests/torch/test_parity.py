"""torchrun itself beside `rankguard run` with the same words: what the ranks see, print and leave must be the same.

Every option of torch 2.13's parser is in our table, and stands in at least one of the launches below or is told why
not (`COVERED_ELSEWHERE`). What may differ is listed in `DIFFERS`, as in docs/from-torchrun.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rankguard.cli.arguments import parse
from rankguard.cli.options import BY_FIELD, ELSEWHERE, OPTIONS
from rankguard.cli.plan import plan
from rankguard.errors import UsageError
from rankguard.linux import numa
from rankguard.linux.ports import hold_free_port

pytestmark = pytest.mark.torch

PATIENCE = 300
OURS = {"NOTIFY_SOCKET", "RANKGUARD_RUN_ID", "RANKGUARD_RUN_DIR", "RANKGUARD_HOME", "PYTHONUNBUFFERED"}
DIFFERS = OURS | {"TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_ERROR_FILE", "SAID"}
CHOSEN = {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"}
"""By the launcher, unless they are given."""
SAY = """\
import json, os, sys
rank = os.environ["RANK"]
with open(f"{os.environ['SAID']}/{rank}", "w") as file:
    json.dump({"argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "name": __name__, "path": sys.path[0],
               "through": sys.stdout.write_through, "python": sys.executable}, file)
for line in ("apple", "an orange", "pear"):
    sys.stdout.write(f"{line} of {rank}\\n")
    sys.stderr.write(f"{line} of {rank}, to stderr\\n")
sys.exit(int(sys.argv[1]) if sys.argv[1:2] == [rank] else 0)
"""
SAY_SH = """\
#!/bin/sh
python3 - "$@" <<'END'
import json, os, sys
json.dump({"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}, open(os.environ["SAID"] + "/" + os.environ["RANK"], "w"))
END
echo "plain of $RANK"
"""


class Launched:
    """One launch: what each rank said of itself, the lines of both streams that are theirs, the exit status, the files."""

    def __init__(self, which, folder, words, env):
        said, self.logs = folder / f"{which}-said", folder / f"{which}-logs"
        said.mkdir()
        launcher = {"torchrun": ["torch.distributed.run"], "rankguard": ["rankguard", "run"]}[which]
        base = {name: os.environ[name] for name in ("PATH", "RANKGUARD_HOME")} | {
            "HOME": str(folder),
            "SAID": str(said),
        }
        words = [word.replace("LOGS", str(self.logs)) for word in words]
        ended = subprocess.run(
            [sys.executable, "-m", *launcher, *words],
            cwd=folder, env=base | env, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.status, self.raw = ended.returncode, (ended.stdout, ended.stderr)
        self.ranks = {int(path.name): json.loads(path.read_text()) for path in said.iterdir()}
        self.shown = [sorted(filter(None, map(rank_line, text.splitlines()))) for text in self.raw]

    def env(self, given):
        """Each rank's environment, without what may differ."""
        hidden = DIFFERS if given else DIFFERS | CHOSEN
        return {r: {k: v for k, v in said["env"].items() if k not in hidden} for r, said in self.ranks.items()}

    def seen(self, *, path=True):
        """Each rank's other words."""
        return {
            r: {k: v for k, v in said.items() if k != "env" and (path or k != "path")} for r, said in self.ranks.items()
        }

    def files(self, pattern):
        """Rank → text of its log file."""
        return {rank_of(path): path.read_text() for path in self.logs.rglob(pattern) if path.stat().st_size}


def rank_line(text):
    found = re.fullmatch(r"(?:\[\S+\]:? ?|<\S+> )?((?:apple|an orange|pear|plain) of \d.*)", text)
    return found[1] if found else None


def rank_of(path):
    """`…/attempt_0/1/stdout.log` or `…/rank-1/attempt-0/stdout.log`."""
    found = re.search(r"/rank-(\d+)/attempt-0/|/attempt_0/(\d+)/", str(path))
    return int(found[1] or found[2])


@pytest.fixture
def both(tmp_path):
    """`both(*words)` → (torchrun, rankguard): the same words, in the same folder, with the same small environment."""
    (tmp_path / "say.py").write_text(SAY)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text("")
    (tmp_path / "pkg/say.py").write_text(SAY)
    (tmp_path / "say.sh").write_text(SAY_SH)
    (tmp_path / "say.sh").chmod(0o755)

    def launch(*words, env=None):
        made = [Launched(which, tmp_path, words, env or {}) for which in ("torchrun", "rankguard")]
        for one in made:
            assert one.ranks, one.raw[1][-3000:]
        return made

    return launch


def free_port():
    """One that no outgoing connection takes, since it is below those."""
    port, lock = hold_free_port()
    lock.close()
    return str(port)


# ── Launches ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_by_default(both):
    """No option but the number; all that a rank sees, and `${local_rank}` in its arguments."""
    theirs, ours = both("--nproc_per_node", "2", "say.py", "9", "--rank=${local_rank}", "", "a b")

    assert (theirs.status, ours.status) == (0, 0)
    assert ours.env(given=False) == theirs.env(given=False)
    assert ours.seen() == theirs.seen()
    assert ours.shown == theirs.shown
    assert set(ours.ranks[0]["env"]) - OURS == set(theirs.ranks[0]["env"]) - OURS


def test_everything_that_is_told(both):
    """static rendezvous with a given endpoint, and all options that change nothing for a rank."""
    words = [
        "--nnodes=1:1", "--node-rank", "0", "--nproc-per-node=2", "--rdzv-backend=static", "--rdzv_id", "job 7",
        "--rdzv-conf", "timeout=60", "--max-restarts", "2", "--monitor_interval=0.05", "--start-method", "spawn",
        "--event-log-handler", "null", "--role", "trainer", "--signals-to-handle", "SIGTERM,SIGUSR1",
        "--shutdown-timeout", "7", "--logs-specs", "default", "--log-dir", "LOGS",
    ]  # fmt: skip

    port = free_port()
    theirs, ours = both(*words, "--rdzv-endpoint", f"127.0.0.1:{port}", "say.py")

    assert (theirs.status, ours.status) == (0, 0)
    assert ours.env(given=True) == theirs.env(given=True)
    told = ours.ranks[1]["env"]
    assert (told["MASTER_PORT"], told["TORCHELASTIC_RUN_ID"], told["TORCHELASTIC_MAX_RESTARTS"]) == (port, "job 7", "2")
    assert ours.seen() == theirs.seen()


def test_master_address_and_port_and_another_python(both, tmp_path):
    (tmp_path / "mine").write_text(f'#!/bin/sh\nMINE=1 exec {sys.executable} "$@"\n')
    (tmp_path / "mine").chmod(0o755)
    words = ("--master_addr", "127.0.0.1", f"--master-port={(port := free_port())}", "--rdzv-id=x")

    theirs, ours = both(*words, "say.py", env={"PYTHON_EXEC": str(tmp_path / "mine")})

    assert ours.ranks[0]["env"]["MINE"] == "1"
    assert ours.env(given=True) == theirs.env(given=True)
    assert ours.ranks[0]["env"]["MASTER_PORT"] == port
    assert "OMP_NUM_THREADS" not in ours.ranks[0]["env"]


def test_a_module_and_variables(both):
    """`-m`, `--standalone`, PET_*, `--local-addr`; what the user set stays."""
    env = {
        "PET_NPROC_PER_NODE": "2", "PET_STANDALONE": "1", "PET_LOCAL_ADDR": "127.0.0.5", "PET_ROLE": "from-pet",
        "PET_NO_PYTHON": "0", "OMP_NUM_THREADS": "3", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
        "CUDA_VISIBLE_DEVICES": "5,6", "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGXCPU", "LOCAL_RANK": "77",
    }  # fmt: skip

    theirs, ours = both("-m", "pkg.say", "9", "-m", env=env)

    assert ours.env(given=False) == theirs.env(given=False)
    assert ours.seen() == theirs.seen()
    assert [run.ranks[0]["env"]["MASTER_ADDR"] for run in (theirs, ours)] == ["127.0.0.5", "127.0.0.5"]


def test_a_program_as_it_is(both):
    theirs, ours = both("--no-python", "--nproc-per-node=2", "./say.sh", "--x", "${local_rank}")

    assert ours.env(given=False) == theirs.env(given=False)
    assert ours.seen() == theirs.seen()
    assert ours.shown == theirs.shown == [["plain of 0", "plain of 1"], []]


def test_run_path(both, tmp_path):
    """Runs in a process of its own here; `sys.path[0]` is the program's folder, as under `python`."""
    theirs, ours = both("--run-path", "--nproc-per-node=2", f"{tmp_path}/say.py", "9")

    assert (theirs.status, ours.status) == (0, 0)
    assert ours.env(given=False) == {
        r: {k: v for k, v in env.items() if not k.startswith("KMP_")} for r, env in theirs.env(given=False).items()
    }
    of = [{r: (said["argv"], said["name"], said["cwd"]) for r, said in run.ranks.items()} for run in (theirs, ours)]
    assert of[0] == of[1]


def test_each_rank_its_own_gpu(both):
    env = {"CUDA_VISIBLE_DEVICES": "3, GPU-1f,0"}

    theirs, ours = both("--virtual-local-rank", "--nproc-per-node=2", "say.py", "9", "${local_rank}", env=env)

    assert ours.env(given=False) == theirs.env(given=False)
    assert [ours.ranks[r]["env"]["CUDA_VISIBLE_DEVICES"] for r in (0, 1)] == ["3", "GPU-1f"]
    assert [ours.ranks[r]["argv"][2] for r in (0, 1)] == ["0", "1"]


def test_too_few_gpus_are_refused_by_both(both):
    env = {"CUDA_VISIBLE_DEVICES": "3"}

    with pytest.raises(AssertionError, match="exceeds available GPUs"):
        both("--virtual-local-rank", "--nproc-per-node=2", "say.py", env=env)
    with pytest.raises(UsageError, match="expected 2 GPUs"):
        list(machine_near("--virtual-local-rank", 2, env))


def machine_near(option, nprocs, env):
    from rankguard.cli.machine import near

    return near(parse([option, "x"], {}), nprocs, env)


@pytest.mark.parametrize(
    "words",
    [
        ["--redirects", "0:3,2:1", "-t", "1:2"],
        ["--redirect=1", "--tee", "2", "--local-ranks-filter", "0,2"],
        ["--local_ranks_filter=1,2", "-r3", "-t", "0:3,1:1"],
    ],
    ids=" ".join,
)
def test_what_is_shown_and_what_is_kept(both, words):
    theirs, ours = both("--nproc-per-node", "3", "--log-dir", "LOGS", *words, "say.py", "9")

    assert ours.shown == theirs.shown
    for name in ("stdout.log", "stderr.log"):
        kept = ours.files(name)
        assert sorted(kept) == [0, 1, 2]  # files in any case
        assert {rank: kept[rank] for rank in theirs.files(name)} == theirs.files(name)


def test_filters_and_the_prefix(both):
    words = ["--duplicate-stdout-filters", "apple,ora,,nge,nge", "--duplicate_stderr_filters=pear", "--tee", "3"]
    env = {"TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": "<${role_name}:${local_rank}/${rank}> "}

    theirs, ours = both("--nproc-per-node", "2", "--log-dir=LOGS", "--role", "r", *words, "say.py", "9", env=env)

    prefixed = [sorted(line for line in run.raw[0].splitlines() if " of " in line) for run in (theirs, ours)]
    assert prefixed[0] == prefixed[1]
    assert "<r:1/1> pear of 1" in prefixed[1]
    filtered = [
        {name: sorted(without_prefix(run.logs, name)) for name in ("filtered_stdout.log", "filtered_stderr.log")}
        for run in (theirs, ours)
    ]
    assert filtered[0] == filtered[1]
    assert len(filtered[1]["filtered_stdout.log"]) == 4


def without_prefix(logs, name):
    (file,) = logs.rglob(name)
    return [rank_line(line) or line for line in file.read_text().splitlines()]


def test_a_rank_that_fails(both):
    theirs, ours = both("--nproc-per-node", "2", "say.py", "1")

    assert (theirs.status, ours.status) == (1, 1)
    assert "rank=1" in ours.raw[1]


# ── The parser ───────────────────────────────────────────────────────────────────────────────────────────────────


def torch_options():
    """Option → its names, of torch's own parser."""
    from torch.distributed.run import get_args_parser

    return [action for action in get_args_parser()._actions if action.option_strings and action.dest != "help"]


SAMPLES = {"nnodes": "1", "nproc_per_node": "2", "rdzv_endpoint": "h:1", "logs_specs": "default", "role": "x",
           "signals_to_handle": "SIGTERM", "master_addr": "h", "local_addr": "h", "rdzv_backend": "c10d",
           "local_ranks_filter": "0", "numa_binding": "node", "start_method": "fork"}  # fmt: skip
COVERED_ELSEWHERE = {
    "--numa-binding": "torchrun needs numactl and a GPU for it: see the tests below, and tests/run",
}


def test_every_option_is_in_our_table():
    assert {action.dest for action in torch_options()} == {
        option.field for option in OPTIONS if option.torchrun is not None and option.since is None
    }


def test_defaults_are_as_our_table_says():
    assert {action.dest: action.default for action in torch_options()} == {
        option.field: option.theirs for option in OPTIONS if option.torchrun is not None and option.since is None
    }


def test_choices_and_variables_are_the_same(monkeypatch):
    assert {action.dest: tuple(action.choices) for action in torch_options() if action.choices} == {
        option.field: option.choices for option in OPTIONS if option.torchrun is not None and option.choices
    }
    for action in torch_options():
        monkeypatch.setenv(f"PET_{action.dest.upper()}", "1")
    read = {action.dest for action in torch_options() if action.default in ("1", True)}
    assert read == {option.field for option in OPTIONS if option.pet and option.since is None}


def test_every_name_is_accepted():
    for action in torch_options():
        for name in action.option_strings:
            value = [] if action.nargs == 0 else [SAMPLES.get(action.dest, "1")]
            assert parse([name, *value, "x"], {}).given == {action.dest}, name


@pytest.mark.parametrize(
    "words", [["--nnodes", "2:4"], ["--node-rank", "1"], ["--rdzv-backend", "etcd"], ["--logs-specs", "mine"]]
)
def test_what_is_refused_is_said_to_be(words):
    with pytest.raises(UsageError) as refused:
        plan(parse([*words, "x"], {}))

    assert refused.value.hint
    assert "refused" in BY_FIELD[words[0][2:].replace("-", "_")].torchrun


def test_every_abbreviation_that_torch_knows_means_the_same():
    """An option in full of ours goes before (`--start`, `--report`): argparse has no such names to ask."""
    actions = torch_options()
    ours = {option.name for option in OPTIONS}
    wrong = []
    for action in actions:
        for name in action.option_strings:
            for end in range(3, len(name)):
                meant = {a.dest for a in actions for other in a.option_strings if other.startswith(name[:end])}
                if len(meant) > 1 or not name.startswith("--") or name[:end].replace("_", "-") in ours:
                    continue
                value = [] if action.nargs == 0 else [SAMPLES.get(action.dest, "1")]
                if parse([name[:end], *value, "x"], {}).given != meant:
                    wrong.append(name[:end])
    assert wrong == []


def test_what_torch_does_not_know_is_ours_alone():
    """A name of ours never means another thing there, but for an abbreviation of theirs."""
    from torch.distributed.run import get_args_parser

    parser = get_args_parser()
    theirs = {name for action in parser._actions for name in action.option_strings}
    assert [option.name for option in OPTIONS if option.torchrun is None and option.name in theirs] == []
    assert [name for name in ELSEWHERE if name in theirs] == []
    assert isinstance(parser, argparse.ArgumentParser)


def test_every_option_is_launched_above():
    source = Path(__file__).read_text().partition("# ── The parser")[0]
    missing = []
    for option in OPTIONS:
        if option.torchrun is None or option.since is not None or option.name in COVERED_ELSEWHERE:
            continue
        forms = (*option.names, option.name.replace("-", "_").replace("__", "--", 1), f"PET_{option.field.upper()}")
        if not any(f'"{form}"' in source or f'"{form}=' in source for form in forms):
            missing.append(option.name)
    assert missing == []


# ── --numa-binding: torch's own planning on this machine's files, with the GPUs that it would find put in ────────────


@pytest.mark.parametrize("mode", ["node", "socket", "exclusive", "core-complex"])
@pytest.mark.parametrize("gpus", [1, 2])
def test_numa_bindings_are_torchs(monkeypatch, mode, gpus):
    from torch.numa import binding

    topology = numa.read_topology()
    allowed = os.sched_getaffinity(0)
    monkeypatch.setattr(binding, "_get_gpu_count", lambda: gpus)
    monkeypatch.setattr(binding, "_get_numa_node_index_for_gpu_index", lambda *, gpu_index: 0)
    options = binding.NumaOptions(affinity_mode=binding.AffinityMode(mode))
    try:
        theirs = [
            sorted(binding._get_logical_cpus_to_bind_to(gpu_index=gpu, numa_options=options)) for gpu in range(gpus)
        ]
    except RuntimeError:
        with pytest.raises(numa.Impossible):
            numa.plan(mode, [0] * gpus, topology, allowed)
        return

    assert [list(made.cpus) for made in numa.plan(mode, [0] * gpus, topology, allowed)] == theirs
