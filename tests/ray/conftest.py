"""A Ray cluster of several raylets on this machine, and the program that has it place agents. `make test-ray`."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

HERE = Path(__file__).parent
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}  # fmt: skip
LIMIT = 60.0
"""Of each wait for a fact: Ray starts in 2 s on a quiet machine, and in 10 on a busy one."""


def line_of(stream: Any, limit: float = LIMIT) -> Any:
    """The next line of an unbuffered pipe, as JSON; null at its end."""
    waiter = select.poll()
    waiter.register(stream, select.POLLIN)
    read = b""
    while not read.endswith(b"\n"):
        assert waiter.poll(limit * 1000), f"nothing within {limit} s"
        one = os.read(stream.fileno(), 1)
        if not one:
            return None
        read += one
    return json.loads(read)


class Raylets:
    """The cluster."""

    def __init__(self, gpus: list[int], cpus: int = 2, config: dict[str, Any] | None = None, **env: str) -> None:
        asked = {"cpus": cpus, "gpus": gpus, "config": config or {}}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "cluster.py"), json.dumps(asked)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            env={**os.environ, **RAY, **env},
        )  # fmt: skip
        told = line_of(self.process.stdout)
        assert told is not None, "no cluster"
        self.address: str = told["address"]
        self.pids: list[int] = told["nodes"]

    def ask(self, line: str) -> Any:
        self.process.stdin.write(line.encode() + b"\n")
        return line_of(self.process.stdout)

    def replace(self, pid: int, gpus: int) -> None:
        """A new raylet for one that was killed."""
        self.ask(f"forget {pid}")
        self.pids[self.pids.index(pid)] = self.ask(f"add {gpus}")

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(LIMIT)
        finally:
            self.process.stdout.close()


@pytest.fixture(scope="session")
def raylets() -> Iterator[Raylets]:
    """Three nodes of 2 CPUs; the last has 4 GPUs, as far as Ray knows."""
    made = Raylets([0, 0, 4])
    yield made
    made.close()


class Placer:
    """`rankguard.nodes.rayplace`, started as a supervisor does it."""

    def __init__(self, folder: Path, address: str, count: int = 3, nproc: int = 2, **more: Any) -> None:
        self.folder = folder
        for name in ("journal", "end"):
            os.mkfifo(folder / name)
        # Held open for both directions, so that nobody waits for another end.
        self.journal = open(os.open(folder / "journal", os.O_RDWR), "rb", buffering=0)  # noqa: SIM115
        self.end = os.open(folder / "end", os.O_RDWR)
        env = {**os.environ, "JOURNAL": str(folder / "journal"), "END": str(folder / "end"), **more.pop("env", {})}
        share = {"host": "", "port": 1, "count": count, "token": "secret", "node": None}
        spec = {
            "run_id": folder.name, "nprocs": nproc, "env": env, "cwd": str(folder), "share": share, "node": "nowhere",
            "run_dir": "/nowhere", "command": ["true"], "argv": ["true"], **more.pop("spec", {}),
        }  # fmt: skip
        settings = {"ray_address": address, **more.pop("settings", {})}
        plan = {
            "spec": spec, "count": count, "nproc": nproc, "settings": settings, "join_timeout": LIMIT,
            "command": [sys.executable, str(HERE / "standin.py")], **more,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rankguard.nodes.rayplace"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env={**os.environ, **RAY},
        )  # fmt: skip
        self.said = b""
        self.reader = threading.Thread(target=self._read_errors)
        self.reader.start()
        self.process.stdin.write(json.dumps(plan).encode() + b"\n")
        self.agents: list[dict[str, Any]] = []

    def _read_errors(self) -> None:
        self.said = self.process.stderr.read()

    def next(self) -> Any:
        """The next line that is not about waiting."""
        while (line := line_of(self.process.stdout)) is not None:
            if "told" not in line:
                return line
        return None

    def placed(self, count: int = 3) -> list[dict[str, Any]]:
        """All agents run: what each says of itself, by node."""
        lines = [self.next() for _ in range(count)]
        assert [line["placed"]["node"] for line in lines] == list(range(count)), (lines, self.said)
        self.agents = sorted((line_of(self.journal) for _ in range(count)), key=lambda agent: agent["node"])
        return self.agents

    def let_end(self) -> None:
        """All ranks end by themselves."""
        os.write(self.end, b"." * 64)

    def everybody(self) -> list[int]:
        return [pid for agent in self.agents for pid in (agent["pid"], *agent["ranks"])]

    def close(self) -> int:
        if not self.journal.closed:
            self.process.stdin.close()
            self.process.wait(LIMIT)
            self.reader.join()
            for stream in (self.process.stdout, self.process.stderr, self.journal):
                stream.close()
            os.close(self.end)
        return self.process.returncode


@pytest.fixture
def place(tmp_path: Path, raylets: Raylets, wait_for_exit: Callable[..., None]) -> Iterator[Callable[..., Placer]]:
    """Starts a placing program; at the end of the test nothing that it placed is alive."""
    started: list[Placer] = []

    def start(**more: Any) -> Placer:
        folder = tmp_path / f"job-{len(started)}"
        folder.mkdir()
        started.append(Placer(folder, more.pop("address", raylets.address), **more))
        return started[-1]

    yield start
    for placer in started:
        placer.close()
        for pid in placer.everybody():
            wait_for_exit(pid, LIMIT)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])
