"""`rankguard watch` as a container's own process: a process three levels down is killed in a container that lacks
something, and the engine, which would hang, is ended with the right status; signals, orphans, the last word.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.containers.box import container, needs_container, open_to_all
from tests.containers.test_taken_away import CASES, Case
from tests.faults.nest import Nest
from tests.marks import slowly
from tests.others import why_no_stranger

pytestmark = needs_container
ENGINE = """
import os, shutil, signal, subprocess, sys, time
CAT = shutil.which("cat")
def titled(title): return subprocess.Popen([title], executable=CAT, stdin=subprocess.PIPE)
what = sys.argv[1]
if what == "core":
    workers = [titled(f"VLLM::Worker_TP{n}") for n in range(2)]
    if sys.argv[2] == "ends": workers[1].wait(); sys.exit(0)
    while True: signal.pause()
def heard(number, _frame):
    with open("heard", "a") as file: file.write("root\\n")
    os.kill(core.pid, signal.SIGTERM); os._exit(0)
signal.signal(signal.SIGTERM, heard)
if what == "orphans":
    for _ in range(200): subprocess.run(["sh", "-c", "(:) & (:) &"])
core = subprocess.Popen([sys.executable, __file__, "core", what])
core.wait()
while what != "ends": signal.pause()
"""
QUICK = ("cgroups read-only", "home")


class Engine:
    """Watched in a container of its own."""

    def __init__(self, nest: Nest, case: Case, what: str, *options: str) -> None:
        if "--reuid" in case.then and why_no_stranger() is not None:
            pytest.skip(str(why_no_stranger()))
        self.nest, self.folder = nest, Path(nest.folder, "run")
        Path(nest.top).chmod(0o755)
        open_to_all(nest.folder, nest.home, nest.tmp)
        program = Path(nest.top, "engine.py")
        program.write_text(ENGINE)
        env = nest.env(TOP=nest.top)
        for name, value in case.env.items():
            env.pop(name, None)
            env |= {} if value is None else {name: value}
        words = [
            "watch",
            "--run-dir",
            str(self.folder),
            "--settle",
            "0.2",
            *options,
            "--",
            sys.executable,
            str(program),
            what,
        ]
        before = container(*case.setup, then=case.then)
        self.process = nest.start([*before, sys.executable, "-m", "rankguard", *words], env=env)

    def joined(self, count: int) -> list[int]:
        """Until so many processes take part; their pids as they are seen out here, by their number."""
        wait(lambda: len([fact for fact in self.facts() if fact["fact"] == "Joined"]) >= count, self.process)
        titles = {
            line.split("] ")[1].strip(): pid for pid, line in self.nest.alive().items() if "VLLM::Worker_TP" in line
        }
        return [titles[name] for name in sorted(titles)]

    def facts(self) -> list[dict]:
        try:
            lines = (self.folder / "events.jsonl").read_text().splitlines(keepends=True)
        except OSError:
            return []
        return [json.loads(line) for line in lines if '"fact"' in line and line.endswith("\n")]

    def verdict(self) -> dict:
        return json.loads((self.folder / "verdict.json").read_text())


def wait(true: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 60
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize("what", [*QUICK, *slowly(*(name for name in CASES if name not in QUICK))])
def test_a_worker_is_killed_and_the_engine_would_hang(what: str) -> None:
    with Nest() as nest:
        engine = Engine(nest, CASES[what], "hangs")
        os.kill(engine.joined(2)[1], signal.SIGKILL)
        status, said = nest.ended()

        assert status == 137, said
        culprit = engine.verdict()["culprit"]
        assert (culprit["name"], culprit["role"], culprit["rank"]) == ("VLLM::Worker_TP1", "Worker", None)
        assert (culprit["cause"]["kind"], culprit["cause"]["confidence"]) == ("killed", "proven")


def test_never_0_after_a_failure_though_the_engine_says_so() -> None:
    with Nest() as nest:
        engine = Engine(nest, CASES["nothing"], "ends", "--settle", "20")
        os.kill(engine.joined(2)[1], signal.SIGKILL)
        status, said = nest.ended()

        assert (status, engine.verdict()["outcome"]) == (137, "failed"), said


def test_a_request_reaches_the_engine_s_root_alone() -> None:
    """From outside the namespace, to PID 1; the workers hear of it from their own engine."""
    with Nest() as nest:
        engine = Engine(nest, CASES["nothing"], "hangs")
        engine.joined(2)
        os.kill(nest.ours()["front"], signal.SIGTERM)
        status, said = nest.ended()

        assert status == 0, said
        assert Path(nest.folder, "heard").read_text() == "root\n"


@pytest.mark.slow
def test_orphans_of_the_engine_are_reaped() -> None:
    with Nest() as nest:
        engine = Engine(nest, CASES["nothing"], "orphans")
        engine.joined(2)
        front = nest.ours()["front"]
        count = ["nsenter", "-t", str(front), "-p", "-m", "ps", "-eo", "stat="]
        wait(
            lambda: "Z" not in subprocess.run(count, capture_output=True, text=True, check=True).stdout, engine.process
        )
        os.kill(front, signal.SIGTERM)
        assert nest.ended()[0] == 0
