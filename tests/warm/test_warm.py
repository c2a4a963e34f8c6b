"""Ranks that are forked of a server which has imported their modules: the same ranks, sooner, or executed after all."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.warm.conftest import Warm, notes

COUNTED = "import os\nopen(os.environ['COUNT'], 'a').write(f'{os.getpid()}\\n')\n"
USE = "import heavy\n"
WAIT = "\nsignal.pause()"


def test_a_module_is_imported_once_and_every_rank_has_it(warm: Warm) -> None:
    count = warm.packages / "count"
    warm.env["COUNT"] = str(count)
    warm.package("heavy", COUNTED)

    ended = warm.run(4, USE + "print(heavy.__name__, os.getpid(), os.getppid())")

    assert ended.status == 0, ended.stderr
    assert ended.verdict["start"] == "warm"
    (importer,) = count.read_text().split()
    told = [line.split()[1:] for line in ended.stdout.splitlines()]
    assert [name for name, _pid, _parent in told] == ["heavy"] * 4
    assert len({pid for _name, pid, _parent in told}) == 4
    assert len({parent for _name, _pid, parent in told}) == 1  # the supervisor
    assert importer not in {pid for _name, pid, _parent in told} | {parent for _name, _pid, parent in told}
    assert "has imported heavy" in notes(ended)


def test_no_probe_tells_warm_from_exec(warm: Warm) -> None:
    warm.package("heavy", "")
    probe = (Path(__file__).with_name("probe.py")).read_text()
    (warm.ranks.folder / "probe.py").write_text(probe)
    found = {}
    for start in ("exec", "warm"):
        out = warm.ranks.folder / "found"
        out.mkdir(exist_ok=True)
        ended = warm.ranks.words(
            ["-n", "2", "--start", start, "--master-port", "29512", str(warm.ranks.folder / "probe.py"), str(out)],
            env=warm.env,
        )
        assert ended.verdict["start"] == start, notes(ended)
        run_id, folder = ended.verdict["run_id"], str(ended.folder)
        text = (out / "1.json").read_text()
        found[start] = json.loads(text.replace(folder, "FOLDER").replace(run_id, "RUN"))

    assert {name: told for name, told in found["warm"].items() if told != found["exec"][name]} == {}
    assert found["warm"].keys() == found["exec"].keys()


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", "there are 2 threads"),
        # A child that ends with whoever started it.
        ("import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)", "there is a child process"),
        ("import socket\nline = socket.socketpair()", "socket:"),
        ("import os\nrank = os.environ.get('RANK')", "heavy reads RANK when it is imported"),
        ("import os\nif 'LOCAL_RANK' not in os.environ: pass", "heavy reads LOCAL_RANK when it is imported"),
        ("import sys, os\nif 'RANK' not in os.environ: sys.exit(3)", "importing heavy raised SystemExit"),
        ("import os\nif not os.environ.get('NOTIFY_SOCKET'): os.kill(os.getpid(), 11)", "was ended by SIGSEGV"),
    ],
)  # fmt: skip
def test_what_cannot_be_forked_is_executed_and_the_module_is_named(warm: Warm, text: str, because: str) -> None:
    warm.package("heavy", text)

    ended = warm.run(2, USE)

    assert ended.status == 0, ended.stderr
    assert ended.verdict["start"] == "exec"
    assert because in notes(ended)
    assert "heavy" in notes(ended) or "server" in notes(ended)


def test_what_a_module_prints_every_rank_prints(warm: Warm) -> None:
    warm.package("heavy", "import sys\nprint('to out')\nprint('to err', file=sys.stderr)")

    ended = warm.run(3, USE + "print('main')")

    assert ended.verdict["start"] == "warm"
    for rank in range(3):
        assert (ended.folder / f"rank-{rank}/attempt-0/stdout.log").read_text() == "to out\nmain\n"
        assert (ended.folder / f"rank-{rank}/attempt-0/stderr.log").read_text() == "to err\n"


def test_a_module_that_cannot_be_imported_is_met_by_the_program(warm: Warm) -> None:
    warm.package("heavy", "")
    warm.package("broken", "raise ValueError('no GPU here')")
    text = "import heavy\ntry:\n    import broken\nexcept ValueError:\n    broken = None\nprint(broken)"

    ended = warm.run(2, text)

    assert ended.verdict["start"] == "warm"
    assert sorted(ended.stdout.splitlines()) == ["[0] None", "[1] None"]


def test_each_rank_draws_its_own_random_numbers(warm: Warm) -> None:
    warm.package("heavy", "import random, tempfile, uuid")

    ended = warm.run(4, USE + "import random, uuid\nprint(random.random(), uuid.uuid4())")

    told = [word for line in ended.stdout.splitlines() for word in line.split()[1:]]
    assert len(told) == len(set(told)) == 8


@pytest.mark.parametrize(
    ("text", "kind", "status"),
    [
        ("if RANK == 1: raise ValueError('shard 7')", "exception", 1),
        ("if RANK == 1: sys.exit(3)", "exit-code", 3),
        ("if RANK == 1: __import__('ctypes').string_at(0)", "crash", 139),
        ("if RANK == 1: os.kill(os.getpid(), 9)", "killed", 137),
    ],
)
def test_a_failure_is_told_as_under_exec(warm: Warm, text: str, kind: str, status: int) -> None:
    warm.package("heavy", "")
    told = {}
    for start in ("warm", "exec"):
        ended = warm.run(3, USE + text + WAIT, start=start)
        assert ended.verdict["start"] == start
        assert ended.status == status
        culprit = ended.verdict["culprit"]
        trace = (culprit["traceback"] or "").replace(str(ended.folder), "")
        told[start] = (
            culprit["rank"],
            culprit["ending"],
            culprit["cause"]["kind"],
            culprit["cause"]["confidence"],
            trace,
        )
        assert culprit["cause"]["kind"] == kind
    assert told["warm"] == told["exec"]


BLOCKS = """
import os
if "NOTIFY_SOCKET" not in os.environ:  # the server
    open(os.environ["HERE"], "w").write(str(os.getpid()))
    open(os.environ["NEVER"]).read()
"""


def importing(warm: Warm) -> tuple[subprocess.Popen[str], int, Path]:
    """A job whose server is in the middle of an import, the server, and the run's folder."""
    for name in ("HERE", "NEVER"):
        warm.env[name] = str(warm.packages / name)
        os.mkfifo(warm.env[name])
    warm.package("heavy", BLOCKS)
    folder = warm.ranks.next_dir()
    words = warm.ranks.command(
        "--start", "warm", "-n", "2", "--run-dir", str(folder), warm.ranks.program(USE + "print('went on')")
    )
    job = subprocess.Popen(words, env=warm.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with open(warm.env["HERE"]) as here:
        return job, int(here.read()), folder


def test_a_server_that_is_killed_while_it_imports_costs_nothing_but_time(warm: Warm) -> None:
    job, server, folder = importing(warm)

    os.kill(server, signal.SIGKILL)
    out, err = job.communicate()

    assert job.returncode == 0, err
    assert sorted(out.splitlines()) == ["[0] went on", "[1] went on"]
    told = json.loads((folder / "verdict.json").read_text())
    assert told["start"] == "exec"
    assert "the warm server was ended by SIGKILL" in (folder / "events.jsonl").read_text()


def test_a_job_that_is_told_to_end_while_it_imports_ends(warm: Warm, wait_for_exit) -> None:
    job, server, folder = importing(warm)

    job.send_signal(signal.SIGTERM)
    _out, err = job.communicate()

    assert job.returncode == 143, err
    told = json.loads((folder / "verdict.json").read_text())
    assert told["outcome"] == "interrupted"
    assert told["teardown"]["survivors"] == []
    wait_for_exit(server)


@pytest.mark.parametrize("victim", ["supervisor", "warden", "front"])
def test_no_server_is_left_when_one_of_ours_is_killed(warm: Warm, wait_for_exit, victim: str) -> None:
    job, server, _folder = importing(warm)
    supervisor = parent(server)
    os.kill({"supervisor": supervisor, "warden": parent(supervisor), "front": job.pid}[victim], signal.SIGKILL)

    job.communicate()
    wait_for_exit(server)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_function_is_started_warm(warm: Warm) -> None:
    count = warm.packages / "count"
    warm.env["COUNT"] = str(count)
    warm.package("heavy", COUNTED)
    caller = warm.packages / "caller.py"
    caller.write_text(
        "import rankguard, os\n"
        "def work(rank, what):\n    import heavy\n    rank.ready([what, rank.rank])\n"
        "if __name__ == '__main__':\n"
        "    with rankguard.launch(work, nprocs=3, args=('x',), start='warm', preload=['heavy']) as job:\n"
        "        print(job.wait_ready(timeout=30))\n"
        "        print(job.wait().start)\n"
    )
    ended = subprocess.run(
        [sys.executable, str(caller)], env=warm.env, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.stdout.splitlines() == ["[['x', 0], ['x', 1], ['x', 2]]", "warm"], ended.stderr
    assert len(count.read_text().split()) == 1


@pytest.mark.parametrize(
    ("options", "because"),
    [
        (("--numa-binding", "node"), "bound to processors"),
        (("--preload", "none"), ""),
    ],
)
def test_options_that_decide(warm: Warm, options: tuple[str, ...], because: str) -> None:
    warm.package("heavy", "")

    ended = warm.run(2, USE, *options)

    assert ended.status == 0
    assert ended.verdict["start"] == ("exec" if because else "warm")
    assert because in notes(ended)


def test_many_ranks(warm: Warm) -> None:
    warm.package("heavy", "")

    ended = warm.run(64, USE + "print('here')")

    assert ended.status == 0
    assert ended.verdict["start"] == "warm"
    assert len(ended.stdout.splitlines()) == 64


def test_what_a_wrapper_or_a_module_sets_stays(warm: Warm) -> None:
    """PYTHON_EXEC may be a script that sets variables, and modules set some when they are imported."""
    wrapper = warm.packages / "python"
    wrapper.write_text(f'#!/bin/sh\nexport MINE=yes CHANGED=by-wrapper\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    warm.env |= {"PYTHON_EXEC": str(wrapper), "CHANGED": "by-caller", "GONE": "no"}
    warm.package("heavy", "import os\nos.environ['SET'] = 'at import'\ndel os.environ['GONE']")
    asked = "print(*(os.environ.get(n, '-') for n in ('MINE', 'CHANGED', 'SET', 'GONE')), sep=',')"
    told = {}
    for start in ("exec", "warm"):
        ended = warm.run(2, USE + asked, start=start)
        assert ended.verdict["start"] == start, notes(ended)
        told[start] = sorted(ended.stdout.splitlines())

    assert told["warm"] == told["exec"] == ["[0] yes,by-wrapper,at import,-", "[1] yes,by-wrapper,at import,-"]


def test_a_module_that_goes_through_all_variables_and_a_watchdog_of_each_rank(warm: Warm) -> None:
    """As tqdm does, for those of its own; and whose heartbeats are wanted is each rank's own pid (sd_watchdog_enabled(3))."""
    warm.package("heavy", "import os\nof_ours = {k: v for k, v in os.environ.items() if k.startswith('HEAVY_')}")
    text = "import os, heavy\nprint(os.environ['WATCHDOG_PID'] == str(os.getpid()), 'WATCHDOG_PID' in heavy.of_ours)"
    ended = warm.run(2, text, "--stall-timeout", "60")

    assert sorted(ended.stdout.splitlines()) == ["[0] True False", "[1] True False"]
    assert "forked of a server that has imported heavy" in notes(ended)
