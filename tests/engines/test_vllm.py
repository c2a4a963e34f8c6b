"""vLLM's engine core and its workers with `wait_ready`, `guard` and `stop` inside, and the whole of it under `watch`."""

import multiprocessing as mp
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.engines import embedded
from tests.engines.parts import PATIENCE, Stage
from tests.engines.watched import Played, told
from tests.watch.engines import Engines

import rankguard

WORKERS = ("Worker_TP0", "Worker_TP1", "Worker_TP2")


@contextmanager
def engine_core(stage: Stage, nested: bool | None = None) -> Iterator[tuple[Any, Any]]:
    """A core that uses the library, in a process of its own as vLLM's is; and what it says."""
    context = mp.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=embedded.engine_core, args=(stage.folder, len(WORKERS), writer, nested))
    process.start()
    writer.close()

    def said() -> Any:
        assert reader.poll(PATIENCE)
        return reader.recv()

    try:
        stage.met("EngineCore", *WORKERS)
        yield process, said
    finally:
        rankguard.stop([process], grace=0)
        reader.close()
        for pid in stage.pids.values():
            _gone(pid)


def _gone(pid: int) -> None:
    """Workers of a dead core are the test's children (it is a subreaper), and nobody else waits for them."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def culprit(verdict: dict[str, Any]) -> tuple[Any, ...]:
    found = verdict["culprit"]
    return found["name"], found["cause"]["kind"], found["ending"].get("signal") or found["ending"].get("code")


# ── Inside the core ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (signal.SIGKILL, ("VllmWorker-1", "killed", "SIGKILL")),
        ("raise no kernel image", ("VllmWorker-1", "exit-before-ready", 0)),
    ],
    ids=["killed", "raises"],
)
def test_a_worker_ends_while_it_loads(stage: Stage, order: Any, expected: tuple[Any, ...]) -> None:
    with engine_core(stage) as (_process, said):
        stage.order("Worker_TP0", "go")
        stage.order("Worker_TP1", order) if isinstance(order, str) else stage.kill("Worker_TP1", order)
        assert culprit(said()) == expected
        assert said() == ["exit", "signal" if order == signal.SIGKILL else "exit", "exit"]  # of `stop`


@pytest.mark.parametrize("nested", [False, True], ids=["by-name", "with-a-connection"])
def test_payloads_carry_handles(stage: Stage, nested: bool) -> None:
    """Shared memory by name; and a connection, which is fetched from its worker while we wait for the others."""
    with engine_core(stage, nested) as (_process, said):
        stage.order(WORKERS, "go")
        answers = [f"answer of {n}" if nested else None for n in range(len(WORKERS))]
        assert said() == [(b"here", answer) for answer in answers]
        stage.kill("Worker_TP2")
        assert culprit(said()) == ("VllmWorker-2", "killed", "SIGKILL")


def test_a_worker_that_has_forked_is_killed_while_it_serves(stage: Stage) -> None:
    """Its `sentinel` is a pipe that its child holds open: only its pidfd tells."""
    with engine_core(stage) as (_process, said):
        stage.order(WORKERS, "go")
        said()
        stage.order("Worker_TP0", "go")
        stage.met("Worker_TP0-child")
        stage.kill("Worker_TP0")
        assert culprit(said()) == ("VllmWorker-0", "killed", "SIGKILL")


def test_the_server_learns_of_its_cores_death(stage: Stage) -> None:
    """The guard of the API server. The workers outlive their core: nobody but the core knew them."""
    with engine_core(stage) as (process, said):
        stage.order(WORKERS, "go")
        said()
        with rankguard.guard([process], names=["EngineCore"], on_failure=lambda _verdict: None) as guard:
            stage.kill("EngineCore")
            verdict = guard.future.result(PATIENCE)
        assert (verdict.culprit.name, verdict.culprit.cause.kind) == ("EngineCore", "killed")
        assert set(WORKERS) <= set(stage.alive())


# ── The whole of it, as it is, under watch ───────────────────────────────────────────────────────────────────────────

TITLES = tuple(f"VLLM::{name}" for name in WORKERS)


def play(engines: Engines, stage: Stage) -> Played:
    played = Played(engines, stage, "vllm", tp=len(WORKERS)).known("EngineCore", *WORKERS)
    played.watched.called({stage.pids[name]: f"VLLM::{name}" for name in ("EngineCore", *WORKERS)})
    return played


@pytest.mark.slow
def test_a_worker_is_killed_while_it_loads(engines: Engines, stage: Stage) -> None:
    played = play(engines, stage)
    stage.order(WORKERS[0], "go")
    stage.kill(WORKERS[1])
    assert told(played.ended()) == (TITLES[1], "killed", 137)


@pytest.mark.slow
def test_a_worker_raises_while_it_loads(engines: Engines, stage: Stage) -> None:
    """It logs that and ends with 0, its core with 1."""
    played = play(engines, stage)
    stage.order(WORKERS[1], "raise no kernel image")
    ended = played.ended()
    assert (ended.verdict["culprit"]["name"], ended.status) == (TITLES[1], 1)
    assert "Broken: no kernel image" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whom", "name"),
    [("Worker_TP2", "VLLM::Worker_TP2"), ("EngineCore", "VLLM::EngineCore"), ("engine", "the engine")],
)
def test_one_is_killed_while_it_serves(engines: Engines, stage: Stage, whom: str, name: str) -> None:
    """By itself vLLM ends with 0; without its server the core and the workers live on."""
    played = play(engines, stage)
    stage.order(WORKERS, "go")
    stage.met("ready")
    stage.kill(whom)
    assert told(played.ended()) == (name, "killed", 137)
