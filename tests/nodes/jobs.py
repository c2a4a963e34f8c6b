"""A job on the hosts of a rig: the same command once per node, its ranks and our own processes, and what each node says at the end.

A rank tells who it is by a line in a FIFO (`tell()`), so that a test knows when all are there and holds each by a pidfd.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.faults.nest import children
from tests.nodes.rig import Host

PORT = 29500
HANG = 60.0
"""Seconds. Of each wait for a fact: only a hang takes so long."""
TOKEN = "a token of the tests"
HEAD = """
import os, signal, socket, sys, time
RANK = int(os.environ["RANK"])

def tell(*words):
    with open(sys.argv[1], "wb", buffering=0) as fifo:
        fifo.write((" ".join(map(str, [RANK, os.getpid(), socket.gethostname(), *words])) + "\\n").encode())
"""
WAIT = "tell()\nsignal.pause()\n"
MET = """
# Every rank is bound to rank 0 by a connection, as the ranks of a collective are: what ends one ends all.
def meet():
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if RANK == 0:
        with socket.create_server(address) as listening:
            return [listening.accept()[0] for _ in range(int(os.environ["WORLD_SIZE"]) - 1)]
    while True:
        try:
            return [socket.create_connection(address)]
        except ConnectionRefusedError:
            pass

def together(links):
    tell()
    import select
    while True:
        for link in select.select(links, [], [])[0]:
            if not link.recv(1):
                raise ConnectionError("connection closed by peer")
"""


class Told(NamedTuple):
    """One line of a rank."""

    rank: int
    pid: int
    host: str
    words: tuple[str, ...]


class Node(NamedTuple):
    """What one node's command left."""

    host: str
    status: int
    stdout: str
    stderr: str
    verdict: dict[str, Any]
    took: float
    """Seconds from the start of the wait to its end."""

    @property
    def kind(self) -> str | None:
        culprit = self.verdict["culprit"]
        return culprit and culprit["cause"]["kind"]

    @property
    def last_line(self) -> str:
        return self.stderr.rstrip("\n").rpartition("\n")[2]


class Job:
    """A block; what is left of it is killed by the hosts' own end. `text`: what each rank runs, after `HEAD`."""

    def __init__(self, hosts: Sequence[Host], folder: Path, text: str, nproc: int = 2) -> None:
        self.hosts, self.folder, self.nproc = hosts, folder, nproc
        self.program = folder / "program.py"
        self.program.write_text(HEAD + text)
        self.fifo = folder / "told"
        os.mkfifo(self.fifo)
        self._fifo = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK)
        self._partial = b""
        self.args: tuple[str, ...] = ()
        self.fronts: dict[int, subprocess.Popen[str]] = {}
        self.ranks: dict[int, Told] = {}
        self._pidfds: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for fd in (self._fifo, *self._pidfds.values()):
            os.close(fd)

    def start(self, *options: str, only: Iterable[int] | None = None, **own: Any) -> Self:
        """The command on each host, or on those of `only`."""
        for number in range(len(self.hosts)) if only is None else only:
            self.start_one(number, *options, **own)
        return self

    def start_one(
        self, number: int, *options: str, node_rank: int | str | None = None, token: str = TOKEN, nproc: int | None = None,
        env: Mapping[str, str] = {}, **how: Any,
    ) -> subprocess.Popen[str]:  # fmt: skip
        """One node's command."""
        host = self.hosts[number]
        words = self.words(number if node_rank is None else node_rank, *options, nproc=nproc)
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | how
        self.fronts[number] = host.popen(
            words, env=host.env(RANKGUARD_TOKEN=token, RANKGUARD_HOME=str(self.home(number)), **env), **how
        )
        return self.fronts[number]

    def words(self, node_rank: int | str, *options: str, nproc: int | None = None) -> list[str]:
        """The command, as one types it."""
        return [
            sys.executable, "-m", "rankguard", "run",
            "--nnodes", str(len(self.hosts)), "--node-rank", str(node_rank),
            "--rdzv-endpoint", f"{self.hosts[0].address}:{PORT}", "--nproc-per-node", str(nproc or self.nproc),
            "--grace", "1", *options, str(self.program), str(self.fifo), *self.args,
        ]  # fmt: skip

    def home(self, number: int) -> Path:
        """Where one node keeps its runs."""
        return self.folder / f"home-{self.hosts[number].name}"

    def orders(self, number: int, kind: str) -> list[dict[str, Any]]:
        """What one node's journal has of an order, in their order."""
        lines = (self.run_dir(number) / "events.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line.get("order") == kind]

    def run_dir(self, number: int) -> Path:
        """The files of one node's run, as soon as there are some."""
        [found] = [path for path in self.home(number).iterdir() if (path / "events.jsonl").exists()]
        return found

    # ── While it runs ────────────────────────────────────────────────────────────────────────────────────────────

    def tellings(self, count: int, limit: float = HANG) -> list[Told]:
        """So many lines of the ranks, as they come."""
        found: list[Told] = []
        until = time.monotonic() + limit
        waiter = select.poll()
        waiter.register(self._fifo, select.POLLIN)
        while len(found) < count:
            line, newline, rest = self._partial.partition(b"\n")
            if newline:
                self._partial = rest
                rank, pid, host, *words = line.decode().split(" ")
                found.append(Told(int(rank), int(pid), host, tuple(words)))
                continue
            assert time.monotonic() < until, f"{len(found)} of {count} told within {limit} s; {self.said()}"
            if waiter.poll(200):
                self._partial += os.read(self._fifo, 65536)
            else:
                assert not any(front.poll() for front in self.fronts.values()), self.said()
        return found

    def up(self, count: int | None = None, limit: float = HANG) -> Self:
        """Wait until every rank has told who it is; each is held from then on."""
        for told in self.tellings(count or len(self.hosts) * self.nproc, limit):
            self.ranks[told.rank] = told
            self._pidfds[told.pid] = os.pidfd_open(told.pid)
        return self

    def ours(self, number: int) -> dict[str, int]:
        """Our own processes of one node: `front`, `warden`, `supervisor`; of node 0 also those of its agent."""
        found = self._trio(self.fronts[number].pid, "")
        if number == 0 and "supervisor" in found:
            for pid in children(found["supervisor"]):
                if b"agent" in _arguments(pid):
                    found |= self._trio(pid, "agent-")
        return found

    def _trio(self, front: int, prefix: str) -> dict[str, int]:
        found = {f"{prefix}front": front}
        for role, above in (("warden", "front"), ("supervisor", "warden")):
            if f"{prefix}{above}" in found:
                for pid in children(found[f"{prefix}{above}"]):
                    found[f"{prefix}{role}"] = pid
        return found

    def kill(self, number: int, role: str, how: int = signal.SIGKILL) -> None:
        """A signal for one of our own processes."""
        os.kill(self.ours(number)[role], how)

    def kill_rank(self, rank: int, how: int = signal.SIGKILL) -> None:
        signal.pidfd_send_signal(self._pidfds[self.ranks[rank].pid], how)

    def gone(self, ranks: Iterable[int], limit: float = HANG) -> float:
        """Wait until these ranks have ended; the seconds that it took."""
        began = time.monotonic()
        waiter = select.poll()
        waiting = {self._pidfds[self.ranks[rank].pid]: rank for rank in ranks}
        for fd in waiting:
            waiter.register(fd, select.POLLIN)
        while waiting:
            left = began + limit - time.monotonic()
            assert left > 0, f"ranks {sorted(waiting.values())} are alive after {limit} s; {self.said()}"
            for fd, _events in waiter.poll(left * 1000):
                waiter.unregister(fd)
                del waiting[fd]
        return time.monotonic() - began

    # ── Its end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def ended(self, limit: float = HANG) -> list[Node]:
        """Wait for every node's command, in the order of the hosts. Nothing may live on any of them then."""
        began = time.monotonic()
        took: dict[int, float] = {}
        readers = {number: _Both(front) for number, front in self.fronts.items()}
        waiter = select.poll()
        fds = {os.pidfd_open(front.pid): number for number, front in self.fronts.items()}
        try:
            for fd in fds:
                waiter.register(fd, select.POLLIN)
            for reader in readers.values():
                for fd in reader.fds:
                    waiter.register(fd, select.POLLIN)
            while len(took) < len(fds) or any(reader.fds for reader in readers.values()):
                left = began + limit - time.monotonic()
                if left <= 0:
                    late = [self.hosts[n].name for n in fds.values() if n not in took]
                    raise AssertionError(f"not ended after {limit} s: {late}; {self.said(readers)}")
                for fd, _events in waiter.poll(left * 1000):
                    if fd in fds:
                        waiter.unregister(fd)
                        took[fds[fd]] = time.monotonic() - began
                    else:
                        for reader in readers.values():
                            if fd in reader.fds and not reader.read(fd):
                                waiter.unregister(fd)
        finally:
            for fd in fds:
                os.close(fd)
        nodes = []
        for number, front in sorted(self.fronts.items()):
            status = front.wait()
            out, err = (bytes(text).decode(errors="replace") for text in readers[number].texts)
            verdicts = list(self.home(number).glob("*/verdict.json"))
            told = json.loads(verdicts[0].read_text()) if verdicts else {"missing": err}
            nodes.append(Node(self.hosts[number].name, status, out, err, told, took[number]))
        return nodes

    def said(self, readers: Mapping[int, "_Both"] | None = None) -> str:
        """What the commands printed so far, when something has gone wrong: they are killed for that."""
        told = []
        for number, front in self.fronts.items():
            front.kill()
            both = (readers or {}).get(number) or _Both(front)
            for fd in both.fds:
                while both.read(fd):
                    pass
            told.append(f"{self.hosts[number].name}: {front.wait()}\n{bytes(both.texts[1]).decode(errors='replace')}")
            told[-1] += f"{bytes(both.texts[0]).decode(errors='replace')}"
        return "\n".join(told)


class _Both:
    """Reads a command's stdout and stderr, as far as they are pipes of ours."""

    def __init__(self, front: subprocess.Popen[str]) -> None:
        self.texts = (bytearray(), bytearray())
        self.fds = {}
        for stream, text in zip((front.stdout, front.stderr), self.texts, strict=True):
            if stream is not None and not stream.closed:
                self.fds[stream.fileno()] = text

    def read(self, fd: int) -> bool:
        """Take what is there; false at the end."""
        got = os.read(fd, 1 << 16)
        if got:
            self.fds[fd] += got
        else:
            self.fds = {other: text for other, text in self.fds.items() if other != fd}
        return bool(got)


def _arguments(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def same(nodes: Sequence[Node]) -> dict[str, Any]:
    """The verdict that all of them have, and their one status is its."""
    first = nodes[0].verdict
    for node in nodes[1:]:
        differs = {
            key: (first.get(key), node.verdict.get(key)) for key in first if first.get(key) != node.verdict.get(key)
        }
        assert "outcome" in node.verdict, f"{node.host}: {node.verdict}"
        assert not differs, f"{node.host} differs: {differs}"
    assert [node.status for node in nodes] == [first["exit_code"]] * len(nodes)
    return first
