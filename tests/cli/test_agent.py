"""`rankguard agent`, as whoever places agents has it: a job on stdin, and stdin's end as the end of whom placed it.

The jobs are of one machine, so that nothing but the verb itself is tested; real processes.
"""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rankguard import inside
from rankguard.cli.agent import GONE
from rankguard.cli.completion import SHELLS
from rankguard.cli.help import everything, overview
from rankguard.launchers.function import pack
from rankguard.record import to_data
from rankguard.spec import job_spec

PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))
with open(sys.argv[1], "w") as fifo:
    fifo.write(f"{{os.getpid()}} {{len(sys.stdin.read())}}\\n")
while True:
    time.sleep(0.02)  # a signal that comes just before a pause() would be waited for in vain
"""


@pytest.fixture
def place(tmp_path):
    """`place(*argv, **of_the_job)` → the agent, its job on its stdin, which stays open."""
    placed = []

    def one(*argv: str, python: bool = False, **more: object) -> subprocess.Popen[bytes]:
        more |= {"run_dir": tmp_path / "run", "start": "exec"}
        spec, _warning = job_spec(command=argv, argv=argv, nprocs=2, python=python, **more)
        agent = started()
        agent.stdin.write(json.dumps(to_data(spec)).encode() + b"\n")
        agent.stdin.flush()
        return agent

    def started(*words: str) -> subprocess.Popen[bytes]:
        words = (sys.executable, "-P", "-m", "rankguard", "agent", *words)
        agent = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        placed.append(agent)
        return agent

    one.started = started
    yield one
    for agent in placed:
        agent.kill()
        agent.wait()
        for stream in (agent.stdin, agent.stdout, agent.stderr):
            stream.close()


@pytest.fixture
def waiting(tmp_path):
    """`waiting(code)` → a program whose ranks tell who they are and end with `code` on SIGTERM; `told()` → their pidfds."""
    fifo, program, fds = tmp_path / "fifo", tmp_path / "program.py", []
    os.mkfifo(fifo)
    # Open all the time: who closes it after the first rank's line takes it from the second, whose line is then lost.
    told_here = os.open(fifo, os.O_RDWR)

    def write(code: int) -> tuple[str, ...]:
        program.write_text(PROGRAM.format(code=code))
        return sys.executable, str(program), str(fifo)

    def told(count: int) -> list[int]:
        said = b""
        while said.count(b"\n") < count:
            said += os.read(told_here, 4096)
        lines = said.decode().splitlines()
        assert [line.split()[1] for line in lines] == ["0"] * count  # no rank has the agent's stdin
        fds.extend(os.pidfd_open(int(line.split()[0])) for line in lines)
        return fds

    write.told = told
    yield write
    for fd in (*fds, told_here):
        os.close(fd)


def all_ended(fds: list[int]) -> bool:
    return len(select.select(fds, [], [], 0)[0]) == len(fds)


def verdict(folder: Path) -> dict:
    return json.loads((folder / "run" / "verdict.json").read_text())


def test_the_exit_status_is_the_verdicts_and_nothing_is_printed(place, tmp_path):
    agent = place("/bin/sh", "-c", "exit $((RANK * 3))")

    assert agent.wait(30) == 3
    assert (agent.stdout.read(), agent.stderr.read()) == (b"", b"")
    assert verdict(tmp_path)["culprit"]["rank"] == 1


@pytest.mark.parametrize(("code", "status"), [(0, 0), (5, 143)])
def test_the_ranks_end_with_whoever_placed_the_agent(place, waiting, tmp_path, code, status):
    agent = place(*waiting(code))
    ranks = waiting.told(2)

    agent.stdin.close()

    assert agent.wait(30) == status
    assert all_ended(ranks)
    told = verdict(tmp_path)
    assert (told["outcome"], told["stopped_by"]["signal"]) == ("interrupted", None)
    assert GONE in told["statement"]


def test_what_else_comes_on_stdin_means_nothing(place, waiting):
    agent = place(*waiting(0))
    ranks = waiting.told(2)

    agent.stdin.write(b"more\n" * 5000)
    agent.stdin.flush()
    os.kill(agent.pid, signal.SIGTERM)

    assert agent.wait(30) == 0
    assert all_ended(ranks)


def test_whoever_placed_it_is_killed(place, waiting, tmp_path):
    """The kernel closes the pipe."""
    line = tmp_path / "line"
    words = (sys.executable, "-P", "-m", "rankguard", "agent")
    spec, _warning = job_spec(
        command=("x",), argv=waiting(0), nprocs=1, python=False, start="exec", run_dir=tmp_path / "run"
    )
    line.write_text(json.dumps(to_data(spec)) + "\n")
    reading, writing = os.pipe()
    holder = subprocess.Popen(["/bin/sh", "-c", f"cat {line}; exec sleep 1000"], stdout=writing)
    os.close(writing)
    agent = subprocess.Popen(words, stdin=reading)
    os.close(reading)
    try:
        ranks = waiting.told(1)
        holder.kill()
        assert agent.wait(30) == 0
        assert all_ended(ranks)
    finally:
        holder.kill()
        holder.wait()
        agent.kill()
        agent.wait()


def add(rank, numbers):
    print("sum", rank.rank, sum(numbers))


def test_a_function_arrives_as_text(place, tmp_path):
    """As of `launch(on="ray")`: no descriptor comes with the job."""
    parcel = pack(add, ([1, 2, 39],), {})
    argv = (sys.executable, inside.BOOTSTRAP, "--function", "3")
    agent = place(*argv, python=True, cargo=parcel.cargo, import_path=parcel.path)

    assert agent.wait(30) == 0
    assert sorted(agent.stdout.read().splitlines()) == [b"[0] sum 0 42", b"[1] sum 1 42"]
    assert parcel.cargo not in (tmp_path / "run" / "events.jsonl").read_text()


@pytest.mark.parametrize(
    "line", [b"", b"no end of line", b"[\n", b"{}\n", b'"text"\n', b"null\n", b'{"run_id": 1}\n', b"\xff\n"]
)
def test_what_is_no_job_is_refused(place, line):
    agent = place.started()
    _out, err = agent.communicate(line, 30)

    assert agent.returncode == 2
    assert err.startswith(b"error: `rankguard agent`: expected a job on stdin")


def test_no_help_names_it(place):
    agent = place.started("--help")
    _out, err = agent.communicate(b"", 30)

    assert (agent.returncode, err.splitlines()[0]) == (2, b"error: `rankguard agent` is started by rankguard itself")
    assert "rankguard.cli.agent" not in everything() + overview()
    for text in (overview(), *("\n".join(made()) for made in SHELLS.values())):
        assert not [line for line in text.splitlines() if line.strip().startswith("agent ")]
