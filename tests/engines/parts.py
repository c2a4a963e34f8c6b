"""What the processes of a played engine and the test beside them share: titles, orders, and who is up.

An engine that is played starts, waits, dies and cleans up as the real one; in place of a model each of its processes has a
FIFO for orders. Standard library only, since every spawned process imports it.
"""

import contextlib
import ctypes
import os
import select
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
PATIENCE = 100.0


class Broken(RuntimeError):
    """What a process that is told to `raise` raises."""


def title(text: str) -> None:
    """As setproctitle: over the arguments, in place (at most as long as they were)."""
    with open("/proc/self/stat", "rb") as file:
        start, end = map(int, file.read().rpartition(b") ")[2].split()[45:47])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        memory.write(text.encode()[: end - start].ljust(end - start, b"\0"))


def die_with_parent() -> None:
    """SIGKILL when the thread that started us ends (prctl(2), PR_SET_PDEATHSIG), as SGLang's processes ask for."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Part:
    """One process of the engine, told by its test what to do next. It is known as `name` from now on."""

    def __init__(self, folder: str, name: str) -> None:
        path = f"{folder}/{name}.orders"
        os.mkfifo(path)
        self._folder, self._name = folder, name
        self._orders = os.open(path, os.O_RDWR)  # both ends, so that it never ends
        tell(folder, name)

    def play(self) -> None:
        """Obey until told to `go`."""
        while (order := self._next()) != "go":
            word, _, rest = order.partition(" ")
            if word == "raise":
                raise Broken(rest)
            if word == "exit":
                os._exit(int(rest))
            if word == "abort":
                os.abort()

    def forks(self) -> bool:
        """Fork a child that only lives; true in that child. It has every file of ours open."""
        child = os.fork()
        if child:
            tell(self._folder, f"{self._name}-child", child)
        return not child

    def _next(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(self._orders, 1)
        return line.decode().strip()


def tell(folder: str, name: str, pid: int | None = None) -> None:
    """Say that `name` is up."""
    with open(f"{folder}/up", "a") as up:
        up.write(f"{name} {pid or os.getpid()}\n")


class Stage:
    """The test's side: who is up, and orders."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        os.mkfifo(f"{folder}/up")
        self._up = os.open(f"{folder}/up", os.O_RDWR | os.O_NONBLOCK)
        self._said = b""
        self.pids: dict[str, int] = {}
        """Of all who were ever up."""

    def met(self, *names: str) -> list[int]:
        """Wait until these have come up."""
        end = time.monotonic() + PATIENCE
        while missing := set(names) - set(self.pids):
            assert select.select([self._up], [], [], max(0.0, end - time.monotonic()))[0], f"not up: {missing}"
            self._said += os.read(self._up, 65536)
            *lines, self._said = self._said.split(b"\n")
            for line in lines:
                name, pid = line.decode().rsplit(" ", 1)
                self.pids[name] = int(pid)
        return [self.pids[name] for name in names]

    def order(self, names: str | Iterable[str], *orders: str) -> None:
        """Tell them what to do, once they are up."""
        for name in [names] if isinstance(names, str) else names:
            self.met(name)
            with open(f"{self.folder}/{name}.orders", "w") as fifo:
                fifo.write("".join(f"{order}\n" for order in orders))

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """With a signal; its pid."""
        (pid,) = self.met(name)
        os.kill(pid, number)
        return pid

    def alive(self) -> list[str]:
        """Who of those that were up is there, and no zombie."""
        return [name for name, pid in self.pids.items() if is_alive(pid)]

    def all_end(self) -> bool:
        """Wait until all that were up have ended, as those do whose parent is gone: a moment after it."""
        for pid in self.pids.values():
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                try:
                    if not select.select([pidfd], [], [], PATIENCE)[0]:
                        return False
                finally:
                    os.close(pidfd)
        return True

    def close(self) -> None:
        os.close(self._up)
        for pid in self.pids.values():
            if is_alive(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """There, and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill_tree(pids: Sequence[int]) -> None:
    """SIGKILL to each and everything below it, found by whose children they are."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    kill_tree([int(child) for child in file.read().split()])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
