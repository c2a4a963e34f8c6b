"""Jobs that are watched from outside: start one, find all its processes, and see what is left of it.

A job's processes are known by their working folder, which is the job's own: it survives exec, setsid, a double fork, an
empty environment and a changed title, and needs no help of rankguard.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

HERE = Path(__file__).resolve().parent
SRC = HERE.parent.parent / "src"
BROOD = str(HERE / "brood.py")
LIBRARY = """
import sys, rankguard
try:
    with rankguard.launch(sys.argv[2:], nprocs=int(sys.argv[1]), console="none", grace=1.0) as job:
        job.wait()
except rankguard.RankFailed as error:
    sys.exit(error.verdict.exit_code)
"""


class Nest:
    """One job, in a folder of its own. Use it as a block: nothing of it is alive afterwards."""

    def __init__(self) -> None:
        self._made = tempfile.TemporaryDirectory(prefix="nest-", ignore_cleanup_errors=True)
        self.top = os.path.realpath(self._made.name)
        self.folder, self.home, self.tmp = (os.path.join(self.top, name) for name in ("cwd", "home", "tmp"))
        for path in (self.folder, self.home, self.tmp):
            os.mkdir(path)
        self.front: subprocess.Popen[bytes] | None = None
        self.wrapped = False
        """What was started is no front, but has one as its child."""
        self._first: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()
        if self.front is not None:
            self.front.wait()
            for stream in (self.front.stdin, self.front.stdout, self.front.stderr):
                if stream is not None:
                    stream.close()
        for trace in sorted(self.traces(), key=len, reverse=True):  # after a kill of all three nobody else removes them
            for group, _folders, _files in os.walk(trace, topdown=False):
                if group.startswith("/sys/fs/cgroup/"):
                    with contextlib.suppress(OSError):
                        os.rmdir(group)
        self._made.cleanup()

    def kill(self) -> None:
        """End all that lives here."""
        for _ in range(50):
            alive = self.alive()
            if not alive:
                break
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def env(self, **more: str) -> dict[str, str]:
        """An environment that keeps everything of rankguard's in this folder."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RANK", "PYTEST", "NOTIFY", "XDG_"))}
        return kept | {"PYTHONPATH": str(SRC), "RANKGUARD_HOME": self.home, "TMPDIR": self.tmp} | more

    def run(
        self, *words: str, wrap: Sequence[str] = (), env: dict[str, str] | None = None, **how: object
    ) -> subprocess.Popen[bytes]:
        """`rankguard run WORDS…`, its output in pipes unless told otherwise."""
        return self.start([*wrap, sys.executable, "-m", "rankguard", "run", *words], env=env, **how)

    def launch(self, nprocs: int, *command: str, **how: object) -> subprocess.Popen[bytes]:
        """A program that calls `rankguard.launch` with a command."""
        return self.start([sys.executable, "-c", LIBRARY, str(nprocs), *command], **how)

    def start(
        self, command: Sequence[str], env: dict[str, str] | None = None, **how: object
    ) -> subprocess.Popen[bytes]:
        """Any command as the front of this nest."""
        how = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": self.folder,
        } | how
        self.front = subprocess.Popen(command, env=env or self.env(), **how)  # type: ignore[call-overload]
        return self.front

    def alive(self) -> dict[int, str]:
        """Every process that lives in this folder, zombies left out: pid → command line."""
        found = {}
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with contextlib.suppress(OSError):
                    if (
                        os.readlink(f"/proc/{name}/cwd").removesuffix(" (deleted)") == self.folder
                        and state(int(name)) not in "ZX"
                    ):
                        found[int(name)] = command_line(int(name))
        return found

    def ours(self) -> dict[str, int]:
        """`front`, `warden`, `supervisor` as far as they exist."""
        assert self.front is not None
        front = self.front.pid
        if self.wrapped or command_line(front).startswith("[unshare]"):
            front = next(iter(children(front)), front)
        found = {"front": front}
        for pid in children(front):
            found["warden"] = pid
        if "warden" in found:
            for pid in children(found["warden"]):
                found["supervisor"] = pid
        return found

    def journal(self) -> str:
        """The text of `events.jsonl`."""
        for run in os.listdir(self.home):
            with contextlib.suppress(OSError):
                return Path(self.home, run, "events.jsonl").read_text()
        return ""

    def recorded(self) -> dict[int, str]:
        """pid → kind, as the brood wrote it down."""
        try:
            text = Path(self.folder, "pids").read_text()
        except OSError:
            return {}
        return {int(pid): kind for kind, pid in (line.split() for line in text.splitlines())}

    def until(self, name: str, lines: int = 1, limit: float = 60.0) -> None:
        """Wait until the ranks have written so many lines into the file `name` of the working folder."""
        assert self.front is not None
        path, until = Path(self.folder, name), time.monotonic() + limit
        while True:
            over = self.front.poll()  # first: whoever has ended has written before
            if path.exists() and path.read_bytes().count(b"\n") >= lines:
                return
            assert time.monotonic() < until, f"no {lines} lines in `{name}` after {limit} s: {self.alive()}"
            assert over is None, f"the front has ended with {over}: {self.said()}"

    def ended(self, limit: float = 25.0) -> tuple[int, str]:
        """Wait for the end: exit status and stderr. Nothing may be left then.

        `limit`: less than the 30 s after which most ranks here end by themselves, and else for hangs alone.
        """
        assert self.front is not None
        try:
            _out, err = self.front.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"has not ended after {limit} s: {self.alive()}") from None
        assert self.alive() == {}
        assert self.traces() == []
        return self.front.returncode, (err or b"").decode(errors="replace")

    def said(self) -> str:
        """The stderr of a front that has ended."""
        assert self.front is not None
        return self.front.communicate()[1].decode(errors="replace") if self.front.stderr else ""

    def until_empty(
        self, spare: Callable[[int, str], bool] = lambda pid, line: False, limit: float = 1.0
    ) -> tuple[float, dict[int, str]]:
        """(seconds until nothing lives here, what still does after `limit`)."""
        began = time.monotonic()
        while True:
            left = {pid: line for pid, line in self.alive().items() if not spare(pid, line)}
            took = time.monotonic() - began
            if not left or took > limit:
                return took, left

    def traces(self) -> list[str]:
        """What a job leaves besides processes: control groups, private folders, abstract sockets."""
        found = [f"{self.tmp}/{name}" for name in os.listdir(self.tmp) if name.startswith("rg-")]
        for run in os.listdir(self.home):
            for top, folders, _files in os.walk("/sys/fs/cgroup"):
                found += [f"{top}/{name}" for name in folders if name.startswith(f"rankguard-{run}")]
            with open("/proc/net/unix") as file:
                found += [line.split()[-1] for line in file if f"@rankguard-{run}" in line]
        return found


def children(pid: int) -> list[int]:
    """The children of every thread of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found


def state(pid: int) -> str:
    """The letter of `/proc/PID/stat`; `X` when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def command_line(pid: int) -> str:
    """What `ps` shows."""
    try:
        with open(f"/proc/{pid}/cmdline", errors="replace") as file, open(f"/proc/{pid}/comm") as comm:
            return f"[{comm.read().strip()}] " + file.read().replace("\0", " ").strip()[:120]
    except OSError:
        return "gone"


def gone(pid: int, timeout: float) -> bool:
    """Wait for the end of any process."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(pidfd)
