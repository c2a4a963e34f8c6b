"""torchrun's options with real ranks: what they are told, where they may run, where what they say goes.

Nothing of torch is needed; `tests/torch/test_parity.py` runs the same words under torchrun itself.
"""

import ctypes
import errno
import json
import os
import struct
import subprocess
import sys

import pytest
from tests.linux.test_numa import ALLOWED, choosing_memory
from tests.run.command import Ranks

from rankguard.linux import numa

SAY = """
import json
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
try: policy = open("/proc/self/numa_maps").readline().split()[1]
except OSError: policy = None
print(json.dumps({"env": dict(os.environ), "argv": sys.argv[1:], "orig": sys.orig_argv, "policy": policy,
                  "cpus": status["Cpus_allowed_list"].strip()}))
"""


def said(ranks: Ranks, n: int, *options: str, args=(), **more):
    """What each rank says of itself."""
    ended = ranks.run(n, SAY, "--log-line-prefix-template", "", *options, args=args, **more)
    assert ended.status == 0, ended.stderr
    return sorted((json.loads(line) for line in ended.stdout.splitlines()), key=lambda rank: int(rank["env"]["RANK"]))


def test_what_the_ranks_are_told(ranks):
    words = ("--rdzv-id", "job7", "--max-restarts", "3", "--role=trainer", "--signals-to-handle=SIGTERM,SIGUSR2",
             "--rdzv-endpoint", "127.0.0.1:29555")  # fmt: skip

    first, second = said(ranks, 2, *words)

    told = {
        "TORCHELASTIC_RUN_ID": "job7", "TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_RESTART_COUNT": "0",
        "ROLE_NAME": "trainer", "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGTERM,SIGUSR2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29555",
    }  # fmt: skip
    for rank in (first, second):
        assert {name: rank["env"].get(name) for name in told} == told


def test_the_same_from_variables(ranks):
    env = os.environ | {"PET_NPROC_PER_NODE": "3", "PET_RDZV_ID": "job8", "PET_STANDALONE": "1", "PET_ROLE": "r"}

    ended = ranks.words(["--log-line-prefix-template", "", ranks.program(SAY)], env=env)

    told = [json.loads(line)["env"] for line in ended.stdout.splitlines()]
    assert {(env["WORLD_SIZE"], env["TORCHELASTIC_RUN_ID"], env["ROLE_NAME"]) for env in told} == {("3", "job8", "r")}
    assert ended.stderr.splitlines()[0].startswith("rankguard: exit 0")  # and nothing had to be said


def test_local_rank_in_arguments(ranks):
    args = ("--local-rank=${local_rank}", "a$$b", "$local_rank", "${rank}", "${local_rank}${local_rank}")

    first, second = said(ranks, 2, args=args)

    assert first["argv"] == ["--local-rank=0", "a$$b", "$local_rank", "${rank}", "00"]
    assert second["argv"] == ["--local-rank=1", "a$$b", "$local_rank", "${rank}", "11"]


def test_python_is_unbuffered_and_may_be_another_one(ranks, tmp_path):
    python = tmp_path / "python of mine"
    python.write_text(f'#!/bin/sh\nexport MINE=1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)

    (rank,) = said(ranks, 1, env=os.environ | {"PYTHON_EXEC": str(python)})

    assert (rank["env"]["MINE"], rank["orig"][1]) == ("1", "-u")


def test_every_rank_has_its_own_gpu(ranks):
    def of(**env):
        told = [rank["env"] for rank in said(ranks, 2, "--virtual-local-rank", env=os.environ | env)]
        return [{name: rank.get(name) for name in ("RANK", "LOCAL_RANK", *names)} for rank in told]

    names = ("CUDA_VISIBLE_DEVICES",)
    assert of() == [
        {"RANK": "0", "LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": "0"},
        {"RANK": "1", "LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": "1"},
    ]
    assert [rank["CUDA_VISIBLE_DEVICES"] for rank in of(CUDA_VISIBLE_DEVICES="5, GPU-7f,2")] == ["5", "GPU-7f"]
    names = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
    assert [rank["HIP_VISIBLE_DEVICES"] for rank in of(HIP_VISIBLE_DEVICES="6,7")] == ["6", "7"]


@choosing_memory
@pytest.mark.parametrize("mode", ["node", "socket", "exclusive", "core-complex"])
def test_ranks_are_where_they_were_bound_to(ranks, mode):
    nprocs = min(2, len(ALLOWED))
    expected = numa.bindings(mode, nprocs, os.environ).ranks

    told = said(ranks, nprocs, "--numa-binding", mode)

    assert [rank["cpus"] for rank in told] == [numa.in_ranges(binding.cpus) for binding in expected]
    assert [rank["policy"] for rank in told] == [f"prefer:{binding.nodes[0]}" for binding in expected]


@choosing_memory
def test_a_binding_stays_within_what_we_were_given(ranks):
    last = ALLOWED[-1]

    (rank,) = said(ranks, 1, "--numa-binding=node", preexec_fn=lambda: os.sched_setaffinity(0, {last}))

    assert rank["cpus"] == str(last)


SECCOMP_NUMBERS = {"x86_64": (238, 203), "aarch64": (237, 122)}


def refuse(*numbers: int) -> None:
    """A seccomp filter of our own, as Docker's default profile has one: these system calls end with EPERM."""
    libc = ctypes.CDLL(None, use_errno=True)
    load, equal, give = 0x20, 0x15, 0x06  # BPF: load a word, jump if equal, return
    program = [(load, 0, 0, 0)]
    program += [(equal, len(numbers) - n, 0, number) for n, number in enumerate(numbers)]
    program += [(give, 0, 0, 0x7FFF0000), (give, 0, 0, 0x00050000 | errno.EPERM)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    pr_set_no_new_privs, pr_set_seccomp = 38, 22
    assert libc.prctl(pr_set_no_new_privs, 1, 0, 0, 0) == 0
    assert libc.prctl(pr_set_seccomp, 2, ctypes.byref(filter_), 0, 0) == 0


@pytest.mark.skipif(os.uname().machine not in SECCOMP_NUMBERS, reason="the numbers of system calls are not listed")
def test_a_kernel_that_refuses_costs_the_binding_not_the_job(ranks):
    set_mempolicy, sched_setaffinity = SECCOMP_NUMBERS[os.uname().machine]
    program = ranks.program("print('ran', flush=True)")

    ended = ranks.words(["--numa-binding", "node", program], preexec_fn=lambda: refuse(set_mempolicy))
    assert (ended.status, ended.stdout) == (0, "ran\n")
    first, second, last = ended.stderr.splitlines()
    assert first == (
        "warning: `--numa-binding node`: the kernel lets us choose CPUs, but not memory (Operation not permitted)"
    )
    assert second.startswith("try:   docker run --cap-add SYS_NICE")
    assert last.startswith("rankguard: exit 0")

    ended = ranks.words(
        ["--numa-binding", "node", program], preexec_fn=lambda: refuse(set_mempolicy, sched_setaffinity)
    )
    assert (ended.status, ended.stdout) == (0, "ran\n")
    cpus = numa.in_ranges(ALLOWED)
    assert f"rankguard: this rank is not bound to CPUs {cpus}: Operation not permitted" in ended.stderr


def test_without_a_binding_nothing_is_bound(ranks):
    (rank,) = said(ranks, 1)

    assert (rank["cpus"], rank["policy"]) == (numa.in_ranges(ALLOWED), "default")


TALK = "print('out', RANK, flush=True); print('err', RANK, file=sys.stderr, flush=True)"


def logs(folder, stream):
    return {int(path.parts[-3][5:]): path.read_text() for path in folder.glob(f"rank-*/attempt-0/{stream}.log")}


def test_redirects_of_sixteen_ranks(ranks):
    ended = ranks.run(16, TALK, "-r", "0-9:3,10:1,11:2,12-15:0", "--tee", "3:3", "--report", "none", "-q")

    assert ended.status == 0, ended.stderr
    assert sorted(ended.stdout.splitlines()) == sorted(f"[{r}] out {r}" for r in (3, 11, 12, 13, 14, 15))
    assert sorted(ended.stderr.splitlines()) == sorted(f"[{r}] err {r}" for r in (3, 10, 12, 13, 14, 15))
    assert logs(ended.folder, "stdout") == {r: f"out {r}\n" for r in range(16)}
    assert logs(ended.folder, "stderr") == {r: f"err {r}\n" for r in range(16)}


def test_only_some_ranks_are_shown_and_all_are_kept(ranks):
    ended = ranks.run(4, TALK, "--local-ranks-filter", "0,2-3", "--report", "none", "-q")

    assert sorted(ended.stdout.splitlines()) == ["[0] out 0", "[2] out 2", "[3] out 3"]
    assert sorted(ended.stderr.splitlines()) == ["[0] err 0", "[2] err 2", "[3] err 3"]
    assert sorted(logs(ended.folder, "stdout")) == [0, 1, 2, 3]


def rankguard(*words, **more):
    return subprocess.run(
        [sys.executable, "-m", "rankguard", *words], capture_output=True, text=True, timeout=60, **more
    )


def test_a_run_in_a_log_dir_is_found_by_its_folder(ranks, tmp_path):
    program = ranks.program("print('hello', flush=True)")

    for _ in range(2):
        assert rankguard("run", "--log-dir", str(tmp_path / "logs"), program).returncode == 0

    folders = list((tmp_path / "logs").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert (folder / "rank-0/attempt-0/stdout.log").read_text() == "hello\n"
        told = rankguard("report", "--json", str(folder))
        assert json.loads(told.stdout)["run_id"] == folder.name


def test_no_files_at_all(ranks):
    ended = rankguard("run", "--log-dir", "/dev/null", ranks.program("print('hello', flush=True)"))

    assert (ended.returncode, ended.stdout) == (0, "hello\n")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "statement"),
    [
        (["--nnodes=2"], "error: `--nnodes 2`: expected --rdzv-endpoint too"),
        (["-n", "gpu"], "error: `-n gpu`: expected a GPU, but "),
        (["-n", "2", "--virtual-local-rank"], "error: `--virtual-local-rank`: expected 2 GPUs in `CUDA_VISIBLE_DEVICES=`"),
        (["--rdzv-backend=etcd"], "error: `--rdzv-backend etcd`: expected static or c10d"),
    ],
)  # fmt: skip
def test_what_is_refused_starts_nothing(ranks, words, statement):
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}

    ended = ranks.words([*words, ranks.program("print('started')")], env=env)

    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr.startswith(statement)
    assert len(ended.stderr.splitlines()) == 2
    assert not ended.folder.exists()
