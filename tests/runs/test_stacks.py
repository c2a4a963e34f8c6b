"""`rankguard stacks`: who does what in a live run, the odd one out first, and the job none the worse for it."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from tests.runs.jobs import TELL, Jobs, state, until

ONE_ODD = f"""
def load_shard():
    {TELL}
    while True: sum(range(1000))
def wait_for_all(r):
    {TELL}; os.read(r, 1)
load_shard() if RANK == 1 else wait_for_all(os.pipe()[0])
"""
WAITS = f"r, w = os.pipe()\n{TELL}; os.read(r, 1)"


def test_the_odd_one_out_comes_first(jobs: Jobs) -> None:
    live = jobs.start(4, ONE_ODD)
    live.asleep(0, 2, 3)

    told = jobs.ask("stacks")

    lines = told.stdout.splitlines()
    assert (told.returncode, told.stderr) == (0, "")
    assert lines[0].startswith("stacks of 4 of 4 ranks, ")
    assert re.fullmatch(r"rank 1 is in `load_shard` \(program-0\.py:\d+\)", lines[2])
    assert re.fullmatch(r"ranks 0, 2, 3 (wait|are) in `wait_for_all` \(program-0\.py:\d+\)", lines[3])
    assert f"rank 1: pid {live.pid(1)} " in told.stdout
    assert "bootstrap" not in told.stdout  # how we start a program is not what it does
    assert live.process.poll() is None


def test_it_is_kept_in_the_run_s_folder_and_noted_in_its_journal(jobs: Jobs) -> None:
    live = jobs.start(2, WAITS)

    first, second = jobs.ask("stacks", live.id), jobs.ask("stacks", "--rank", "1", str(live.folder))

    assert (live.folder / "stacks-1.txt").read_text() == first.stdout
    assert (live.folder / "stacks-2.txt").read_text() == second.stdout
    assert second.stdout.startswith("stacks of 1 of 1 ranks")
    assert "stacks-2.txt" in (live.folder / "events.jsonl").read_text()


def test_json_has_every_thread(jobs: Jobs) -> None:
    text = f"import threading\nthreading.Thread(target=threading.Event().wait, name='loader', daemon=True).start()\n{WAITS}"
    live = jobs.start(1, text)

    (rank,) = json.loads(jobs.ask("stacks", "--json").stdout)

    threads = {thread["name"]: thread for thread in rank["threads"]}
    assert (rank["rank"], rank["pid"]) == (0, live.pid(0))
    assert "loader" in threads
    assert threads["loader"]["frames"][-1]["function"].endswith("_bootstrap")


def test_a_secret_in_a_thread_s_name_is_hidden(jobs: Jobs) -> None:
    name = "uploader password=hunter2hunter2"
    text = f"import threading\nthreading.Thread(target=threading.Event().wait, name={name!r}, daemon=True).start()\n{WAITS}"
    live = jobs.start(1, text)

    told = jobs.ask("stacks").stdout + jobs.ask("stacks", "--json").stdout + (live.folder / "stacks-1.txt").read_text()

    assert told.count("uploader password=***") == 3
    assert "hunter2" not in told


def test_a_stopped_rank_is_called_so_and_still_read(jobs: Jobs) -> None:
    live = jobs.start(3, WAITS)
    os.kill(live.pid(2), signal.SIGSTOP)
    until(lambda: state(live.pid(2)) == "T")

    told = jobs.ask("stacks")

    assert re.search(
        r"^rank 2 is stopped by a signal \(SIGSTOP or SIGTSTP\), in `<module>`\s+\(program-0\.py:\d+\)$",
        told.stdout,
        re.MULTILINE,
    )
    assert state(live.pid(2)) == "T"  # nor did we wake it


def test_ranks_that_are_no_python_have_what_the_kernel_tells(jobs: Jobs) -> None:
    script = jobs.folder / "waits.sh"
    script.write_text("#!/bin/sh\nprintf x > $1\nexec sleep 1000\n")
    script.chmod(0o755)
    live = jobs.start(2, "", program=str(script))
    until(lambda: all(b"sleep" in Path(f"/proc/{live.pid(r)}/cmdline").read_bytes() for r in (0, 1)))
    until(lambda: state(live.pid(0)) == state(live.pid(1)) == "S")

    told = jobs.ask("stacks")

    assert "all 2 ranks wait in `clock_nanosleep`" in told.stdout


def test_a_script_s_python_is_found_below_it(jobs: Jobs) -> None:
    inner = jobs.ranks.program(f"def deep():\n    {TELL}; os.read(os.pipe()[0], 1)\ndeep()", "inner.py")
    script = jobs.folder / "starts.sh"
    script.write_text(f"#!/bin/sh\n{jobs.ranks.command()[0]} {inner} $1\necho never\n")
    script.chmod(0o755)
    live = jobs.start(1, "", program=str(script))

    told = jobs.ask("stacks")

    assert "in `deep` (inner.py:" in told.stdout
    assert f"child of {live.pid(0)}" in told.stdout


def test_many_ranks_at_once(jobs: Jobs) -> None:
    jobs.start(16, WAITS).asleep(*range(16))

    told = jobs.ask("stacks")

    assert told.returncode == 0
    assert re.search(r"^all 16 ranks (wait|are) in `<module>`", told.stdout, re.MULTILINE)


def test_a_job_that_ends_meanwhile_leaves_nothing_and_says_so(jobs: Jobs) -> None:
    live = jobs.start(8, WAITS)
    asking = [[*jobs.ranks.command()[:-1], "stacks", live.id] for _ in range(3)]
    asked = [subprocess.Popen(words, env=jobs.env, stdout=-1, stderr=-1, text=True) for words in asking]
    until(lambda: any(_is_py_spy(pid) for pid in _below(live.ours()[2])) or all(a.poll() is not None for a in asked))
    live.process.terminate()
    _out, err = live.process.communicate()

    assert live.process.returncode == 143, err
    for each in asked:
        out, said = each.communicate()
        assert out.startswith("stacks of") or said.startswith("error: ")
    verdict = json.loads((live.folder / "verdict.json").read_text())
    assert (verdict["teardown"]["survivors"], verdict["teardown"]["killed"]) == ([], [])  # py-spy is none of the job's


def test_asked_of_a_run_that_is_over(jobs: Jobs) -> None:
    run = jobs.run(1, "pass")

    told = jobs.ask("stacks")

    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == f"error: run {run} does not run on this machine\ntry:   rankguard report {run}\n"


def test_a_run_without_files_is_found_by_its_id(jobs: Jobs, tmp_path) -> None:
    nowhere = {"RANKGUARD_HOME": "/proc/none", "XDG_STATE_HOME": "/proc/none", "TMPDIR": "/proc/none"}
    live = jobs.start(1, WAITS, "--label", "a=b", env=nowhere)
    environ = Path(f"/proc/{_below(live.ours()[2])[0]}/environ").read_text()
    run_id = dict(entry.split("=", 1) for entry in environ.split("\0") if "=" in entry)["RANKGUARD_RUN_ID"]

    told = jobs.ask("stacks", run_id)

    assert "in `<module>` (program-0.py:" in told.stdout


def _below(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_py_spy(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "py-spy"
    except OSError:
        return False


YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")


@pytest.mark.skipif(os.getuid() != 0 or not YAMA.exists(), reason="needs root and a kernel with Yama (make test-uml)")
@pytest.mark.parametrize("scope", ["1", "2"])
def test_where_only_some_may_trace(jobs: Jobs, scope: str) -> None:
    """Yama's scope 1, as on Ubuntu: only ancestors may; py-spy is the rank's aunt, and the rank allows it
    (PR_SET_PTRACER). Scope 2: nobody may without a privilege, and the ranks tell their own stacks.
    """
    before = YAMA.read_text()
    YAMA.write_text(scope)
    try:
        without = ("setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace")
        jobs.start(2, WAITS, before=without)
        told = jobs.ask("stacks")
    finally:
        YAMA.write_text(before)

    assert re.search(r"^all 2 ranks (wait|are) in `<module>` \(program-0\.py:", told.stdout, re.MULTILINE), told.stdout
    assert ("calls of the main thread only, by faulthandler" in told.stdout) == (scope == "2"), told.stdout
