"""Trees of real processes for the tests of who watches them: each does what it is told over a pipe, and forks more.

A node is addressed by its path: `tree.fork("a")` below the root, `tree.fork("a/b")` below that.
"""

import contextlib
import os
import select
import signal
import socket
import time
from selectors import DefaultSelector

from rankguard.linux import libc
from rankguard.linux.tree import children

PATIENCE = 20.0


class Tree:
    """The root is a child of this process. Orders go to a node over its own socket, which all nodes above it inherit."""

    def __init__(self):
        self._sockets = {}
        self.pids = {}
        self._others = frozenset(children(os.getpid()))
        self._make("root", None)

    def others(self):
        """Children of this process that were there before, such as a resource tracker's: no part of the tree."""
        return self._others

    @property
    def root(self):
        return self.pids["root"]

    def fork(self, name, by="root"):
        """A child of `by`; its pid."""
        self._make(name, by)
        return self.pids[name]

    def tell(self, name, *words):
        """Order a node; its answer."""
        self._sockets[name].send(" ".join(words).encode())
        assert select.select([self._sockets[name]], [], [], PATIENCE)[0], f"{name} does not answer to {words}"
        return self._sockets[name].recv(4096).decode()

    def order(self, name, *words):
        """Order a node that will not answer."""
        self._sockets[name].send(" ".join(words).encode())

    def close(self):
        for pid in self.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        left = set(self.pids.values())
        end = time.monotonic() + PATIENCE
        while left and time.monotonic() < end:  # those below become our children once the one above has ended
            for pid in list(left):
                with contextlib.suppress(ChildProcessError):
                    if os.waitpid(pid, os.WNOHANG)[0]:
                        left.discard(pid)
                if not os.path.exists(f"/proc/{pid}"):
                    left.discard(pid)
            time.sleep(0.001)
        assert not left
        for each in self._sockets.values():
            each.close()

    def _make(self, name, by):
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if by is None:
            pid = os.fork()
            if pid == 0:
                here.close()
                _obey(there)
        else:
            socket.send_fds(self._sockets[by], [b"fork"], [there.fileno()])
            assert select.select([self._sockets[by]], [], [], PATIENCE)[0]
            pid = int(self._sockets[by].recv(100))
        there.close()
        self._sockets[name], self.pids[name] = here, pid


def _obey(orders):
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        while True:
            said, fds, _flags, _address = socket.recv_fds(orders, 4096, 1)
            if not said:
                os._exit(0)
            verb, *words = said.decode().split(" ")
            if verb == "fork":
                pid = os.fork()
                if pid == 0:
                    orders.close()
                    orders = socket.socket(fileno=fds[0])
                    continue
                os.close(fds[0])
                orders.send(str(pid).encode())
            elif verb == "exit":
                os._exit(int(words[0]))
            elif verb == "reap":
                orders.send(str(os.waitpid(int(words[0]), 0)[1]).encode())
            elif verb == "session":
                os.setsid()
                orders.send(b"done")
            elif verb == "title":  # as setproctitle: over the arguments, in place
                with open("/proc/self/stat", "rb") as file:
                    start, end = file.read().rpartition(b") ")[2].split()[45:47]
                with open("/proc/self/mem", "r+b", buffering=0) as memory:
                    memory.seek(int(start))
                    memory.write(
                        " ".join(words)
                        .encode()
                        .decode("unicode_escape")
                        .encode("latin-1")
                        .ljust(int(end) - int(start), b"\0")
                    )
                orders.send(b"done")
            elif verb == "exec":  # NAME=VALUE … TITLE: becomes a program that waits, under another name
                os.set_inheritable(orders.fileno(), True)
                os.dup2(orders.fileno(), 0)
                told = dict(word.split("=", 1) for word in words if "=" in word)
                orders.send(b"going")
                os.execve("/bin/cat", [" ".join(word for word in words if "=" not in word)], {**os.environ, **told})
            elif verb == "name":
                libc.set_name(words[0])
                orders.send(b"done")
            elif verb == "hold":  # MiB of memory, written to
                held = bytearray(int(words[0]) << 20)
                held[::4096] = b"x" * len(held[::4096])
                orders.send(b"held")
            elif verb == "burst":  # children that come and go
                for _ in range(int(words[0])):
                    if (pid := os.fork()) == 0:
                        os._exit(3)
                    os.waitpid(pid, 0)
                orders.send(b"done")
    finally:
        os._exit(99)


class Loop:
    """Runs what has `wake` and `next_wake`, and the selector's news, until something holds."""

    def __init__(self):
        self.selector = DefaultSelector()
        self.parts = []
        self.clock = time.monotonic

    def until(self, holds, patience=PATIENCE):
        end = self.clock() + patience
        while not holds():
            now = self.clock()
            assert now < end, "it does not come to pass"
            wakes = min([end, *(part.next_wake() for part in self.parts)])
            for key, _events in self.selector.select(max(0.0, wakes - now)):
                key.data[1](self.clock())
            for part in self.parts:
                part.wake(self.clock())

    def close(self):
        for part in self.parts:
            part.close()
        self.selector.close()
