"""`rankguard watch -- COMMAND` over real process trees: what is a failure, what is left alone, what the verdict says."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.run.command import Ended
from tests.watch.engines import CORE, HEAD, Engines, Watched


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def relations(ended: Ended) -> dict[str, str]:
    return {row["name"]: row["relation"] for row in ended.verdict["ranks"]}


@pytest.mark.parametrize(
    ("number", "kind", "status"), [(signal.SIGKILL, "killed", 137), (signal.SIGSEGV, "crash", 139)]
)
def test_a_worker_dies_and_the_engine_hangs(engines: Engines, number: int, kind: str, status: int) -> None:
    watched = engines.start(CORE, "--settle", "0.2")
    pids = watched.pids()
    watched.joined([pids["core"], *pids["workers"]][1:])

    os.kill(pids["workers"][1], number)
    ended = watched.end()

    verdict, culprit = ended.verdict, ended.verdict["culprit"]
    assert (ended.status, verdict["outcome"], culprit["cause"]["kind"]) == (status, "failed", kind), ended.stderr
    assert (culprit["rank"], culprit["name"], culprit["role"]) == (None, "VLLM::Worker_TP1", "Worker")
    assert (culprit["pid"], culprit["cause"]["confidence"]) == (pids["workers"][1], "proven")
    assert relations(ended) == {
        "the engine": "stopped", "VLLM::Worker_TP0": "stopped", "VLLM::Worker_TP1": "culprit", "VLLM::Worker_TP2": "stopped",
    }  # fmt: skip
    assert verdict["world_size"] == 3
    assert [pid for pid in (pids["root"], pids["core"], *pids["workers"]) if alive(pid)] == []
    assert "VLLM::Worker_TP1" in ended.last_line
    # Told at once, before the engine is told to end; the tree as it stood then.
    said = f"rankguard: warning: VLLM::Worker_TP1 (pid {pids['workers'][1]}) was ended by {signal.Signals(number).name}"
    assert ended.stderr.index(said) < ended.stderr.index("error: VLLM::Worker_TP1")
    picture = ended.stderr[ended.stderr.index("\n  tree ") :]
    assert f"├ {pids['workers'][0]} VLLM::Worker_TP0\n" in picture
    assert f"├ {pids['workers'][1]} VLLM::Worker_TP1  † {signal.Signals(number).name}" in picture
    order = [fact["fact"] for fact in ended.facts]
    assert order.index("Exited") < order.index("Looked") < order.index("DeadlinePassed") < order.index("Signalled")


def test_an_engine_that_ends_with_0_after_a_worker_died_has_failed(engines: Engines) -> None:
    watched = engines.start(
        HEAD
        + """
        workers = [titled(f"sglang::scheduler_TP{n}") for n in range(2)]
        told(workers=[each.pid for each in workers])
        workers[1].wait()
        print("scheduler 1 is gone, shutting down", flush=True)
        """.replace("\n        ", "\n")
    )
    pids = watched.pids()
    watched.joined(pids["workers"])

    os.kill(pids["workers"][1], signal.SIGKILL)
    ended = watched.end()

    assert (ended.status, ended.verdict["outcome"]) == (137, "failed"), ended.stderr
    assert (ended.verdict["culprit"]["name"], ended.verdict["culprit"]["role"]) == (
        "sglang::scheduler_TP1",
        "scheduler",
    )
    # Its own words are quoted below ours.
    assert ended.verdict["culprit"]["log_tail"] == ["scheduler 1 is gone, shutting down"]
    assert "the engine said last\n    | scheduler 1 is gone, shutting down" in ended.stderr


def test_an_engine_that_kills_its_own_processes_and_ends_has_not_failed(engines: Engines) -> None:
    watched = engines.start(
        HEAD
        + """
workers = [titled(f"sglang::scheduler_TP{n}") for n in range(2)]
told(workers=[each.pid for each in workers])
sys.stdin.read()
for each in workers:
    each.kill()
""",
        stdin=subprocess.PIPE,
    )
    watched.joined(watched.pids()["workers"])

    assert watched.process.stdin is not None
    watched.process.stdin.close()
    watched.process.stdin = None
    ended = watched.end()

    assert (ended.status, ended.verdict["outcome"]) == (0, "succeeded"), ended.stderr


def test_what_is_not_rank_like_is_reported_and_left_to_its_engine(engines: Engines) -> None:
    watched = engines.start(
        HEAD
        + """
first = titled("gunicorn: worker [app]")
second = titled("VLLM::Worker_TP0")
told(gunicorn=first.pid, worker=second.pid)
first.wait()
"""
    )
    pids = watched.pids()
    watched.joined([pids["worker"]])  # and the other one was before it

    os.kill(pids["gunicorn"], signal.SIGKILL)
    ended = watched.end()

    (reported,) = ended.verdict["reported"]
    assert (ended.status, ended.verdict["outcome"]) == (0, "succeeded"), ended.stderr
    assert (reported["pid"], reported["name"], reported["role"]) == (
        pids["gunicorn"], "gunicorn: worker [app]", "worker",
    )  # fmt: skip
    assert (reported["cause"]["kind"], reported["cause"]["confidence"]) == ("killed", "proven")
    line = f"rankguard: warning: gunicorn: worker [app] (pid {pids['gunicorn']}) was ended by SIGKILL; it is left to its engine"
    assert line in ended.stderr
    assert "ended meanwhile, and left to the engine: gunicorn: worker" in ended.stderr


def test_on_failure_report_leaves_the_engine_alone(engines: Engines) -> None:
    watched = engines.start(
        HEAD
        + """
worker = titled("VLLM::Worker_TP0")
told(worker=worker.pid)
worker.wait()
sys.exit(5)
""",
        "--on-failure",
        "report",
    )
    pid = watched.pids()["worker"]
    watched.wait_for("Spawned")
    while not any(each["pid"] == pid for each in seen(watched)):
        pass
    os.kill(pid, signal.SIGKILL)
    ended = watched.end()

    assert (ended.status, ended.verdict["culprit"]["name"]) == (5, "the engine"), ended.stderr
    assert [each["name"] for each in ended.verdict["reported"]] == ["VLLM::Worker_TP0"]
    # What led to it.
    (led,) = ended.cause["responsible"]
    assert led["because"].startswith(f"VLLM::Worker_TP0 (pid {pid}) ended by SIGKILL")
    assert f"VLLM::Worker_TP0 (pid {pid}) ended by SIGKILL" in ended.stderr


def seen(watched: Watched) -> list[dict[str, Any]]:
    """Processes that are watched, as `rankguard stacks` and others are told of them: here by their pidfds in the supervisor."""
    found = []
    for pid in os.listdir("/proc"):
        try:
            if pid.isdecimal() and Path(f"/proc/{pid}/comm").read_text() == "rankguard-sup\n":
                for fd in os.listdir(f"/proc/{pid}/fdinfo"):
                    told = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
                    found += [{"pid": int(line.split()[1])} for line in told.splitlines() if line.startswith("Pid:")]
        except OSError:
            continue
    return found


def test_patterns_of_the_user_go_before_the_rules(engines: Engines) -> None:
    text = (
        HEAD
        + """
workers = [titled(f"shard-{n} of mine") for n in range(2)] + [titled("VLLM::Worker_TP0")]
told(workers=[each.pid for each in workers])
workers[2].kill()
workers[2].wait()
workers[1].wait()
time.sleep(3600)
"""
    )
    watched = engines.start(
        text, "--rank-pattern", r"^shard-(\d+) of", "--leave-pattern", "Worker_TP", "--settle", "0.1"
    )
    pids = watched.pids()["workers"]
    watched.joined(pids[:2])

    os.kill(pids[1], signal.SIGKILL)
    ended = watched.end()

    assert (ended.status, ended.verdict["culprit"]["name"]) == (137, "shard-1 of mine"), ended.stderr
    joined = [(each["name"], each["index"]) for each in ended.facts if each["fact"] == "Joined"]
    assert joined == [("shard-0 of mine", 0), ("shard-1 of mine", 1)]


def test_sigterm_goes_to_the_root_alone_which_drains(engines: Engines) -> None:
    watched = engines.start(
        HEAD
        + """
if sys.argv[2:] == ["worker"]:
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
    print("worker up", flush=True)
    sys.stdin.read()
    print("worker heard", heard, flush=True)
    sys.exit(0)
worker = subprocess.Popen([sys.executable, __file__, sys.argv[1], "worker"], stdin=subprocess.PIPE)
def drain(*_):
    print("draining", flush=True)
    worker.stdin.close()
    sys.exit(worker.wait())
signal.signal(signal.SIGTERM, drain)
told(root=os.getpid())
signal.pause()
"""
    )
    watched.pids()

    watched.process.send_signal(signal.SIGTERM)
    ended = watched.end()

    assert "draining" in ended.stdout
    assert "worker heard []" in ended.stdout
    assert (ended.status, ended.verdict["outcome"]) == (0, "interrupted"), ended.stderr


def test_deep_and_far_from_its_parents(engines: Engines) -> None:
    """Re-sessioned, re-parented, its parents gone: found, watched, and ended with the rest."""
    watched = engines.start(
        HEAD
        + """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        worker = titled("VLLM::Worker_TP7", start_new_session=True)
        told(worker=worker.pid, holder=os.getpid())
        time.sleep(3600)
    os._exit(0)
os.wait()
time.sleep(3600)
""",
        "--settle",
        "0.1",
    )
    pids = watched.pids()
    watched.joined([pids["worker"]])

    os.kill(pids["worker"], signal.SIGABRT)
    ended = watched.end()

    assert (ended.status, ended.verdict["culprit"]["name"]) == (134, "VLLM::Worker_TP7"), ended.stderr
    assert not alive(pids["holder"])


def test_the_engine_is_told_nothing_of_ranks(engines: Engines) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("RANK", "PYTHONUNBUFFERED")}
    watched = engines.start(HEAD + "told(env=dict(os.environ))\nsys.exit(3)\n", env=env | {"NOTIFY_SOCKET": "/outer"})
    told = watched.pids()["env"]
    ended = watched.end()

    added = set(told) - set(env)
    assert added == {"NOTIFY_SOCKET", "RANKGUARD_RUN_ID", "RANKGUARD_RUN_DIR", "PYTHONUNBUFFERED"}
    assert told["NOTIFY_SOCKET"] != "/outer"
    assert (ended.status, ended.cause["kind"], ended.verdict["culprit"]["name"]) == (3, "exit-code", "the engine")


def test_explain_names_processes_and_prints_the_rules(engines: Engines) -> None:
    watched = engines.start(CORE, "--settle", "0.1")
    pids = watched.pids()
    watched.joined(pids["workers"])
    os.kill(pids["workers"][0], signal.SIGKILL)
    watched.end()

    def explained(*words: str) -> str:
        command = [sys.executable, "-m", "rankguard", "explain", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    told = explained(str(watched.folder))
    assert "VLLM::Worker_TP0 was ended by SIGKILL" in told
    assert "rank 1" not in told
    assert "vllm: rank-like, may not end while the others go on" in explained("--rules")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no COMMAND is given"),
        (["--pid", "1", "--", "true"], "expected one of COMMAND, --pid and --match"),
        (["--rank-pattern", "(", "--", "true"], "--rank-pattern"),
        (["--rank-pattern", "", "--", "true"], "this one matches everything"),
        (["--leave-pattern", "a|", "--", "true"], "this one matches everything"),
        (["--on-failure", "explode", "--", "true"], "expected stop or report"),
    ],
)
def test_usage(words: list[str], said: str) -> None:
    ended = subprocess.run([sys.executable, "-m", "rankguard", "watch", *words], capture_output=True, text=True)

    assert (ended.returncode, said in ended.stderr) == (2, True), ended.stderr


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "rankguard", "watch", "--report", "json", "--run-dir", str(tmp_path / "run")]
    ended = subprocess.run([*words, "--", "/no/such/engine"], capture_output=True, text=True)

    told = json.loads(ended.stdout)
    assert (ended.returncode, told["culprit"]["cause"]["kind"]) == (127, "cannot-start")


def test_a_process_that_left_with_a_code_has_said_why_in_the_shared_output(engines: Engines) -> None:
    watched = engines.start(
        HEAD
        + """
if sys.argv[2:3] == ["worker"]:
    sys.stdin.read(1)
    raise ValueError("shard 1 does not fit")
worker = subprocess.Popen([sys.executable, __file__, sys.argv[1], "worker", "1"], stdin=subprocess.PIPE)
told(worker=worker.pid)
open(sys.argv[1]).close()
worker.stdin.close()
time.sleep(3600)
""",
        "--rank-pattern",
        r" worker (\d)$",
        "--settle",
        "0.1",
    )
    watched.joined([watched.pids()["worker"]])
    watched.fifo.write_text("")
    ended = watched.end()

    cause = ended.cause
    assert (ended.status, cause["kind"], cause["confidence"]) == (1, "exception", "likely"), ended.stderr
    assert cause["exception"]["type"] == "ValueError"
    assert ended.verdict["culprit"]["name"].startswith("rank 1 (")


def test_our_own_processes_are_no_part_of_the_tree(engines: Engines) -> None:
    watched = engines.start(CORE, "--http", "127.0.0.1:0", "--settle", "0.1")
    pids = watched.pids()
    watched.joined(pids["workers"])

    os.kill(pids["workers"][0], signal.SIGKILL)
    ended = watched.end()

    assert {each["pid"] for each in ended.verdict["processes"]} == {pids["root"], pids["core"], *pids["workers"]}
    assert ended.verdict["reported"] == []


def test_stacks_of_a_live_engine_are_of_each_process_by_its_name(engines: Engines) -> None:
    watched = engines.start(
        HEAD
        + """
def serve():
    signal.pause()
def waits_for_it(child):
    child.wait()
if sys.argv[2:3] == ["worker"]:
    print("up", flush=True)
    serve()
worker = subprocess.Popen([sys.executable, __file__, sys.argv[1], "worker", "1"], stdout=subprocess.PIPE)
worker.stdout.readline()
told(root=os.getpid(), worker=worker.pid)
waits_for_it(worker)
""",
        "--rank-pattern",
        r" worker (\d)$",
    )
    pids = watched.pids()
    watched.joined([pids["worker"]])

    command = [sys.executable, "-m", "rankguard", "stacks", str(watched.folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    watched.process.send_signal(signal.SIGTERM)
    watched.end()

    assert told.startswith("stacks of 2 processes of the engine"), told
    assert f"rank 1 (python engine-1.py) (pid {pids['worker']})" in told.replace("\n  ", " ")
    assert "`serve`" in told
    assert "waits_for_it" in told
