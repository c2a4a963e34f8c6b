"""How the blocks of the pages are run: in a folder that has what they speak of, with stand-ins for what no test can have.

The stand-ins are programs on PATH (`sandbox/bin`): an engine of three processes with a health page in place of vLLM and
SGLang, `srun` that starts the command four times on this machine, a plain launcher for `torchrun`, `mail`. Ports, pids and
names of hosts are put in place of those of the text; everything else is run as it stands, by bash, under the real
rankguard. A server is left to start until it says what `until` tells, and asked to end as its user would do it.

Read next: `blocks.py` (what is read of all blocks), `test_played.py`.
"""

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.debug.desk import wait_until
from tests.docs.blocks import Block, commands

SANDBOX = Path(__file__).parent / "sandbox"
PATIENCE = 120.0
"""Seconds that one command may take: many times what a busy machine needs."""


class Play(NamedTuple):
    """What one command needs, and what must come of it."""

    status: int = 0
    until: str = ""
    """It goes on until it is ended: once this was said, SIGTERM."""
    engine: str = ""
    """Runs already, when it begins; ended once the watch is there, and the watch ends with it."""
    or_else: int | None = None
    """Another status that the page speaks of, where this machine does not allow what is asked for."""
    before: str = ""
    """Run first, however it ends."""
    leaves: str = ""
    """A file that must be there afterwards."""
    only: str = ""
    """Why it is read and not run."""


UP, READY, ALL_READY = "the engine is up", "the engine is ready after", "ranks ready in"
OTHER_HOSTS = "it is the same on each of several hosts; tests/nodes has them"
PLAYS = {
    "make demo": Play(only="`.ci/run` runs it"),
    "make test": Play(only="this is among what it runs"),
    "make docs": Play(only="`.ci/run` runs it"),
    "pip install .": Play(only="tests of the wheel install it"),
    "rankguard run -n 8 --debug 3 train.py": Play(only="needs a terminal; docs/scenes.md has it recorded from one"),
    "rankguard run --nnodes 4 --rdzv-endpoint gpu01:29500 -n 8 train.py": Play(only=OTHER_HOSTS),
    "rankguard completion bash >> ~/.bashrc": Play(leaves=".bashrc"),
    "rankguard watch --pid 4711": Play(engine="python engine.py"),
    "rankguard watch --match 'sglang.launch_server'": Play(engine="python -m sglang.launch_server --token TOKEN"),
    "rankguard watch --match '^VLLM::EngineCore' --on-failure report --http 0.0.0.0:9090": Play(
        engine="exec -a VLLM::EngineCore_TOKEN python engine.py"
    ),
    "rankguard run -n 8 --ready-timeout 600 serve.py": Play(until=ALL_READY),
    "rankguard run -n 8 --http :8080 --ready-timeout 600 serve.py": Play(until=ALL_READY),
    "rankguard report --json | jq '.culprit.rank, .culprit.cause.kind'": Play(before="rankguard run -n 2 false"),
    "torchrun --nproc-per-node 3 -m rankguard.testing.faults segfault --folder /tmp/empty": Play(status=1),
    "rankguard run -n 3 -m rankguard.testing.faults segfault --at starting --victim 2": Play(status=139),
    "python -m rankguard.testing.faults.play oom-child --at starting --start function": Play(or_else=3),
}
"""By the command as it stands in the page; what is not here is run to its end, which must be 0."""


def play_of(command: str) -> Play:
    plain = re.sub(r"\s+#.*", "", command).strip()
    if plain in PLAYS:
        return PLAYS[plain]
    if "rankguard watch" in plain:
        return Play(until=READY if "--ready-" in plain else UP)
    if "--on-verdict" in plain and "mail" in plain:
        return Play(leaves="mailed")
    return Play()


class Sandbox:
    """A folder with the programs that the pages speak of, and an environment in which they are found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(SANDBOX, folder, dirs_exist_ok=True)
        self.runs = folder / "runs"
        self.runs.mkdir()
        self.token = f"token-{os.getpid()}-{time.monotonic_ns()}"
        path = [str(folder / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]]
        self.env = os.environ | {
            "PATH": os.pathsep.join(path),
            "SANDBOX": str(folder),
            "HOME": str(folder),
            "RANKGUARD_HOME": str(self.runs),
            "PYTHONPATH": str(folder),
        }
        self.said = ""
        self._ports: dict[str, str] = {}

    def play(self, command: str, play: Play) -> None:
        """Run it and hold it to what the play says; AssertionError tells what it said."""
        text = self._here(command)
        if play.before:
            subprocess.run(["bash", "-c", play.before], cwd=self.folder, env=self.env, capture_output=True)
        with self._engine(play) as engine:
            text = text.replace("--pid 4711", f"--pid {engine.pid}") if engine else text
            known = set(self.runs.iterdir())
            with self._started(text) as process:
                if play.until:
                    self._read(process, play.until)
                    process.send_signal(signal.SIGTERM)
                if engine:
                    wait_until(lambda: any((run / "state.json").exists() for run in set(self.runs.iterdir()) - known))
                    engine.terminate()
                self._read(process, None)
                status = process.wait(PATIENCE)
        assert status in (play.status, play.or_else), (
            f"{text}\nended with {status} (expected {play.status}):\n{self.said}"
        )
        assert not play.leaves or (self.folder / play.leaves).stat().st_size, f"{text}\nleft no {play.leaves}"

    def script(self, path: Path, *words: str) -> None:
        """Run a Python program to its end, which must be 0."""
        with self._started(f"exec {sys.executable} {' '.join(words)} {path}") as process:
            self._read(process, None)
            status = process.wait(PATIENCE)
        assert status == 0, f"{path.read_text()}\nended with {status}:\n{self.said}"

    def _here(self, command: str) -> str:
        """The command with what is of this machine in the place of what is of the writer's."""
        text = re.sub(r"\s+#.*", "", command).replace(" …", "").replace("/tmp/empty", str(self.folder / "empty"))
        text = text.replace("sglang.launch_server'", f"sglang.launch_server --token {self.token}'")
        text = text.replace("EngineCore'", f"EngineCore_{self.token}'")
        text = re.sub(r"(?<=--rdzv-endpoint )node-0", f"127.0.0.1:{self._port('node-0')}", text)
        for port in set(re.findall(r"(?<=:)\d{4,5}\b", text)) - set(self._ports.values()):
            text = re.sub(rf"(?<=:){port}\b", self._port(port), text)
        if health := re.search(r"--ready-http http://[\w.]+:(\d+)", text):
            self.env["ENGINE_PORT"] = health[1]
        alone = not set("|>&;") & set(re.sub(r"'[^']*'", "", text))
        return f"exec {text}" if alone else text  # so that the signal is its own, not the shell's

    def _port(self, named: str) -> str:
        """A free one of this machine for one that a page names; the same for the same."""
        if named not in self._ports:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._ports[named] = str(probe.getsockname()[1])
        return self._ports[named]

    @contextlib.contextmanager
    def _engine(self, play: Play) -> Iterator["subprocess.Popen[str] | None"]:
        if not play.engine:
            yield None
            return
        words = play.engine if play.engine.startswith("exec") else f"exec {play.engine}"
        with self._started(words.replace("TOKEN", self.token)) as engine:
            self._read(engine, UP)
            yield engine
            self._read(engine, None)
            assert engine.wait(PATIENCE) == 0

    @contextlib.contextmanager
    def _started(self, text: str) -> Iterator["subprocess.Popen[str]"]:
        process = subprocess.Popen(
            ["bash", "-c", text], cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def _read(self, process: "subprocess.Popen[str]", until: str | None) -> None:
        """What it says, until a text comes, or its end."""
        assert process.stdout is not None
        fd, said, deadline = process.stdout.fileno(), "", time.monotonic() + PATIENCE
        while until is None or until not in said:
            ready, _, _ = select.select([fd], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"nothing came of it within {PATIENCE:g} s:\n{self.said}"
            data = os.read(fd, 65536).decode(errors="replace")
            if not data:
                assert until is None, f"it ended before it said `{until}`:\n{self.said}"
                return
            said += data
            self.said += data


# ── Python ───────────────────────────────────────────────────────────────────────────────────────────────────────

PREAMBLE = (SANDBOX / "preamble.py").read_text()
NEEDS = {
    "job.wait_ready(timeout=600)\nexcept": "    job = rankguard.launch(crashing, nprocs=2, args=(args,))\n",
    "read_run": "    failed_run()\n",
    "events.jsonl": "    failed_run()\n    os.chdir(newest_run())\n",
    "me.alive()": "    me = rankguard.this_rank()\n",
}
"""What a block needs besides, by a text in it."""


def python(block: Block) -> str:
    """The program of a block: the names that it uses, and itself, as the main module of a program."""
    if "import pytest" in block.text:
        return block.text
    needs = "".join(code for text, code in NEEDS.items() if text in block.text)
    procs = "    procs, pipes = started()\n" if re.search(r"\bprocs\b", block.text) else ""
    body = "".join(f"    {line}\n" if line else "\n" for line in block.text.replace('"7f3a"', "").splitlines())
    ends = "    stop_all(procs)\n" if procs else ""
    return f"{PREAMBLE}\n\nif __name__ == '__main__':\n{needs}{procs}{body}{ends}"


def run(block: Block, folder: Path) -> list[str]:
    """Run a block; the commands of it that are only read, each with its reason."""
    sandbox = Sandbox(folder)
    if block.language == "python":
        program = sandbox.folder / "test_block.py"
        program.write_text(python(block))
        sandbox.script(
            program, *(["-m", "pytest", "-q", "-p", "no:cacheprovider"] if "import pytest" in block.text else [])
        )
        return []
    told = commands(block)
    if "node-1$ " in block.text:  # a console each: at the same time
        sandbox.play(together(told), Play(until=UP))
        return []
    left = []
    for command in told:
        play = play_of(command)
        if play.only:
            left.append(f"{command}: {play.only}")
        else:
            sandbox.play(command, play)
    return left


def together(told: list[str]) -> str:
    """Commands of several consoles as one, which ends when all have and passes SIGTERM on to each."""
    return "trap 'kill $(jobs -p)' TERM; " + " & ".join(told) + " & wait; wait; wait"
