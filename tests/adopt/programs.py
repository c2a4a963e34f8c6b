"""Rank programs of the tests and the parent's side of them. Everything hand-shakes over pipes; nobody sleeps to wait."""

import faulthandler
import gc
import io
import multiprocessing as mp
import os
import signal
import sys
import time

from rankguard.linux.tree import children

METHODS = ("fork", "spawn", "forkserver")
PAYLOAD = 100_000


def rank(number, writer, up, orders, deliver):
    """Delivers when told to by `deliver`, says that it is up, then does what the parent orders."""
    if deliver:
        writer.send({"rank": number, "status": "ready"})
    up.send(number)
    follow(number, writer, orders)


def follow(number, writer, orders):
    while True:
        order, *rest = orders.recv()
        if order == "exit":
            os._exit(*rest)
        elif order == "kill":
            faulthandler.disable()  # pytest's, inherited by fork
            os.kill(os.getpid(), *rest)
        elif order == "raise":
            sys.stderr = io.StringIO()
            raise RuntimeError(*rest)
        elif order == "send":
            writer.send(*rest)
        elif order == "write":
            os.write(writer.fileno(), *rest)
        elif order == "hold":
            with open("/proc/self/oom_score_adj", "w") as adj:
                adj.write("900")  # this one, and not its host
            memory = bytearray(rest[0] << 20)
            memory[::4096] = bytes([1]) * len(memory[::4096])
        elif order == "close":
            writer.close()
        elif order == "half and die":
            # A header that promises 100 kB and the first kilobyte of it.
            os.write(writer.fileno(), PAYLOAD.to_bytes(4, "big") + bytes(1000))
            os.kill(os.getpid(), signal.SIGKILL)


class Ranks:
    """`count` ranks of `rank`. The parent keeps the writers, so that no EOF gives a death away (unless `close_writers`)."""

    def __init__(self, method="fork", count=8, delivered=(), duplex=False, close_writers=False, names=False):
        context = mp.get_context(method)
        up, up_writer = context.Pipe(duplex=False)
        self.processes, self.readers, self.orders, self.writers = [], [], [], []
        for number in range(count):
            reader, writer = context.Pipe(duplex=duplex)
            order_reader, order_writer = context.Pipe(duplex=False)
            process = context.Process(
                target=rank, args=(number, writer, up_writer, order_reader, number in delivered), daemon=True
            )
            if names:
                process.name = f"scheduler-{number}"
            process.start()
            order_reader.close()
            if close_writers:
                writer.close()
            self.processes.append(process)
            self.readers.append(reader)
            self.writers.append(writer)
            self.orders.append(order_writer)
        up_writer.close()
        for _ in range(count):
            up.recv()
        up.close()

    def order(self, number, *what):
        self.orders[number].send(what)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.is_alive():
                process.kill()
        for process in self.processes:
            process.join()
            process.close()
        for connection in (*self.readers, *self.writers, *self.orders):
            connection.close()


# ── A cascade ────────────────────────────────────────────────────────────────────────────────────────────────────────


def cascade_culprit(peers, up, life, megabytes):
    """Holds connections to its peers and much memory, so that its exit takes longer than theirs."""
    memory = bytearray(megabytes << 20)
    for page in range(0, len(memory), 4096):
        memory[page] = 1
    up.send(None)
    life.recv()


def cascade_victim(peer, up, _life):
    """Ends by itself as soon as its peer is gone."""
    up.send(None)
    try:
        peer.recv()
    except EOFError:
        os._exit(1)


# ── Trees ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def tree(up, life, stubborn):
    """A child in a session of its own that has a child itself, and one that ignores SIGTERM; tells all their pids."""
    told_reader, told = mp.Pipe(duplex=False)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            told.send(os.getpid())
            _wait(stubborn)
        told.send(os.getpid())
        _wait(stubborn)
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        told.send(os.getpid())
        _wait(True)
    up.send([told_reader.recv() for _ in range(3)])
    life.recv()


def _wait(stubborn):
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


def stubborn(up, life):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    up.send(os.getpid())
    while True:
        signal.pause()


def forks_on_sigterm(up, life):
    """Answers SIGTERM with a new child before it ends: that child is met as well."""

    def answer(*_):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            up.send(os.getpid())
            while True:
                signal.pause()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    signal.signal(signal.SIGTERM, answer)
    up.send(os.getpid())
    while True:
        signal.pause()


# ── Small things ─────────────────────────────────────────────────────────────────────────────────────────────────────


def open_fds():
    gc.collect()  # what a failed test before left in its traceback
    return len(os.listdir("/proc/self/fd"))


def state(pid):
    """The kernel's letter for a process: R, S, T, Z …"""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(") ")[2][0]


def zombies():
    """Children of ours that nobody has reaped."""
    return {pid for pid in children(os.getpid()) if state(pid) == "Z"}


def until(condition, timeout=10.0):
    """Waits for what no file descriptor tells of (a thread of ours, /proc)."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.001)


def raises_when_unpickled(*_):
    raise LookupError("no such class here")


class Poison:
    def __reduce__(self):
        return raises_when_unpickled, ()
