"""How the ranks play a fault: who waits for whom, and when the victim fails. Runs in the ranks.

Nobody sleeps. A meeting point is a FIFO in the fault's folder, made by whoever comes first: `tell` blocks until
somebody waits there, `wait` until it has been told as often as it asks. All others are there, and as ready as the
phase wants them, before the victim does anything.

Not in here: what the victim does (`parts/`), what must come of it (`catalogue/`).
"""

import contextlib
import os
import signal
from collections.abc import Callable
from importlib import import_module
from typing import Any

import rankguard
from rankguard.testing.faults.fault import PHASES


class Actor:
    """A rank that takes part. `victim` is the number of the one that fails; `at` is one of `PHASES`."""

    def __init__(self, folder: str, at: str, victim: int) -> None:
        self.me = rankguard.this_rank()
        self.rank, self.world_size = self.me.rank, self.me.world_size
        self.folder, self.at, self.victim = folder, at, victim

    @property
    def is_victim(self) -> bool:
        return self.rank == self.victim

    @property
    def others(self) -> list[int]:
        """All ranks but this one."""
        return [rank for rank in range(self.world_size) if rank != self.rank]

    def fifo(self, name: str) -> str:
        """The path of a meeting point."""
        path = f"{self.folder}/{name}"
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        return path

    def tell(self, name: str) -> None:
        """Says one thing at a meeting point; blocks until somebody is there."""
        fd = os.open(self.fifo(name), os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b".")
        os.close(fd)

    def wait(self, name: str, times: int = 1) -> None:
        """Until it has been told `times` at a meeting point; each time is a sign of life, for whoever has a clock."""
        fd = os.open(
            self.fifo(name), os.O_RDWR | os.O_CLOEXEC
        )  # a writer of its own: no end of file between two tellers
        while times > 0:
            times -= len(os.read(fd, times))
            self.me.alive()
        os.close(fd)

    def wait_for_ever(self) -> None:
        """Until a signal ends this rank."""
        while True:
            signal.pause()


def play(name: str, folder: str, at: str = "all-ready", victim: int = 1) -> None:
    """One rank's whole part in a fault. Returns only where the fault is that the program returns."""
    from rankguard.testing.faults.catalogue import FAULTS

    if at not in PHASES:
        raise ValueError(f"`--at {at}`: expected one of {', '.join(PHASES)}")
    module, _, function = FAULTS[name].part.partition(":")
    part = import_module(f"rankguard.testing.faults.parts.{module}")
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    actor = Actor(os.path.abspath(folder), at, victim)
    act: Callable[[Actor], Any] = getattr(part, function)
    other: Callable[[Actor], Any] = getattr(part, f"others_{function}", Actor.wait_for_ever)
    getattr(part, f"prepare_{function}", _nothing)(actor)
    _gather(actor)
    (act if actor.is_victim else other)(actor)


def _nothing(_actor: Actor) -> None:
    """Most faults need no preparation."""


def _gather(actor: Actor) -> None:
    """Until it is time: everybody is there, ready if the phase has it so; when stopping, SIGTERM has come to the victim."""
    stopping = actor.at == "stopping"
    if stopping and actor.is_victim:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if actor.at in ("all-ready", "stopping") or (actor.at == "ready-early" and actor.is_victim):
        actor.me.ready()
    if not actor.is_victim:
        actor.tell("here")
        actor.me.alive()
        return
    actor.wait("here", actor.world_size - 1)
    if stopping:
        _say_started(actor)
        signal.sigwait({signal.SIGTERM})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _say_started(actor: Actor) -> None:
    """Tells whoever is to stop the job (`Stage.wait_told`) that it can be stopped now."""
    fd = os.open(actor.fifo("stop-me"), os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, b"%d\n" % os.getpid())
    os.set_inheritable(fd, False)  # kept open: what is written to a FIFO that nobody has open is lost
