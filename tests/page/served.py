"""A real `rankguard run --http :0` whose ranks do what they are told, and the simplest of HTTP clients."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import rankguard

PROGRAM = """
import os, signal, sys
import rankguard
this = rankguard.this_rank()
folder = sys.argv[1]
for line in open(f"{folder}/rank-{this.rank}.fifo"):  # one that is opened for reading and writing never ends
    word, _, rest = line.strip().partition(" ")
    if word == "ready": this.ready()
    elif word == "status": this.status(rest)
    elif word == "deaf": signal.signal(signal.SIGTERM, signal.SIG_IGN); this.status("deaf")
    elif word == "exit": sys.exit(int(rest))
    elif word == "raise": break
"""


SERVE = Path(rankguard.__file__).parent / "http" / "serve.py"
PATIENCE = 60.0
"""For a machine on which others work, too; reached only when a test fails."""


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Pages:
    """What a page server at `port` answers."""

    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def send(self, data: bytes) -> bytes:
        """All that comes back for these bytes until the server ends the connection."""
        with self.connect() as end:
            end.sendall(data)
            return b"".join(iter(lambda: end.recv(65536), b""))

    def get(self, path: str, method: str = "GET", *headers: str) -> Response:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
        return response(self.send("\r\n".join(lines).encode()))

    def probes(self) -> tuple[int, int, int]:
        """The status of startupz, readyz, livez."""
        started, ready, live = (self.get(f"/{probe}").status for probe in ("startupz", "readyz", "livez"))
        return started, ready, live

    def metric(self, name: str) -> float:
        """The value of one that has no labels."""
        lines = self.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def events(self, *headers: str) -> Generator[tuple[int | None, str, dict[str, Any]]]:
        """(id, name, data) as they come, from the first on."""
        with self.connect() as end, end.makefile("rb") as file:
            end.sendall("\r\n".join(["GET /events HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())
            while file.readline().strip():
                pass
            told: dict[str, str] = {}
            for line in file:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    told[name] = value
                elif "data" in told:
                    number = int(told["id"]) if "id" in told else None
                    yield number, told["event"], json.loads(told["data"])
                    told = {}


class Served(Pages):
    """One run. `tell` a rank what to do, `until` the journal has a fact, `get` a page."""

    def __init__(
        self, folder: Path, nprocs: int, *options: str, program: str = PROGRAM, args: Sequence[str] = (), **more: Any
    ) -> None:
        self.folder, self.run_dir = folder, folder / "run"
        (folder / "program.py").write_text(program)
        self._fifos = []
        for rank in range(nprocs):
            os.mkfifo(folder / f"rank-{rank}.fifo")
            self._fifos.append(os.open(folder / f"rank-{rank}.fifo", os.O_RDWR))
        words = ["-n", str(nprocs), "--http", ":0", "--run-dir", str(self.run_dir), *options]
        command = [sys.executable, "-m", "rankguard", "run", *words, str(folder / "program.py"), str(folder), *args]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, **more
        )
        self.stderr = b""
        self.port = int(self._said(rb"serving http://127\.0\.0\.1:(\d+)/")[1])

    def _said(self, what: bytes) -> re.Match[bytes]:
        assert self.process.stderr is not None
        while (found := re.search(what, self.stderr)) is None:
            more = os.read(self.process.stderr.fileno(), 65536)
            assert more, self.stderr.decode()
            self.stderr += more
        return found

    def tell(self, rank: int, word: str) -> None:
        os.write(self._fifos[rank], f"{word}\n".encode())

    def until(self, **fields: Any) -> dict[str, Any]:
        """Wait for a line of the journal that holds these fields: `until(fact="Ready", rank=0)`."""
        with contextlib.closing(self.events()) as events:
            for _number, _name, data in events:
                if all(data.get(name) == value for name, value in fields.items()):
                    return data
        raise AssertionError(f"the events ended without {fields}")

    def server(self) -> int:
        """The pid of the page server."""
        return next(pid for pid in self.descendants() if b"http/serve.py" in cmdline(pid))

    def descendants(self) -> list[int]:
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            with contextlib.suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    below = [int(child) for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
                    found += below
                    queue += below
        return found

    def ours(self) -> dict[str, int]:
        """The pids of our own processes by their role."""
        warden = next(pid for pid in self.descendants() if b"warden.py" in cmdline(pid))
        [supervisor] = [int(pid) for pid in Path(f"/proc/{warden}/task/{warden}/children").read_text().split()]
        return {"front": self.process.pid, "warden": warden, "supervisor": supervisor}

    @property
    def verdict(self) -> dict[str, Any]:
        return dict(json.loads((self.run_dir / "verdict.json").read_text()))

    def end(self) -> int:
        """Wait for its end; the exit status."""
        _out, err = self.process.communicate(timeout=PATIENCE)
        self.stderr += err
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.send_signal(signal.SIGINT)
            self.process.communicate(timeout=PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        for fifo in self._fifos:
            os.close(fifo)


class Fed(Pages):
    """A page server without a run: the test is its supervisor. Always read what it asks, or do not: `feed` is a socket."""

    def __init__(self) -> None:
        self.feed, theirs = socket.socketpair()
        with theirs, socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
            self.port = listening.getsockname()[1]
            fds = (listening.fileno(), theirs.fileno())
            command = [sys.executable, "-I", "-S", str(SERVE), str(SERVE.parents[2]), str(os.getpid()), "0"]
            become = (  # as `linux/spawn.py` does it: moved up first, so that none is overwritten before its turn
                "import fcntl, os, sys; fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]\n"
                "for number, fd in enumerate(fds): os.dup2(fd, 3 + number)\n"
                "os.execv(sys.argv[3], sys.argv[3:])"
            )
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", become, *map(str, fds), *command], pass_fds=fds
            )

    def tell(self, *lines: str) -> None:
        self.feed.sendall("".join(f"{line}\n" for line in lines).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.feed.close()
        self.process.wait(timeout=PATIENCE)


def response(data: bytes) -> Response:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in rest)
    return Response(int(first.split(" ")[1]), headers, body)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for_end(pidfd: int, seconds: float = PATIENCE) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
