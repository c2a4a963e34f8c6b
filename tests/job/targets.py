"""Functions that the tests launch as ranks."""

import os
import signal
import sys
from multiprocessing.queues import Queue
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Event
from typing import Any

import rankguard


def report_ready(rank: rankguard.Rank, payload: Any) -> None:
    """Become ready with a payload, and end."""
    rank.ready({"rank": rank.rank, "of": rank.world_size, "payload": payload})


def report_length(rank: rankguard.Rank, prefix: str) -> None:
    """Become ready with the length of all variables whose names begin so."""
    rank.ready(sum(len(value) for name, value in os.environ.items() if name.startswith(prefix)))


def ready_then_wait(rank: rankguard.Rank) -> None:
    """Serve for ever."""
    rank.ready(rank.rank)
    signal.pause()


def ready_with_pid(rank: rankguard.Rank) -> None:
    """Serve for ever, and say as which process."""
    rank.ready(os.getpid())
    signal.pause()


def kill_one(rank: rankguard.Rank, who: int, number: int) -> None:
    """One rank dies while the others load."""
    if rank.rank == who:
        os.kill(os.getpid(), number)
    signal.pause()


def confirmed_then_dies(rank: rankguard.Rank) -> None:
    """The seed's rule: one that has reported can still die."""
    if rank.rank == 1:
        rank.ready()
        os.kill(os.getpid(), 9)
    signal.pause()


def raises(rank: rankguard.Rank, text: str) -> None:
    """An exception in one rank."""
    if rank.rank == 1:
        raise LookupError(text)
    signal.pause()


def large(rank: rankguard.Rank, size: int) -> None:
    """A payload that does not fit into a datagram."""
    rank.ready("x" * size)


def unserialisable(rank: rankguard.Rank) -> None:
    """A payload that is no JSON."""
    if rank.rank == 1:
        rank.ready(object())
    signal.pause()


def use_everything(rank: rankguard.Rank, queue: "Queue[int]", event: Event, shared: SharedMemory) -> None:
    """What travels with `multiprocessing.Process` travels here."""
    shared.buf[rank.rank] = rank.rank + 1
    queue.put(rank.rank)
    event.wait()
    sys.exit(0)


def dies_at_first(rank: rankguard.Rank, ready_first: bool) -> None:
    """Rank 1 is killed in the first attempt, before or after it was ready; the second one serves."""
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if not first or ready_first:
        rank.ready([rank.rank, first])
    if first and rank.rank == 1:
        os.kill(os.getpid(), 9)
    signal.pause()


def never_ready(_rank: rankguard.Rank) -> None:
    """Loads for ever."""
    signal.pause()
