"""What a rank is given: torchrun's environment exactly, and nothing that our own parents left us with."""

import json
import os
import signal
import subprocess

import pytest
from tests.run.command import Ranks

TORCHRUN = {
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_NAME", "ROLE_RANK",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS",
    "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_ERROR_FILE", "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    "OMP_NUM_THREADS", "TORCHELASTIC_SIGNALS_TO_HANDLE",
}  # fmt: skip
OURS = {"NOTIFY_SOCKET", "RANKGUARD_RUN_ID", "RANKGUARD_RUN_DIR", "PYTHONUNBUFFERED"}
SAY_ENV = "import json; print(json.dumps(dict(os.environ)))"


def environments(ranks: Ranks, n: int, *options: str, **more: dict[str, str]) -> list[dict[str, str]]:
    """The environment that each rank reports."""
    ended = ranks.run(n, SAY_ENV, "--log-line-prefix-template", "", *options, **more)
    assert ended.status == 0, ended.stderr
    return sorted((json.loads(line) for line in ended.stdout.splitlines()), key=lambda env: int(env["RANK"]))


def test_environment_is_torchruns_and_ours_and_nothing_else(ranks: Ranks) -> None:
    base = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}

    first, second = environments(ranks, 2, env=dict(base))

    assert set(first) - {"LC_CTYPE"} == set(base) | TORCHRUN | OURS  # LC_CTYPE: Python's own (PEP 538)
    assert {name for name in first if first[name] != second[name]} == {
        "RANK", "LOCAL_RANK", "ROLE_RANK", "TORCHELASTIC_ERROR_FILE", "NOTIFY_SOCKET",
    }  # fmt: skip
    assert (first["WORLD_SIZE"], first["LOCAL_WORLD_SIZE"], first["ROLE_WORLD_SIZE"]) == ("2", "2", "2")
    assert (second["RANK"], second["LOCAL_RANK"], second["ROLE_RANK"]) == ("1", "1", "1")
    assert first["TORCHELASTIC_USE_AGENT_STORE"] == "False"
    assert 1024 < int(first["MASTER_PORT"]) < 32768


def test_what_the_user_set_is_kept_and_what_is_another_jobs_is_not(ranks: Ranks) -> None:
    env = os.environ | {
        "OMP_NUM_THREADS": "7",
        "PYTHONUNBUFFERED": "0",
        "NOTIFY_SOCKET": "/another",
        "RANKGUARD_RUN_ID": "x",
    }

    (rank,) = environments(ranks, 1, env=env)

    assert (rank["OMP_NUM_THREADS"], rank["PYTHONUNBUFFERED"]) == ("7", "0")
    assert rank["NOTIFY_SOCKET"] != "/another"
    assert rank["RANKGUARD_RUN_ID"] != "x"


def test_one_rank_gets_no_omp_num_threads(ranks: Ranks) -> None:
    assert "OMP_NUM_THREADS" not in environments(ranks, 1)[0]


def test_master_address_port_and_role_as_given(ranks: Ranks) -> None:
    options = ("--master_addr", "10.0.0.9", "--master-port=12345", "--role", "trainer")

    (rank,) = environments(ranks, 1, *options)

    assert (rank["MASTER_ADDR"], rank["MASTER_PORT"], rank["ROLE_NAME"]) == ("10.0.0.9", "12345", "trainer")


def test_twenty_jobs_at_once_get_twenty_ports(ranks: Ranks) -> None:
    program = ranks.program("print(os.environ['MASTER_PORT'], flush=True)\nsys.stdin.read()")
    jobs = [
        subprocess.Popen(
            ranks.command("--run-dir", str(ranks.next_dir()), "--stdin", "0", program),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(20)
    ]  # fmt: skip
    ports = [job.stdout.readline() for job in jobs if job.stdout is not None]
    for job in jobs:
        job.communicate("")

    assert len(set(ports)) == 20


SAY_STATE = """
import json, fcntl
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
fds = {}
for fd in os.listdir("/proc/self/fd"):
    try: fds[int(fd)] = os.readlink("/proc/self/fd/" + fd)
    except OSError: pass
print(json.dumps({
    "blocked": int(status["SigBlk"], 16), "ignored": int(status["SigIgn"], 16), "caught": int(status["SigCgt"], 16),
    "umask": status["Umask"].strip(), "session": os.getsid(0) == os.getpid(), "group": os.getpgid(0) == os.getpid(),
    "fds": fds, "cwd": os.getcwd(), "oom": int(open("/proc/self/oom_score_adj").read()),
    "nofile": __import__("resource").getrlimit(7), "argv": sys.argv[1:],
}))
"""
NOT_OURS = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1) | 0b11 << 31
"""Python ignores two by itself; 32 and 33 belong to the C library, and no program may change them (nptl(7))."""


def start_spoiled() -> None:
    """What a careless parent leaves us: signals blocked and ignored, a small umask, an open file that is inherited."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    os.umask(0o027)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 77)


def test_a_rank_starts_clean_whoever_started_us(ranks: Ranks) -> None:
    ended = ranks.run(1, SAY_STATE, args=("a b", "--nproc", "9"), preexec_fn=start_spoiled, close_fds=False)

    assert ended.status == 0, ended.stderr
    state = json.loads(ended.stdout)
    assert (state["blocked"], state["ignored"] & ~NOT_OURS) == (0, 0)
    assert (state["session"], state["group"], state["umask"]) == (True, True, "0027")
    own = (*socket_fds(state["fds"]), *(fd for fd, target in state["fds"].items() if target.endswith("/0.stack")))
    assert {fd for fd in state["fds"] if "pipe:" not in state["fds"][fd] and int(fd) > 2} <= set(own)
    assert "77" not in state["fds"]
    assert state["argv"] == ["a b", "--nproc", "9"]
    assert state["oom"] >= 300


def socket_fds(fds: dict[str, str]) -> list[str]:
    """The bootstrap keeps one socket for its last words, and nothing else."""
    found = [fd for fd, target in fds.items() if target.startswith("socket:")]
    assert len(found) <= 1
    return found


def test_every_crash_is_seen_though_sigchld_is_ignored(ranks: Ranks) -> None:
    ended = ranks.run(2, "os._exit(7 if RANK == 1 else 0)", preexec_fn=start_spoiled)

    assert (ended.status, ended.verdict["culprit"]["rank"]) == (7, 1)


def test_sighup_that_was_ignored_stays_ignored(ranks: Ranks) -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    ended = ranks.run(1, SAY_STATE, preexec_fn=nohup)

    assert json.loads(ended.stdout)["ignored"] & ~NOT_OURS == 1 << (signal.SIGHUP - 1)


def test_limits_are_given_back(ranks: Ranks) -> None:
    import resource

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (70, 4096))

    ended = ranks.run(8, SAY_STATE, "--log-line-prefix-template", "", preexec_fn=few)

    assert [json.loads(line)["nofile"] for line in ended.stdout.splitlines()] == [[70, 4096]] * 8


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-m", "json.tool", "--help"], "usage:"),
        (["--no-python", "/bin/echo", "plain"], "plain"),
        (["/bin/echo", "executable"], "executable"),
        (["echo", "from PATH"], "from PATH"),
    ],
)
def test_what_a_program_may_be(ranks: Ranks, words: list[str], expected: str) -> None:
    ended = ranks.words(words)

    assert ended.status == 0, ended.stderr
    assert expected in ended.stdout


def test_a_text_file_without_py_runs_under_this_python(ranks: Ranks) -> None:
    ended = ranks.words([ranks.program("print(sys.version_info[:2])", "train")])

    assert ended.stdout == f"{__import__('sys').version_info[:2]}\n"
