"""LMDeploy's PyTorch executor, played: workers by spawn, without a title, that complain by SIGUSR1.

Read from `lmdeploy/pytorch/engine/executor/mp_executor.py` of 0.18.0, and said in words of our own.
"""

import multiprocessing as mp
import os
import signal
import threading
import traceback
from multiprocessing.process import BaseProcess
from typing import Any

from tests.engines.parts import Part, tell


def worker(folder: str, number: int) -> None:
    """Its SIGTERM is an end with 0; so is what it raises, after it has been logged and SIGUSR1 been sent."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        part = Part(folder, f"proc-{number}")
        part.play()
        part.play()
    except Exception:
        traceback.print_exc()
        os.kill(os.getppid(), signal.SIGUSR1)


def start_workers(folder: str, count: int) -> list[BaseProcess]:
    """Nobody waits for a word of theirs: the first call that wants an answer does."""
    context = mp.get_context("spawn")
    processes: list[BaseProcess] = []
    for number in range(count):
        process = context.Process(target=worker, args=(folder, number), name=f"ExecutorProc-{number}", daemon=True)
        process.start()
        processes.append(process)
    return processes


def serve(folder: str, tp: int = 3) -> None:
    """Waits for answers without a limit. Its answer to SIGUSR1: SIGTERM to all, joins without a limit, exit 1."""
    tell(folder, "engine")
    processes = start_workers(folder, tp)

    def release(*_: Any) -> None:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        os._exit(1)

    signal.signal(signal.SIGUSR1, release)
    threading.Event().wait()
