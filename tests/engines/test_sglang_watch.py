"""SGLang as it is, under `rankguard watch`: its own waiting, watchdog, SIGQUIT and tree kill are at work beside us."""

import signal
from typing import Any

import pytest
from tests.engines.parts import Stage
from tests.engines.watched import Played, told
from tests.watch.engines import Engines

pytestmark = pytest.mark.slow

PLACES = ("TP0", "TP1", "TP2", "TP3")
GROUPS = ("DP0_TP0", "DP0_TP1", "DP1_TP0", "DP1_TP1")
BESIDE = ("DP0_TP0_EP0", "DP1_TP1_EP1")
PIPES = ("U0", "U1", "U2", "U3")
SHAPES: dict[str, dict[str, Any]] = {
    "tp": {"names": PLACES, "title": "sglang::scheduler"},
    "node-1": {"names": PLACES, "title": "sglang::scheduler"},
    "dp": {"names": GROUPS, "title": "sglang::scheduler", "tp": 2},
    "dp-attention": {"names": BESIDE, "title": "sglang::scheduler", "tp": 2},
    "diffusion": {"names": PIPES, "title": "sgl_diffusion::scheduler"},
}


def play(engines: Engines, stage: Stage, shape: str, *options: str) -> tuple[Played, tuple[str, ...], str]:
    about = SHAPES[shape]
    played = Played(engines, stage, "sglang", *options, shape=shape, tp=about.get("tp", 4))
    return played.known(*about["names"]), about["names"], about["title"]


def who_may_have_been(played: Played, kind: str) -> set[str]:
    """The culprit, and those that may as well have been first: where a parent is killed, its children are in that instant."""
    ended = played.ended()
    verdict = ended.verdict
    assert (ended.cause["kind"], ended.status) == (kind, 137)
    return {verdict["culprit"]["name"], *(verdict["ranks"][row]["name"] for row in verdict["either"])}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_scheduler_is_killed_while_it_loads(engines: Engines, stage: Stage, shape: str) -> None:
    played, names, title = play(engines, stage, shape)
    stage.order(names[0], "go")
    stage.kill(names[-1])
    if shape == "dp-attention":  # its controller sees the end of a pipe, and the engine kills everybody at once
        assert who_may_have_been(played, "killed") >= {f"{title}_{names[-1]}"}
    else:
        assert told(played.ended()) == (f"{title}_{names[-1]}", "killed", 137)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_scheduler_aborts_while_it_loads(engines: Engines, stage: Stage, shape: str) -> None:
    played, names, title = play(engines, stage, shape)
    stage.order(names[1], "abort")
    assert told(played.ended()) == (f"{title}_{names[1]}", "crash", 134)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_scheduler_raises_while_it_loads(engines: Engines, stage: Stage, shape: str) -> None:
    """The engine kills everybody, itself too, within a millisecond or two: its log alone tells who it was."""
    played, names, title = play(engines, stage, shape, "--settle", "5")
    stage.order(names[1], "raise no kernel image")
    ended = played.ended()
    assert told(ended)[:2] == (f"{title}_{names[1]}", "exception"), ended.stderr
    if (
        shape != "diffusion"
    ):  # all share one output: on a busy machine the launcher's own traceback may be its last by then
        assert ended.cause["exception"]["message"] == "no kernel image"
    assert "Broken: no kernel image" in ended.stderr
    assert ended.cause["confidence"] == "likely"
    assert ended.verdict["either"] == []
    assert "independent" not in [row["relation"] for row in ended.verdict["ranks"]], ended.stderr


@pytest.mark.parametrize("shape", SHAPES)
def test_a_scheduler_is_killed_while_it_serves(engines: Engines, stage: Stage, shape: str) -> None:
    played, names, title = play(engines, stage, shape)
    stage.order(names, "go")
    stage.met("ready")
    stage.kill(names[-1])
    assert told(played.ended()) == (f"{title}_{names[-1]}", "killed", 137)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_scheduler_ends_with_0_while_it_serves(engines: Engines, stage: Stage, shape: str) -> None:
    played, names, title = play(engines, stage, shape)
    stage.order(names, "go")
    stage.met("ready")
    stage.order(names[1], "exit 0")
    assert told(played.ended()) == (f"{title}_{names[1]}", "exit-code", 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_launcher_is_killed(engines: Engines, stage: Stage, shape: str) -> None:
    played, _names, _title = play(engines, stage, shape)
    stage.kill("engine")
    assert who_may_have_been(played, "killed") >= {"the engine"}


@pytest.mark.parametrize("shape", SHAPES)
def test_somebody_is_stuck_while_it_loads(engines: Engines, stage: Stage, shape: str) -> None:
    played, names, _title = play(
        engines, stage, shape, "--ready-log", "fired up", "--ready-timeout", "15", "--grace", "1"
    )
    stage.order(names[:-1], "go")
    ended = played.ended()
    assert (ended.cause["kind"], ended.status) == ("ready-timeout", 124)


def test_the_detokenizer_is_killed_while_the_schedulers_load(engines: Engines, stage: Stage) -> None:
    played, _names, _title = play(engines, stage, "tp")
    played.known("detokenizer")
    stage.kill("detokenizer")
    assert told(played.ended()) == ("sglang::detokenizer", "killed", 137)


def test_the_controller_is_killed_while_it_serves(engines: Engines, stage: Stage) -> None:
    played, names, _title = play(engines, stage, "dp")
    stage.order(names, "go")
    played.known("controller-serves")
    stage.kill("controller")
    assert who_may_have_been(played, "killed") >= {"sglang::data_parallel_controller"}


def test_the_engine_is_told_to_end(engines: Engines, stage: Stage) -> None:
    played, names, _title = play(engines, stage, "tp")
    stage.order(names, "go")
    stage.met("ready")
    played.watched.process.send_signal(signal.SIGTERM)
    ended = played.ended()
    assert ended.verdict["outcome"] == "interrupted"
