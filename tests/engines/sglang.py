"""SGLang's launch, played: processes, pipes, titles and signals as in 0.5.23, without a model.

Read from `sglang/srt/entrypoints/engine.py`, `managers/data_parallel_controller.py`, `utils/watchdog.py` and
`multimodal_gen/runtime/launch_server.py` of the wheel, and said in words of our own. `serve` is the engine as it is;
`start_…` are its launches, which the tests of the library call in its place.
"""

import multiprocessing as mp
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from tests.engines.parts import Part, die_with_parent, kill_tree, tell, title

INFO = {"status": "ready", "max_total_num_tokens": 4096, "max_req_input_len": 4090}
LOOK_S, WATCHDOG_S = 5.0, 1.0
"""Its own: between two looks at who is alive while it waits, and while it serves."""

Launch = tuple[list[Connection], list[BaseProcess]]


# ── Its processes ────────────────────────────────────────────────────────────────────────────────────────────────────


def scheduler(folder: str, place: str, writer: Connection, name: str = "sglang::scheduler") -> None:
    """Loads, sends its payload, serves. What it raises it logs, and sends SIGQUIT to its parent; then it ends with 0.
    Those of diffusion end with 1.
    """
    die_with_parent()
    title(f"{name}_{place}")
    parent = os.getppid()
    try:
        part = Part(folder, place)
        part.play()
        writer.send({**INFO, "place": place})
        part.play()
    except Exception:
        if "diffusion" in name:
            raise  # and that is all: exit code 1
        print(
            f"[{_now()} {place.replace('_', ' ')}] Scheduler hit an exception: {traceback.format_exc()}",
            file=sys.stderr,
        )
        os.kill(parent, signal.SIGQUIT)


def waiting_scheduler(folder: str, place: str, pipe: Connection) -> None:
    """One that is started before its controller (attention DP), which tells it by `pipe` what it is."""
    die_with_parent()
    pipe.recv()
    scheduler(folder, place, pipe)


def detokenizer(folder: str, name: str = "detokenizer") -> None:
    """Owes nobody a message."""
    die_with_parent()
    title(f"sglang::{name}")
    Part(folder, name).play()


def controller(folder: str, writer: Connection, groups: int, tp: int, first: dict[str, Any] | None) -> None:
    """The data-parallel controller: a thread for each group launches it and waits; the payload has everybody's pid."""
    title("sglang::data_parallel_controller")
    die_with_parent()
    parent = os.getppid()
    tell(folder, "controller")
    try:
        processes: list[BaseProcess] = []
        if first is not None:
            for place, (_, pipe) in first.items():
                pipe.send(place)
            for _, pipe in first.values():
                pipe.recv()
        else:
            events = [threading.Event() for _ in range(groups)]
            for group, event in enumerate(events):
                threading.Thread(target=_launch_group, args=(folder, group, tp, processes, event)).start()
            for event in events:
                event.wait()
        pids = [each.pid for each in processes] or [pid for pid, _ in (first or {}).values()]
        writer.send({**INFO, "scheduler_pids": pids})
        tell(folder, "controller-serves")
        while True:
            time.sleep(3600)
    except Exception:
        print(f"[{_now()}] DataParallelController hit an exception: {traceback.format_exc()}", file=sys.stderr)
        os.kill(parent, signal.SIGQUIT)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _launch_group(folder: str, group: int, tp: int, processes: list[BaseProcess], event: threading.Event) -> None:
    readers, started = start_schedulers(folder, [f"DP{group}_TP{n}" for n in range(tp)])
    processes += started
    for reader in readers:
        reader.recv()
    event.set()
    while True:  # the schedulers would die with this thread
        time.sleep(3600)


# ── Its launches ─────────────────────────────────────────────────────────────────────────────────────────────────────


def start_schedulers(folder: str, places: Sequence[str]) -> Launch:
    """One pipe for each. The parent's own end of the last one stays open, since nothing closes it."""
    context = mp.get_context("spawn")
    readers, processes = [], []
    for place in places:
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=scheduler, args=(folder, place, writer))
        process.start()
        readers.append(reader)
        processes.append(process)
    _held.append(writer)
    return readers, list(processes)


def start_detokenizers(folder: str, count: int = 1) -> list[BaseProcess]:
    """One, or several and their router."""
    names = ["detokenizer"] if count == 1 else [f"detokenizer_{n}" for n in range(count)] + ["detokenizer_router"]
    processes = [mp.get_context("spawn").Process(target=detokenizer, args=(folder, name)) for name in names]
    for process in processes:
        process.start()
    return list(processes)


def start_controller(folder: str, groups: int, tp: int, prelaunch: bool, target: Callable[..., None]) -> Launch:
    """One pipe, of the controller; with `prelaunch` (attention DP) the schedulers are the engine's children, beside it."""
    context = mp.get_context("spawn")
    first: dict[str, Any] = {}
    processes: list[BaseProcess] = []
    for place in [f"DP{n}_TP{n}_EP{n}" for n in range(tp)] if prelaunch else []:
        ours, theirs = context.Pipe()
        process = context.Process(target=waiting_scheduler, args=(folder, place, theirs))
        process.start()
        theirs.close()
        first[place] = (process.pid, ours)
        processes.append(process)
    reader, writer = context.Pipe(duplex=False)
    chief = context.Process(target=target, args=(folder, writer, groups, tp, first or None))
    chief.start()
    for _, ours in first.values():
        ours.close()
    _held.append(writer)
    return [reader], [chief, *processes]


def start_diffusion(folder: str, count: int) -> Launch:
    """Daemons; the parent closes its ends."""
    context = mp.get_context("spawn")
    readers, processes = [], []
    for number in range(count):
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(
            target=scheduler,
            args=(folder, f"U{number}", writer, "sgl_diffusion::scheduler"),
            name=f"sglang-diffusionWorker-{number}",
            daemon=True,
        )
        process.start()
        writer.close()
        readers.append(reader)
        processes.append(process)
    return readers, list(processes)


_held: list[Connection] = []
"""The ends that SGLang leaves open, for as long as it lives."""


# ── The engine as it is ──────────────────────────────────────────────────────────────────────────────────────────────


def serve(folder: str, shape: str = "tp", tp: int = 4, dp: int = 2) -> None:
    """`tp`: one node. `node-1`: a node beside the first. `dp`, `dp-attention`: with a controller. `diffusion`."""
    signal.signal(signal.SIGQUIT, _kill_everything)
    tell(folder, "engine")
    processes: list[BaseProcess] = []
    try:
        if shape in ("tp", "node-1"):
            readers, processes = start_schedulers(folder, [f"TP{n}" for n in range(tp)])
        elif shape == "diffusion":
            readers, processes = start_diffusion(folder, tp)
        else:
            readers, processes = start_controller(folder, dp, tp, shape == "dp-attention", controller)
        aside = start_detokenizers(folder) if shape in ("tp", "dp", "dp-attention") else []
        (_wait_for_any if shape == "diffusion" else _wait_in_order)(readers, processes)
        tell(folder, "ready")
        if shape == "node-1":
            signal.signal(signal.SIGTERM, lambda *_: None)  # it waits for node 0 to say so
            for process in processes:
                process.join()
        else:
            if shape != "diffusion":
                threading.Thread(target=_watchdog, args=([*processes, *aside],), daemon=True).start()
            while True:
                time.sleep(3600)
    finally:
        for process in processes:
            process.terminate() if shape == "diffusion" else kill_tree([process.pid or 0])


def _wait_in_order(readers: Sequence[Connection], processes: Sequence[BaseProcess]) -> None:
    for number, reader in enumerate(readers):
        while not reader.poll(LOOK_S):
            for other, process in enumerate(processes):
                if not process.is_alive():
                    raise RuntimeError(f"Rank {other} scheduler died ({process.exitcode})")
        try:
            reader.recv()
        except EOFError:
            processes[number].join(10)
            raise RuntimeError(f"Rank {number} scheduler died ({processes[number].exitcode})") from None


def _wait_for_any(readers: Sequence[Connection], processes: Sequence[BaseProcess]) -> None:
    """Since 0.5.23; before, in order, and without a look at anybody."""
    pending, sentinels = set(readers), {each.sentinel: each for each in processes}
    while pending:
        news = wait([*pending, *sentinels])
        if gone := [sentinels[each] for each in news if each in sentinels]:  # type: ignore[index]
            gone[0].join()
            raise RuntimeError(f"{gone[0].name} exited during initialization ({gone[0].exitcode})")
        pending -= set(news)  # type: ignore[arg-type]


def _watchdog(processes: Sequence[BaseProcess]) -> None:
    while True:
        time.sleep(WATCHDOG_S)
        for process in processes:
            if not process.is_alive() and process.exitcode != 0:
                os.kill(os.getpid(), signal.SIGQUIT)
                return


def _kill_everything(*_: Any) -> None:
    """Its answer to SIGQUIT: SIGKILL for everything below it, then for itself."""
    print(f"[{_now()}] Received sigquit from a child process. It usually means the child failed.", file=sys.stderr)
    kill_tree([os.getpid()])
