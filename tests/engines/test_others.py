"""TensorRT-LLM, LMDeploy and text-generation-inference: their shapes with the library inside where there is Python to hold
it, and as they are under `rankguard watch`.
"""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.engines import lmdeploy, trtllm
from tests.engines.parts import PATIENCE, Stage
from tests.engines.watched import Played, told
from tests.watch.engines import Engines

import rankguard

pytestmark = pytest.mark.slow
RANKS = ("rank-0", "rank-1", "rank-2")
PROCS = ("proc-0", "proc-1", "proc-2")
SHARDS = ("shard-0", "shard-1")


# ── TensorRT-LLM ─────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def pool(stage: Stage) -> Iterator["subprocess.Popen[bytes]"]:
    daemon = trtllm.start_pool(stage.folder, len(RANKS))
    try:
        stage.met("daemon")
        yield daemon
    finally:
        rankguard.stop([daemon, *stage.pids.values()], grace=0)
        assert stage.alive() == []


@pytest.mark.parametrize("ready", [False, True], ids=["loads", "serves"])
def test_a_worker_of_the_pool_is_killed(stage: Stage, ready: bool) -> None:
    """Each is added by the pid that it tells before it loads: it is nobody's child here."""
    with pool(stage), rankguard.guard([], on_failure=lambda _verdict: None) as guard:
        for number, pid in enumerate(stage.met(*RANKS)):
            guard.add(pid, f"rank {number}")
        if ready:
            stage.order(RANKS, "go")
            stage.met("ready-0", "ready-1", "ready-2")
        stage.kill("rank-1")
        culprit = guard.future.result(PATIENCE).culprit
        assert (culprit.name, culprit.cause.kind, culprit.ending.signal) == ("rank 1", "killed", "SIGKILL")


def test_the_pool_is_stopped_after_its_daemon_has_gone(stage: Stage) -> None:
    """Sessions and groups are no help, and nobody's children are found by their parents: the pids are."""
    with pool(stage):
        pids = stage.met(*RANKS)
        stage.kill("daemon")
        assert [each.kind for each in rankguard.stop(pids, grace=0.2)] == ["signal"] * 3


@pytest.mark.parametrize("ready", [False, True], ids=["loads", "serves"])
def test_a_worker_of_the_pool_is_killed_under_watch(engines: Engines, stage: Stage, ready: bool) -> None:
    played = Played(engines, stage, "trtllm").known(*RANKS)
    if ready:
        stage.order(RANKS, "go")
    stage.kill("rank-1")
    ended = played.ended()
    culprit = ended.verdict["culprit"]
    assert (culprit["role"], culprit["cause"]["kind"], ended.status) == ("rank", "killed", 137)
    assert culprit["pid"] == stage.pids["rank-1"]


# ── LMDeploy ─────────────────────────────────────────────────────────────────────────────────────────────────────────

PATTERN = ("--rank-pattern", r"multiprocessing\.spawn import (?P<role>spawn)_main")


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (signal.SIGKILL, ("ExecutorProc-1", "killed")),
        (signal.SIGSEGV, ("ExecutorProc-1", "crash")),
        ("raise no kernel image", ("ExecutorProc-1", "exit-code")),
    ],
    ids=["killed", "crash", "raises"],
)
def test_a_worker_without_a_pipe_ends(stage: Stage, order: signal.Signals | str, expected: tuple[str, str]) -> None:
    """Nobody waits for its word, so the guard begins as it is started."""
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
    processes = lmdeploy.start_workers(stage.folder, 3)
    try:
        with rankguard.guard(processes, on_failure=lambda _verdict: None) as guard:
            stage.met(*PROCS)
            stage.order("proc-1", order) if isinstance(order, str) else stage.kill("proc-1", order)
            culprit = guard.future.result(PATIENCE).culprit
        assert (culprit.name, culprit.cause.kind) == expected
    finally:
        rankguard.stop(processes, grace=0)
        signal.signal(signal.SIGUSR1, before)
    assert heard == ([signal.SIGUSR1] if isinstance(order, str) else [])


@pytest.mark.parametrize(
    ("number", "kind", "status"),
    [(signal.SIGKILL, "killed", 137), (signal.SIGSEGV, "crash", 139)],
    ids=["killed", "crash"],
)
def test_a_worker_without_a_title_ends_under_watch(
    engines: Engines, stage: Stage, number: signal.Signals, kind: str, status: int
) -> None:
    played = Played(engines, stage, "lmdeploy", *PATTERN).known(*PROCS)
    stage.kill("proc-2", number)
    ended = played.ended()
    culprit = ended.verdict["culprit"]
    assert (culprit["pid"], culprit["cause"]["kind"], ended.status) == (stage.pids["proc-2"], kind, status)


def test_a_worker_without_a_title_raises_under_watch(engines: Engines, stage: Stage) -> None:
    """It complains to its parent, which ends the others and itself: with 1."""
    played = Played(engines, stage, "lmdeploy", *PATTERN).known(*PROCS)
    stage.order("proc-1", "raise no kernel image")
    ended = played.ended()
    assert ended.status == 1
    assert "Broken: no kernel image" in ended.stderr


# ── text-generation-inference ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ready", [False, True], ids=["loads", "serves"])
def test_a_shard_is_killed(engines: Engines, stage: Stage, ready: bool) -> None:
    played = Played(engines, stage, "tgi", "--ready-log", "^Connected$").known(*SHARDS)
    if ready:
        stage.order(SHARDS, "go")
        played.watched.wait_for("Ready")
    stage.kill("shard-1")
    ended = played.ended()
    culprit = ended.verdict["culprit"]
    assert (culprit["role"], culprit["pid"]) == ("shard", stage.pids["shard-1"])
    assert (culprit["cause"]["kind"], ended.status) == ("killed", 137)
    assert (ended.verdict["ready_at"] is not None) == ready


def test_a_shard_leaves_with_a_code(engines: Engines, stage: Stage) -> None:
    played = Played(engines, stage, "tgi").known(*SHARDS)
    stage.order("shard-0", "exit 3")
    ended = played.ended()
    assert (ended.verdict["culprit"]["pid"], ended.cause["kind"], ended.status) == (
        stage.pids["shard-0"],
        "exit-code",
        3,
    )


def test_the_launcher_is_killed_and_its_shards_have_children(engines: Engines, stage: Stage) -> None:
    """They outlive it by themselves, in groups of their own."""
    played = Played(engines, stage, "tgi").known(*SHARDS)
    stage.order(SHARDS, "go", "go")
    stage.met("shard-0-child", "shard-1-child")
    stage.kill("engine")
    assert told(played.ended()) == ("the engine", "killed", 137)
