"""A program that starts 8 ranks, waits for them as its kind does, and is told by the clock when it learns of a death. Row a.

`caller.py KIND METHOD [FOLDER]`. For each line on stdin: starts the ranks; prints their pids; waits (the bench kills
rank 5 meanwhile); prints the instant at which the failure was in its hand (CLOCK_MONOTONIC, ns), or `error: …`. It lives
through all repeats, so no kind pays for its imports. Nobody is ready at any time: rank 0 loads for ever.

Kinds: `pidfd` a bare poll on rank 5's pidfd; `wait_ready`, and its two other shapes `delivered` (rank 5 had been ready)
and `mid-message` (it dies in the middle of its message); `sglang`, `_wait_for_scheduler_ready` as the wheel unpacked
in FOLDER has it, with pipes made as SGLang makes them; `spawn`, `torch.multiprocessing.spawn`'s join; `launch`, and
`launch-pidfd`, a bare poll beside it; `launch-busy`: a launched job whose caller's thread computes in pure Python;
`launch-busy-c`: the same, of ranks of FOLDER's C program (`ranks/rest.c`), which have next to nothing to take down.
Children of spawn and forkserver import this file: what they do not need is imported where it is used.
"""

import contextlib
import multiprocessing as mp
import os
import select
import sys
import time

RANKS, CULPRIT = 8, 5
BUSY_S = 0.5


def rank(number, shape, writer, up, life):
    """One of multiprocessing's: says who it is, and loads."""
    if number == CULPRIT and shape == "delivered":
        writer.send({"rank": number})
    if number == CULPRIT and shape == "mid-message":
        os.write(writer.fileno(), (100_000).to_bytes(4, "big") + bytes(1000))
    up.send((number, os.getpid()))
    life.recv()


def torch_rank(number, up, life):
    rank(number, "", None, up, life)


def launched_rank(number, up, life):
    rank(number.rank, "", None, up, life)


def arrived(up):
    """Print the pids of all ranks, once all are here."""
    pids = dict(up.recv() for _ in range(RANKS))
    print(*(pids[number] for number in range(RANKS)), flush=True)
    return pids


@contextlib.contextmanager
def processes(context, shape, up_writer, life):
    """8 processes and the readers of their pipes; killed at the end."""
    readers, started = [], []
    for number in range(RANKS):
        reader, writer = context.Pipe(duplex=False)
        started.append(context.Process(target=rank, args=(number, shape, writer, up_writer, life), daemon=True))
        started[-1].start()
        readers.append(reader)  # our writer is closed as the next one takes its name, all but the last: as in SGLang
    try:
        yield started, readers
    finally:
        for each in started:
            each.kill()
        for each in started:
            each.join()


def bare(pid):
    """A poll on one pidfd."""
    pidfd = os.pidfd_open(pid)
    waiter = select.poll()
    waiter.register(pidfd, select.POLLIN)
    waiter.poll()
    at = time.monotonic_ns()
    os.close(pidfd)
    return at


def caught(wait, error, right):
    """The instant at which `wait` raised, which has to name rank 5."""
    try:
        wait()
    except error as failure:
        at = time.monotonic_ns()
        if not right(failure):
            raise
        return at
    raise AssertionError("no error")


def of_multiprocessing(kind, method, folder):
    context = mp.get_context(method)
    shape = kind if kind in ("delivered", "mid-message") else "silent"
    if kind == "sglang":
        from pathlib import Path

        sys.path.insert(0, str(Path(__file__).parents[1]))
        from bench.sglang_wait import wait_function

        their_wait = wait_function(Path(folder))
    elif kind != "pidfd":
        import rankguard

    def once():
        up, up_writer = context.Pipe(duplex=False)
        life, life_writer = context.Pipe(duplex=False)
        with life_writer, processes(context, shape, up_writer, life) as (started, readers):
            pids = arrived(up)
            if kind == "pidfd":
                return bare(pids[CULPRIT])
            if kind == "sglang":
                error, right = RuntimeError, lambda error: f"Rank {CULPRIT} " in str(error)
                return caught(lambda: their_wait(readers, started), error, right)
            error, right = rankguard.RankFailed, lambda error: error.verdict.culprit.rank == CULPRIT
            return caught(lambda: rankguard.wait_ready(started, readers), error, right)

    return once


def of_torch():
    import torch.multiprocessing as tmp

    context = tmp.get_context("spawn")

    def once():
        up, up_writer = context.Pipe(duplex=False)
        life, life_writer = context.Pipe(duplex=False)
        with life_writer:
            job = tmp.spawn(torch_rank, (up_writer, life), nprocs=RANKS, join=False)
            arrived(up)

            def wait():
                while not job.join():
                    pass

            return caught(wait, tmp.ProcessExitedException, lambda error: error.error_index == CULPRIT)

    return once


def of_launch(kind, folder):
    import rankguard

    context = mp.get_context("spawn")

    def once_of_c():
        fifo = f"{folder}/caller-fifo"
        if not os.path.exists(fifo):
            os.mkfifo(fifo)
        said = os.open(fifo, os.O_RDWR)
        with os.fdopen(said) as lines, rankguard.launch([f"{folder}/rest", fifo], nprocs=RANKS, console="none") as job:
            pids = dict(map(int, lines.readline().split()[:2]) for _ in range(RANKS))
            print(*(pids[number] for number in range(RANKS)), flush=True)
            compute()
            return caught(job.wait, rankguard.RankFailed, lambda error: error.verdict.culprit.rank == CULPRIT)

    def once():
        up, up_writer = context.Pipe(duplex=False)
        life, life_writer = context.Pipe(duplex=False)
        with life_writer, rankguard.launch(launched_rank, nprocs=RANKS, args=(up_writer, life), console="none") as job:
            pids = arrived(up)
            if kind == "launch-pidfd":
                return bare(pids[CULPRIT])
            if kind == "launch-busy":
                compute()
            return caught(job.wait_ready, rankguard.RankFailed, lambda error: error.verdict.culprit.rank == CULPRIT)

    return once_of_c if kind == "launch-busy-c" else once


def compute():
    """Hold the interpreter for `BUSY_S`."""
    until, total = time.monotonic() + BUSY_S, 0
    while time.monotonic() < until:
        for number in range(10_000):
            total += number * number
    return total


def main(kind, method="spawn", folder=""):
    if kind == "spawn":
        once = of_torch()
    elif kind.startswith("launch"):
        once = of_launch(kind, folder)
    else:
        once = of_multiprocessing(kind, method, folder)
    print("here", flush=True)
    for _line in sys.stdin:
        try:
            at = once()
        except Exception as error:
            print(f"error: {type(error).__name__}: {error}".partition("\n")[0], flush=True)
        else:
            print(at, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
