"""A sidecar: rankguard in a container of its own, in the pod's PID namespace, whose first process is `pause`. The engine's
container is killed as a whole, as by `memory.oom.group`; the sidecar is in another group, outlives that, and tells.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.containers.box import container, needs_container
from tests.faults.nest import Nest, children
from tests.linux._evidence_helpers import limited_group
from tests.run.test_memory import HOLD, inside
from tests.runs.jobs import until
from tests.runs.test_killed_together import kill_all, members

pytestmark = needs_container
ENGINE = (
    "import os, signal, sys, time\n"
    + HOLD
    + """
pid = os.fork()
if pid == 0:
    os.execv("/bin/cat", ["VLLM::Worker_TP0"]) if os.fork() else None
    open("up", "w").write("up\\n")
    os.read(os.open("go", os.O_RDONLY), 1)
    while True:
        hold(4)
        time.sleep(0.01)
os.waitpid(pid, 0)
"""
)


@pytest.mark.slow
def test_it_outlives_the_engine_s_container_and_says_what_became_of_it() -> None:
    with Nest() as nest, limited_group(150) as group:
        shutil.copy("/bin/sleep", f"{nest.top}/pause")
        Path(nest.top, "engine.py").write_text(ENGINE)
        os.mkfifo(f"{nest.folder}/go")
        nest.start([*container(), f"{nest.top}/pause", "120"])
        until(lambda: bool(children(nest.front.pid)))
        pod = [
            "nsenter",
            "-t",
            str(children(nest.front.pid)[0]),
            "-p",
            "-m",
            "sh",
            "-c",
            f'cd {nest.folder} && exec "$@"',
            "sh",
        ]
        engine = subprocess.Popen(
            [*pod, sys.executable, "-I", f"{nest.top}/engine.py"], stdin=subprocess.PIPE, env=nest.env(),
            preexec_fn=inside(group),  # noqa: PLW1509  # no threads here
        )  # fmt: skip
        words = ["watch", "--match", "engine[.]py", "--run-dir", f"{nest.folder}/run", "--report", "json"]
        words += ["--termination-log", f"{nest.top}/last-word"]
        sidecar = subprocess.Popen(
            [*pod, sys.executable, "-m", "rankguard", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=nest.env(), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        orphans: list[int] = []
        try:
            until(lambda: Path(nest.folder, "up").exists() and "Joined" in journal(nest))
            orphans = children(
                engine.pid
            )  # ours, when `nsenter` is killed with them; their namespace ends when they are reaped
            control, together = Path(group, "memory.oom_control"), Path(group, "memory.oom.group")
            if control.exists():
                control.write_text("1")  # held back, so that the test can kill all at once
            else:
                together.write_text("1")
            Path(nest.folder, "go").write_text("x")
            if control.exists():
                until(lambda: "under_oom 1" in control.read_text())
                kill_all(group)
            engine.wait(30)
            out, err = sidecar.communicate(timeout=30)
        finally:
            for process in (engine, sidecar):
                process.kill()
                process.communicate()
            for pid in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        until(lambda: not members(group))

    assert sidecar.returncode == 137, err
    verdict = json.loads(out)
    assert (verdict["outcome"], verdict["culprit"]["ending"]["signal"]) == ("failed", "SIGKILL")
    assert verdict["culprit"]["cause"]["kind"] in ("killed", "oom-kill")
    assert {rank["name"] for rank in verdict["ranks"]} >= {"the engine", "VLLM::Worker_TP0"}


def journal(nest: Nest) -> str:
    path = Path(nest.folder, "run", "events.jsonl")
    return path.read_text() if path.exists() else ""
