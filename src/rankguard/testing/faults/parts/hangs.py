"""A rank that does not go on: it waits, it is busy, it is held. The others wait for it in one and the same place."""

import collections
import ctypes
import hashlib
import itertools
import os
import platform
import queue
import signal
import threading

from rankguard.testing.faults.actor import Actor

CLONE_VFORK = 0x00004000
LOADER_SAID = "shard 7 has 4095 rows, expected 4096"
SYS_CLONE = {"x86_64": 56, "aarch64": 220}


def load_shard() -> None:
    """Waits for a lock that nobody will release."""
    held = threading.Lock()
    held.acquire()
    held.acquire()


def wait_for_all(actor: Actor) -> None:
    """What the others do: a barrier to which the victim does not come."""
    actor.wait("all-here")


def hang(_actor: Actor) -> None:
    load_shard()


def hang_with_gil(_actor: Actor) -> None:
    """Waits in C for a mutex that it holds itself, and holds the GIL: handlers and threads of Python's get no turn."""
    mutex = ctypes.create_string_buffer(256)  # all zeros: PTHREAD_MUTEX_INITIALIZER, of the kind that deadlocks
    lock = ctypes.PyDLL(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)


def busy_python(_actor: Actor) -> None:
    while True:
        pass


def busy_with_gil(_actor: Actor) -> None:
    """A loop in C that never asks whether a signal has come."""
    collections.deque(itertools.repeat(0), maxlen=0)


def busy_in_c(_actor: Actor) -> None:
    """A loop in C that lets other threads run: hours of work."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)


def thread_raised(_actor: Actor) -> None:
    """A thread raises, as a loader does, and the main thread goes on waiting for what it would have loaded."""
    loaded: queue.Queue[None] = queue.Queue()
    threading.Thread(target=raise_in_loader, name="loader", daemon=True).start()
    loaded.get()


def raise_in_loader() -> None:
    raise ValueError(LOADER_SAID)


def stopped(_actor: Actor) -> None:
    """Somebody stops it, as a debugger or a batch system does."""
    os.kill(os.getpid(), signal.SIGSTOP)


def uninterruptible(_actor: Actor) -> None:
    """State D: the parent of a vfork whose child neither executes nor ends (`kernel/fork.c`, `wait_for_vfork_done`)."""
    clone = ctypes.PyDLL(None).syscall
    if clone(SYS_CLONE[platform.machine()], CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        while True:
            signal.pause()


def never_ready(actor: Actor) -> None:
    """Waits for something that does not come, as a rank in a rendezvous does."""
    actor.me.status("waiting for the parameter server")
    actor.wait_for_ever()


def others_never_ready(actor: Actor) -> None:
    actor.me.ready()
    actor.wait_for_ever()


others_hang = others_hang_with_gil = others_busy_python = others_busy_with_gil = others_busy_in_c = wait_for_all
others_stopped = others_uninterruptible = others_thread_raised = wait_for_all
