"""`report --html` of real runs: an OOM kill, a hang, restarts, a watched engine, one that was cut off, hostile output."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.page.made import data_in

pytestmark = pytest.mark.slow

STALL = """
import time, rankguard
this = rankguard.this_rank()
this.ready()
print("step 0", flush=True)
def load_shard():
    while True: time.sleep(100)
def all_reduce():
    while True: time.sleep(100)
load_shard() if this.rank == 1 else all_reduce()
"""
STORM = """
import time, rankguard
this = rankguard.this_rank()
this.status("loading weights")
this.ready()
if this.rank == 1: raise ValueError("bad shape")
time.sleep(60)
"""
ENGINE = """
import json, os, signal, subprocess, sys, time
workers = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"worker_TP{n}"]) for n in range(2)]
print("engine up", flush=True)

def seen(pid):
    '''It is known as one of the engine's, and what it holds has been looked at.'''
    told = [json.loads(line) for line in open(sys.argv[1] + "/events.jsonl") if line.endswith("}\\n")]
    rank = next((fact["rank"] for fact in told if fact.get("fact") == "Joined" and fact["pid"] == pid), None)
    try:
        return f'"{rank}":' in open(sys.argv[1] + "/memory.jsonl").read()
    except FileNotFoundError:
        return False

while not seen(workers[1].pid):
    time.sleep(0.05)
os.kill(workers[1].pid, signal.SIGSEGV)
time.sleep(600)
"""
HOSTILE = r"""
import os, sys, rankguard
this = rankguard.this_rank()
bad = "</script><script>alert(1)</script><!-- \x1b[2J\x1b]0;owned\x07 \u2028 \u202e \x00 " + "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")
this.status(bad)
for _ in range(3000):
    sys.stdout.buffer.write((bad * 40).encode("utf-8", "replace") + b"\xff\xfe\n")
sys.stdout.buffer.flush()
raise ValueError(bad)
"""
WAITS = """
import time, rankguard
print("my secret is correct-horse-battery", flush=True)
rankguard.this_rank().ready()
time.sleep(600)
"""


def _run(folder: Path, program: str, *options: str, verb: str = "run", env: dict[str, str] | None = None) -> int:
    path = folder / "program.py"
    path.write_text(program)
    command = [sys.executable, "-m", "rankguard", verb, "--run-dir", str(folder / "run"), *options]
    command += ["--", sys.executable, str(path)] if verb == "watch" else [str(path), str(folder)]
    command += [str(folder / "run")] if verb == "watch" else []
    return subprocess.run(command, capture_output=True, env=env, check=False).returncode


def _page(run: Path, **more: Any) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "rankguard", "report", "--html", "-", str(run)]
    page = subprocess.run(command, capture_output=True, check=True, **more).stdout.decode()
    assert len(page) < 1_000_000
    return data_in(page), page


def test_an_oom_kill(tmp_path: Path) -> None:
    env = os.environ | {"RANKGUARD_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "rankguard", "drill", "oom"], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or "skip" in done.stdout.lower():
        pytest.skip(f"no memory group can be made here: {done.stdout[-200:]}")
    data, _ = _page(next(tmp_path.glob("drill-oom-*")))

    view, memory = data["view"], data["memory"]
    culprit = view["verdict"]["culprit"]["rank"]
    assert view["verdict"]["culprit"]["cause"]["kind"] == "oom-kill"
    assert memory["kills"][0]["rank"] == culprit
    assert memory["limit_bytes"] == view["verdict"]["memory"]["limit_bytes"]
    assert memory["at_s"] == sorted(memory["at_s"])
    assert len(memory["at_s"]) >= 3  # of half a second
    used = [size for size in memory["used_bytes"] if size is not None]
    assert max(used) > 1.2 * min(used)  # when a rank is first seen it may hold nearly all that it ever did
    assert any(size is not None for size in memory["ranks"][str(culprit)])
    assert memory["near_s"] is None or 0 < memory["near_s"] < min(kill["at_s"] for kill in memory["kills"])
    assert [span["what"] for span in view["startup"]["ranks"][culprit]["spans"]][:2] == ["launching", "starting"]
    assert {check["name"] for check in view["doctor"]} >= {"kernel-log", "oom-counter", "ptrace"}


def test_a_hang(tmp_path: Path) -> None:
    # Warm: silence is counted from a rank's start, in which an interpreter may take seconds.
    assert _run(tmp_path, STALL, "-n", "4", "--stall-timeout", "1.5", "--start", "warm") == 124
    view = _page(tmp_path / "run")[0]["view"]

    assert view["verdict"]["culprit"]["cause"]["kind"] == "stall"
    assert [(group["ranks"], group["odd"]) for group in view["stacks"]] == [([1], True), ([0, 2, 3], False)]
    assert re.fullmatch(r".*/program.py:\d+ load_shard", view["stacks"][0]["frames"][0])
    assert {rank["last_sign_by"] for rank in view["ranks"]} <= {"output", "readiness"}
    assert all(rank["last_sign_s"] < view["deaths"][0]["at_s"] - 1 for rank in view["ranks"])
    assert [sum(counts) > 0 and counts[-1] == 0 for counts in view["signs"]["ranks"].values()] == [True] * 4


def test_restarts(tmp_path: Path) -> None:
    assert _run(tmp_path, STORM, "-n", "3", "--max-restarts", "2", "--restart-delay", "0.1") == 1
    data = _page(tmp_path / "run")[0]

    view = data["view"]
    assert (view["run"]["attempt"], [a["attempt"] for a in view["attempts"]]) == (2, [0, 1])
    assert view["attempts"][0]["from_s"] < view["attempts"][1]["from_s"] < 0
    assert {log["attempt"] for log in data["logs"]} == {2}
    assert data["logs"][0]["streams"]["stderr"]["lines"][-1] == "ValueError: bad shape"


def test_a_watched_engine(tmp_path: Path) -> None:
    options = ["--rank-pattern", "worker_TP", "--settle", "0.5", "--grace", "1"]
    assert _run(tmp_path, ENGINE, *options, verb="watch") == 139
    data = _page(tmp_path / "run")[0]

    view = data["view"]
    [culprit] = [rank for rank in view["ranks"] if rank["relation"] == "culprit"]
    assert (culprit["ending"]["signal"], view["run"]["watch"], view["verdict"]["culprit"]["rank"]) == (
        "SIGSEGV",
        True,
        None,
    )
    assert data["logs"][0]["streams"]["stdout"]["lines"] == ["engine up"]
    assert str(culprit["rank"]) in data["memory"]["ranks"]


def test_hostile_output_is_data(tmp_path: Path) -> None:
    assert _run(tmp_path, HOSTILE, "-n", "2") == 1
    data, page = _page(tmp_path / "run")

    assert "alert(1)</script>" in data["logs"][0]["streams"]["stdout"]["lines"][0]
    assert "alert(1)" in page
    assert page.count("</script>") == page.count("<script")
    assert "<script>alert" not in page
    assert "\u2028" not in page
    assert "\x1b" not in page
    assert "\x00" not in page


def test_one_that_lives_and_is_then_cut_off(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(WAITS)
    env = os.environ | {"SOME_TOKEN": "correct-horse-battery"}
    command = [
        sys.executable,
        "-m",
        "rankguard",
        "run",
        "-n",
        "2",
        "--run-dir",
        str(tmp_path / "run"),
        str(tmp_path / "program.py"),
    ]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as front:
        assert front.stderr is not None
        while b"all 2 ranks ready" not in (line := front.stderr.readline()):
            assert line
        for rank in range(2):
            while not (tmp_path / "run" / f"rank-{rank}" / "attempt-0" / "stdout.log").read_text().endswith("\n"):
                time.sleep(0.01)  # it was printed before, and is kept as soon as there is time
        data, page = _page(tmp_path / "run")
        assert (data["view"]["live"], data["view"]["state"], data["view"]["report"]) == (True, "ready", None)
        assert "correct-horse" not in page
        assert "my secret is ***" in page

        warden = _child(front.pid, b"warden.py")
        supervisor = _child(warden, b"warden.py")
        ranks = [os.pidfd_open(pid) for pid in _children(supervisor)]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none tells of another's end
            for pid in (supervisor, warden, front.pid):
                os.kill(pid, number)
        for pidfd in ranks:
            assert select.select([pidfd], [], [], 60)[0]
            os.close(pidfd)
    data, page = _page(tmp_path / "run", env=env)

    assert (data["view"]["state"], data["view"]["live"]) == ("cut off", False)
    assert {rank["phase"] for rank in data["view"]["ranks"]} == {"ready"}
    assert data["logs"][0]["by_general_rules"] is True
    assert "correct-horse" not in page, "the variables of this shell are hidden"


def _child(pid: int, word: bytes) -> int:
    return next(child for child in _children(pid) if word in Path(f"/proc/{child}/cmdline").read_bytes())


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_every_page_is_json_that_any_reader_takes(tmp_path: Path) -> None:
    """No NaN, no infinity: JSON has none."""
    _run(tmp_path, STORM, "-n", "2")
    data, _ = _page(tmp_path / "run")
    json.dumps(data, allow_nan=False)
