"""The parts of engines that run in processes of their own and call rankguard there, in place of their own waiting."""

import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from tests.engines import sglang, vllm
from tests.engines.parts import die_with_parent, tell, title

import rankguard


def controller(folder: str, writer: Connection, groups: int, tp: int, _first: dict[str, Any] | None) -> None:
    """SGLang's controller: a thread for each group launches it and waits; the first failure goes up in place of the payload."""
    title("sglang::data_parallel_controller")
    die_with_parent()
    signal.signal(signal.SIGQUIT, lambda *_: None)
    tell(folder, "controller")
    started: list[BaseProcess] = []
    failures: list[rankguard.RankFailed] = []
    news = threading.Semaphore(0)

    def launch(group: int) -> None:
        places = [f"DP{group}_TP{n}" for n in range(tp)]
        readers, processes = sglang.start_schedulers(folder, places)
        started.extend(processes)
        try:
            rankguard.wait_ready(processes, readers, names=places)
        except rankguard.RankFailed as error:
            failures.append(error)
        news.release()
        while True:  # the schedulers would die with this thread
            time.sleep(3600)

    for group in range(groups):
        threading.Thread(target=launch, args=(group,), daemon=True).start()
    for _ in range(groups):
        news.acquire()
        if failures:
            writer.send({"status": "failed", "why": failures[0].verdict.statement})
            rankguard.stop(started, grace=0)
            os._exit(1)
    writer.send({**sglang.INFO, "scheduler_pids": [each.pid for each in started]})
    while True:
        time.sleep(3600)


def engine_core(folder: str, count: int, pipe: Connection, nested: bool | None) -> None:
    """vLLM's core: `wait_ready` over the ready pipes, then a guard whose callback is the executor's failure callback."""
    title("VLLM::EngineCore")
    tell(folder, "EngineCore")
    workers = vllm.start_workers(folder, count, nested)
    processes = [each.process for each in workers]
    try:
        payloads, guard = rankguard.wait_ready(
            processes, [each.ready for each in workers], is_ready=lambda m: m["status"] == "READY", keep=True
        )
    except rankguard.RankFailed as error:
        pipe.send(error.verdict.to_dict())
    else:
        pipe.send([vllm.read(each["handle"]) for each in payloads])
        pipe.send(guard.future.result().to_dict())
    pipe.send([ending.kind for ending in rankguard.stop(processes, grace=60)])
    os._exit(1)
