"""A launcher and its ranks, seen from outside by means that are the same for all: a FIFO, pidfds, /proc.

Ranks say `RANK PID ATTEMPT NANOSECONDS` into the FIFO of `Job` (`ranks/rest.c`, `ranks/here.py`). Nothing here reads a
launcher's own files. Each launcher has a session of its own, so that Ctrl-C reaches the bench alone.
"""

import os
import random
import resource
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from bench.measure import Failed
from rankguard.linux.tree import descendants

PATIENCE_S = 120.0
SETTLE_S = (0.1, 0.3)


class Here(NamedTuple):
    """What a rank said."""

    rank: int
    pid: int
    attempt: int
    at: int


class Job:
    """`words` started as a launcher; every `FIFO` among them is the path of the FIFO. A block: ended at its end."""

    def __init__(self, words: Sequence[object], folder: Path, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self._path = folder / f"fifo-{time.monotonic_ns()}"
        os.mkfifo(self._path)
        self._fifo = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._said, self._part = [], b""
        self.stderr = folder / "stderr"
        with self.stderr.open("wb") as stderr:
            self.began = time.monotonic_ns()
            self._process = subprocess.Popen(
                [str(self._path) if word == "FIFO" else str(word) for word in words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=env,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        """End it as a user would, with SIGTERM; what has not ended then, and at Ctrl-C, by SIGKILL."""
        mine = [self.pid, *descendants(self.pid)]
        try:
            if kind is not None and not issubclass(kind, Exception):
                self._process.kill()
            if self._process.poll() is None:
                self._process.terminate()
                self.wait()
        except Failed:
            self._process.kill()
            self._process.wait()
        finally:
            for pid in mine[1:]:
                if _lives(pid):
                    end(pid)
            for pid in (*mine[1:], *(each.pid for each in self._said)):
                fell_to_us(pid)
            os.close(self._fifo)
            os.unlink(self._path)

    def here(self, count: int, attempt: int = 0) -> list[Here]:
        """Wait until `count` ranks of an attempt have said that they are here; by rank."""
        waiter, until = select.poll(), time.monotonic() + PATIENCE_S
        pidfd = os.pidfd_open(self.pid)
        waiter.register(self._fifo, select.POLLIN)
        waiter.register(pidfd, select.POLLIN)
        try:
            while len(found := [each for each in self._said if each.attempt == attempt]) < count:
                news = [fd for fd, _ in waiter.poll(max(0.0, until - time.monotonic()) * 1000)]
                if self._fifo in news:
                    self._read()
                elif news:
                    raise Failed(f"the launcher ended with {self._process.wait()}: {self.last_words()}")
                else:
                    raise Failed(
                        f"{len(found)} of {count} ranks are here after {PATIENCE_S:.0f} s: {self.last_words()}"
                    )
        finally:
            os.close(pidfd)
        return sorted(found)

    def _read(self) -> None:
        *lines, self._part = (self._part + os.read(self._fifo, 1 << 16)).split(b"\n")
        self._said += [Here(*map(int, line.split())) for line in lines]

    def own(self, ranks: Iterable[Here]) -> list[int]:
        """The launcher's own processes: it and all below it, but the ranks and what is below them."""
        theirs = {pid for each in ranks for pid in (each.pid, *descendants(each.pid))}
        return [pid for pid in (self.pid, *descendants(self.pid)) if pid not in theirs]

    def wait(self, timeout: float = PATIENCE_S) -> int:
        """Its exit status; reaps it. Not `Popen.wait(timeout)`, which looks every 50 ms."""
        with Ends([self.pid]) as ends:
            ends.wait(timeout)
        return self._process.wait()

    def last_words(self) -> str:
        text = self.stderr.read_text(errors="replace")
        said = [line for line in text.splitlines() if line.startswith("error:")]
        return said[0] if said else " ".join(text.split())[-300:]


class Ends:
    """Watches processes by pidfds: `wait` gives the instant at which the last of them was gone."""

    def __init__(self, pids: Iterable[int]) -> None:
        pids = list(pids)
        with enough_descriptors(len(pids)):
            self._fds = {os.pidfd_open(pid): pid for pid in pids}
        self._waiter = select.epoll()
        for fd in self._fds:
            self._waiter.register(fd, select.EPOLLIN)
        self.at: dict[int, int] = {}
        """Of each process that has ended, when that was seen (ns)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiter.close()
        for fd in self._fds:
            os.close(fd)

    def wait(self, timeout: float = 60.0) -> int:
        """Until all have ended."""
        until = time.monotonic() + timeout
        while len(self.at) < len(self._fds):
            ended = self._waiter.poll(max(0.0, until - time.monotonic()), maxevents=4096)
            at = time.monotonic_ns()
            if not ended:
                alive = [pid for pid in self._fds.values() if pid not in self.at]
                raise Failed(f"{len(alive)} of {len(self._fds)} processes live after {timeout:.0f} s")
            for fd, _ in ended:
                self.at[self._fds[fd]] = at
                self._waiter.unregister(fd)
        return max(self.at.values())

    def last(self, pids: Iterable[int]) -> int:
        """When the last of these ended."""
        return max(self.at[pid] for pid in pids)


class enough_descriptors:  # noqa: N801  # a block, as in contextlib
    """Room for `more` of our own, only while they are opened: a launcher must not inherit a limit that we raised."""

    def __init__(self, more: int) -> None:
        self._more = more

    def __enter__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = len(os.listdir("/proc/self/fd")) + self._more + 64
        if wanted > self._before[0]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, self._before[1]), self._before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._before)


def kill(pid: int) -> int:
    """SIGKILL; the instant just before it."""
    at = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    return at


def settle() -> None:
    """Some moments by chance, so that no launcher's rhythm (torchrun looks each 0.1 s) is met at one and the same place."""
    time.sleep(random.uniform(*SETTLE_S))


def pss(pids: Iterable[int], what: str = "Pss") -> int:
    """Bytes of these processes together: `Pss`, their share of pages, or `Rss` (proc(5), smaps_rollup)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{what}:"):
                total += int(line.split()[1]) * 1024
    return total


def wake_ups(pids: Iterable[int]) -> int:
    """How often the threads of these processes went to sleep of themselves so far: once for each time they were woken."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            text = (thread / "status").read_text()
            total += int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return total


def fell_to_us(pid: int) -> bool:
    """Whether a process ended unreaped by its launcher, so that we, the subreaper, have to; it is reaped then."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def end(pid: int) -> None:
    """SIGKILL, if it lives."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
