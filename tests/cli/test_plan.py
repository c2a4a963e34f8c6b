"""From options to the job that is asked for, and to what is said of those that do nothing. Nothing is started."""

import os
import socket
import sys

import pytest
from tests.linux.test_devices import amd, nvidia

from rankguard import inside
from rankguard.cli import machine
from rankguard.cli.arguments import parse
from rankguard.cli.plan import plan
from rankguard.errors import UsageError

HERE = len(os.sched_getaffinity(0))


@pytest.fixture
def planned(tmp_path):
    """`planned(*words)` → (spec, lines): each line as it is shown, without its hint."""

    def one(*words, program="/bin/true", args=()):
        spec, said = plan(parse(["--run-dir", str(tmp_path / "run"), *words, program, *args], os.environ))
        return spec, [line if isinstance(line, str) else line[0] for line in said]

    return one


@pytest.fixture
def refused(planned):
    def one(*words, **more):
        with pytest.raises(UsageError) as error:
            planned(*words, **more)
        return error.value.statement, error.value.hint

    return one


# ── Where the ranks meet ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "addr", "port", "elastic_id"),
    [
        ([], "127.0.0.1", None, None),
        (["--nnodes", "1"], "127.0.0.1", None, None),
        (["--nnodes=1:1", "--node-rank=0"], "127.0.0.1", None, None),
        (["--standalone"], "127.0.0.1", None, None),
        (["--standalone", "--rdzv-id", "job"], "127.0.0.1", None, "job"),
        (["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"], "127.0.0.1", None, None),
        (["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{socket.gethostname()}:29400"], "127.0.0.1", None, None),
        (["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.3:29400"], "127.0.0.1", None, None),
        (["--rdzv-endpoint", "node0:29400"], "node0", 29400, None),
        (["--rdzv-endpoint", "node0"], "node0", None, None),
        (["--rdzv-endpoint", "[::1]:29400", "--rdzv-backend", "static"], "::1", 29400, None),
        (["--master-addr", "10.0.0.1"], "10.0.0.1", None, None),
        (["--master-addr", "[::1]", "--master-port", "29500"], "::1", 29500, None),
        (["--local-addr", "127.0.0.2"], "127.0.0.2", None, None),
        (["--standalone", "--local-addr", "127.0.0.2"], "127.0.0.2", None, None),
        (["--rdzv-endpoint", "", "--rdzv-conf", "", "--rdzv-id", ""], "127.0.0.1", None, None),
    ],
)
def test_where_the_ranks_meet_and_nothing_to_be_said(planned, words, addr, port, elastic_id):
    spec, said = planned(*words)

    assert (spec.master_addr, spec.master_port, spec.elastic_id) == (addr, port, elastic_id)
    assert said == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--rdzv-conf", "timeout=900,token=secret"],
         ["`--rdzv-conf` has no effect: on one machine there is nobody to meet"]),
        (["--monitor_interval", "5"],
         ["`--monitor-interval 5` has no effect: the kernel tells when a rank ends, nothing is polled"]),
        (["--start-method", "fork"], ["`--start-method fork` has no effect: `--start` says how ranks come to be"]),
        (["--event-log-handler", "mine"],
         ["`--event-log-handler mine` has no effect: every event is in the run's `events.jsonl`"]),
        (["--event-log-handler", "null"], []),
        (["--logs-specs", "default"], []),
        (["--max-restarts", "0"], []),
        (["--max-restarts", "3"], []),
        (["--rdzv-backend", "c10d", "--rdzv-endpoint", "elsewhere.example:29400"],
         ["`--rdzv-endpoint elsewhere.example:29400` has no effect: on one machine there is nobody to meet"]),
        (["--standalone", "--master-port", "29500"],
         ["`--master-port 29500` has no effect: `--standalone` chooses a free port of this machine, as under torchrun"]),
        (["--rdzv-backend", "c10d", "--master-addr", "h", "--node-rank", "2"],
         ["`--master-addr h` has no effect: `--rdzv-backend c10d` chooses a free port of this machine, as under torchrun",
          "`--node-rank 2` has no effect: on one machine there is nobody to meet"]),
        (["--standalone", "--rdzv-backend", "etcd"],
         ["`--rdzv-backend etcd` has no effect: on one machine there is nobody to meet"]),
        (["--rdzv-endpoint", "a:1", "--master-addr", "b", "--master-port", "1"],
         ["`--master-addr b` has no effect: `--rdzv-endpoint a:1` goes before it"]),
        (["--local-addr", "h", "--master-port", "29500"],
         ["`--local-addr h` has no effect: MASTER_ADDR is given, and goes before it"]),
        (["--log-dir", "/tmp"], ["`--log-dir /tmp` has no effect: `--run-dir` goes before it"]),
        (["-n", "2", "-r", "0:3,7:1"], ["`--redirects 0:3,7:1`: there is no rank 7"]),
        (["-t", "1:3"], ["`--tee 1:3`: there is no rank 1"]),
        (["-n", "2", "--local-ranks-filter", "1,2"], ["`--local-ranks-filter 1,2`: there is no rank 2"]),
        (["--local-ranks-filter", "2"], ["`--local-ranks-filter 2`: there is no rank 2; no rank is shown"]),
        (["-r", "3", "--log-max", "0"],
         ["`--redirects 3`: what it keeps off the terminal is in no file; `--log-max 0` keeps none"]),
        (["-r", "3", "-t", "3", "--log-max", "0"], []),
    ],
)  # fmt: skip
def test_what_does_nothing_is_said_in_one_line(planned, words, expected):
    assert planned(*words)[1] == expected


def test_a_variable_that_does_nothing_is_named_as_it_was_written(planned, monkeypatch):
    monkeypatch.setenv("PET_MONITOR_INTERVAL", "5")
    monkeypatch.setenv("TORCHELASTIC_ENABLE_FILE_TIMER", "1")

    assert planned()[1] == [
        "`PET_MONITOR_INTERVAL=5` has no effect: the kernel tells when a rank ends, nothing is polled",
        "`TORCHELASTIC_ENABLE_FILE_TIMER=1` has no effect: there is no timer server",
    ]


@pytest.mark.parametrize(
    ("words", "statement", "hint"),
    [
        (["--node-rank", "1"], "`--node-rank 1`: expected 0, as there is one node",
         "--nnodes 2, with --rdzv-endpoint HOST:PORT"),
        (["--rdzv-backend", "etcd-v2"],
         "`--rdzv-backend etcd-v2`: expected static or c10d; on one machine there is nobody to meet",
         "--rdzv-backend c10d"),
        (["--logs-specs", "mine"],
         "`--logs-specs mine`: expected default; a class of torch's cannot direct our output",
         "--log-dir DIR, --redirects, --tee, --log-format"),
        (["-m", "--no-python"], "`--module --no-python`: expected one of the two", "--module or --no-python"),
        (["-m", "--run-path"], "`--module --run-path`: expected one of the two", "--module or --run-path"),
        (["--numa-binding", "exclusive", "-n", "9999"],
         "`--numa-binding exclusive`: 9999 ranks", "--numa-binding node"),
    ],
)  # fmt: skip
def test_what_is_refused(refused, words, statement, hint):
    said, tried = refused(*words)

    assert said.startswith(statement)
    assert tried == hint


def test_what_a_variable_asks_for_is_refused_in_its_name(refused, monkeypatch):
    monkeypatch.setenv("PET_NODE_RANK", "2")

    assert refused()[0] == "`PET_NODE_RANK=2`: expected 0, as there is one node"


# ── Output ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "hidden"),
    [
        ([], ()),
        (["-r", "3"], (3, 3, 3, 3)),
        (["-r", "1"], (1, 1, 1, 1)),
        (["-r", "3", "-t", "1"], (2, 2, 2, 2)),
        (["-r", "3", "-t", "0:3,2:2"], (0, 3, 1, 3)),
        (["-t", "3"], ()),
        (["-r", "1-2:3"], (0, 3, 3, 0)),
        (["--local-ranks-filter", "0,3"], (0, 3, 3, 0)),
        (["--local-ranks-filter", "0-1", "-r", "0:2"], (2, 0, 3, 3)),
        (["--local-ranks-filter", ""], ()),
    ],
)
def test_what_the_terminal_does_not_show(planned, words, hidden):
    assert planned("-n", "4", *words)[0].hidden == hidden


def test_filters_and_prefix(planned, monkeypatch):
    words = ("--duplicate-stdout-filters", "loss,a,,b", "--duplicate_stderr_filters=Error")
    monkeypatch.setenv("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", "<${rank}>")

    spec, _said = planned(*words)
    assert (spec.filters, spec.prefix) == ((("loss", "a,b"), ("Error",)), "<${rank}>")

    assert planned("--log-line-prefix-template", "[${role_name}]")[0].prefix == "[${role_name}]"
    assert planned("--log-line-prefix-template", "")[0].prefix == ""
    monkeypatch.setenv("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", "")  # as if it were not set, under torchrun too
    assert planned()[0].prefix is None


def test_no_files_are_asked_for_with_torchruns_word(tmp_path):
    def of(*words):
        return plan(parse([*words, "/bin/true"], os.environ))

    spec, said = of("--log-dir", "/dev/null")
    assert (spec.run_dir, said) == (None, [])

    spec, said = of("--log-dir", "/dev/null", "-r", "3")
    assert [line[0] for line in said] == [
        "`--redirects 3`: what it keeps off the terminal is in no file; no files are kept of this run"
    ]

    spec, said = of("--log-dir", str(tmp_path / "logs"))
    assert spec.run_dir == str(tmp_path / "logs" / spec.run_id)
    assert said == []


# ── What is executed, and what it is told ────────────────────────────────────────────────────────────────────────

PYTHON = [sys.executable, "-u", inside.BOOTSTRAP]


def test_what_each_kind_of_program_becomes(planned, tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text("")
    script.chmod(0o755)
    text = tmp_path / "train"
    text.write_text("")

    def argv(*words, program=str(script)):
        return list(planned(*words, program=program, args=("a",))[0].argv)

    assert argv() == [*PYTHON, str(script), "a"]
    assert argv("-m", program="pkg.train") == [*PYTHON, "-m", "pkg.train", "a"]
    assert argv("--no-python") == [str(script), "a"]
    assert argv("--run-path", "--no-python") == [*PYTHON, str(script), "a"]
    assert argv(program=str(text)) == [*PYTHON, str(text), "a"]
    assert argv(program="/bin/echo") == ["/bin/echo", "a"]
    assert argv("--run-path", program="/bin/echo") == [*PYTHON, "/bin/echo", "a"]

    monkeypatch.setenv("PYTHON_EXEC", "/opt/python")
    assert argv() == ["/opt/python", "-u", inside.BOOTSTRAP, str(script), "a"]


def test_signals_are_told_as_torchrun_tells_them(planned, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGXCPU")  # left by whoever started us
    name = "TORCHELASTIC_SIGNALS_TO_HANDLE"

    assert planned()[0].env[name] == "SIGTERM,SIGINT,SIGHUP,SIGQUIT"
    assert planned("--signals-to-handle", "SIGTERM,SIGUSR1")[0].env[name] == "SIGTERM,SIGUSR1"


def test_shutdown_timeout(planned, refused, monkeypatch):
    assert planned()[0].shutdown_timeout == 30.0
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "7")
    assert planned()[0].shutdown_timeout == 7.0
    assert planned("--shutdown-timeout", "2.5")[0].shutdown_timeout == 2.5
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "soon")
    assert refused()[0] == "`TORCH_ELASTIC_SHUTDOWN_TIMEOUT=soon`: expected a number of seconds"


# ── This machine, and others ─────────────────────────────────────────────────────────────────────────────────────


def test_counting_ranks(tmp_path):
    four, two, none = nvidia(tmp_path / "four"), amd(tmp_path / "two"), str(tmp_path / "none")

    def count(text, root, **env):
        return machine.count_ranks(text, env, root)[0]

    assert count("3", none) == 3
    assert (count("auto", four), count("gpu", four), count("cpu", four)) == (4, 4, HERE)
    assert (count("gpu", two), count("gpu", two, HIP_VISIBLE_DEVICES="1")) == (2, 1)
    assert count("gpu", four, CUDA_VISIBLE_DEVICES="0,2") == 2
    assert count("auto", four, CUDA_VISIBLE_DEVICES="") == HERE
    assert count("auto", none) == HERE


@pytest.mark.parametrize(
    ("text", "env", "statement"),
    [
        ("gpu", {}, "`-n gpu`: expected a GPU, but there is none in `/proc/driver/nvidia`, `/dev` or `/sys/class/kfd`"),
        ("gpu", {"CUDA_VISIBLE_DEVICES": "-1"}, "`-n gpu`: expected a GPU, but `CUDA_VISIBLE_DEVICES=-1` leaves none"),
        ("xpu", {}, "`-n xpu`: expected an Intel GPU, but none is in `/sys/class/drm`"),
    ],
)
def test_no_gpu_is_told_with_the_reason(tmp_path, text, env, statement):
    root = nvidia(tmp_path) if env else str(tmp_path)

    with pytest.raises(UsageError) as error:
        machine.count_ranks(text, env, root)

    assert (error.value.statement, error.value.hint) == (statement, "-n cpu")


def test_more_ranks_than_there_can_be_processes(tmp_path):
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/pid_max").write_text("32768\n")

    assert machine.count_ranks("32768", {}, str(tmp_path)) == (32768, [])
    with pytest.raises(UsageError, match="`-n 32769`: expected at most 32768 ranks"):
        machine.count_ranks("32769", {}, str(tmp_path))


def test_a_quota_below_the_number_of_cpus_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("rankguard.linux.cpus.cpu_quota", lambda: 0.5)

    count, said = machine.count_ranks("cpu", {}, str(tmp_path))

    assert count == HERE
    assert said == [(f"`-n cpu` is {HERE}, but the cgroup allows 0.5 CPUs' worth of time", "-n 1")]


def own_gpus(nprocs, root, env):
    return list(machine.near(parse(["--virtual-local-rank", "x"], {}), nprocs, env, root))


def test_a_gpu_for_each_rank(tmp_path):
    root, none = nvidia(tmp_path / "four"), str(tmp_path / "none")

    own_gpus(4, root, {})
    own_gpus(2, root, {"CUDA_VISIBLE_DEVICES": "1,3"})
    own_gpus(8, none, {})  # as under torchrun: for all we know there is none on purpose
    for nprocs, env, expected in [
        (3, {"CUDA_VISIBLE_DEVICES": "1,3"}, "expected 3 GPUs in `CUDA_VISIBLE_DEVICES=1,3`, one for each rank"),
        (2, {"HIP_VISIBLE_DEVICES": "1"}, "expected 2 GPUs in `HIP_VISIBLE_DEVICES=1`, one for each rank"),
        (5, {}, "expected 5 GPUs, one for each rank; there are 4"),
    ]:
        with pytest.raises(UsageError) as error:
            own_gpus(nprocs, root, env)
        assert error.value.statement == f"`--virtual-local-rank`: {expected}"


# ── What runs under Python ───────────────────────────────────────────────────────────────────────────────────────


def test_a_script_of_another_language_without_its_x_bit(planned, tmp_path):
    """It runs under Python, as with torchrun; whoever forgot `chmod +x` is told, and nobody else is."""
    script = tmp_path / "run me.sh"
    script.write_text("#!/bin/bash\necho rank $RANK\n")
    warning = f"`{script}` is not executable, so it runs under Python"
    spec, said = planned(program=str(script))
    assert warning in said
    assert str(script) in spec.argv
    assert spec.python
    assert warning not in planned("--run-path", program=str(script))[1]

    script.write_text("#!/usr/bin/env python3\n")
    assert warning not in planned(program=str(script))[1]
    script.write_text("#!/bin/bash\n")
    script.chmod(0o755)
    spec, said = planned(program=str(script))
    assert warning not in said
    assert not spec.python
