"""SGLang with `wait_ready`, `guard` and `stop` where its own waiting, watchdog and tree kill are. The test is its launcher."""

import contextlib
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests.engines import embedded, sglang
from tests.engines.parts import PATIENCE, Stage

import rankguard

PLACES = ("TP0", "TP1", "TP2", "TP3")


def is_ready(message: dict[str, Any]) -> bool:
    return message["status"] == "ready"


@pytest.fixture(autouse=True)
def sigquit() -> Iterator[list[int]]:
    """What the schedulers complain with does not end us: their ends tell more."""
    heard: list[int] = []
    before = signal.signal(signal.SIGQUIT, lambda number, _frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGQUIT, before)


@contextlib.contextmanager
def launched(stage: Stage, shape: str = "tp", detokenizers: int = 1) -> Iterator[tuple[Any, Any, list[str]]]:
    """The engine's processes, schedulers first; stopped, and nothing of them is left."""
    aside: Sequence[Any] = ()
    if shape == "tp":
        readers, processes = sglang.start_schedulers(stage.folder, PLACES)
        aside, names = sglang.start_detokenizers(stage.folder, detokenizers), list(PLACES)
    elif shape == "diffusion":
        readers, processes = sglang.start_diffusion(stage.folder, 4)
        names = [f"U{n}" for n in range(4)]
    else:
        prelaunch = shape == "dp-attention"
        target = embedded.controller if shape == "dp-embedded" else sglang.controller
        readers, processes = sglang.start_controller(stage.folder, 2, 2, prelaunch, target)
        names = ["controller", *(f"DP{n}_TP{n}_EP{n}" for n in range(2))] if prelaunch else ["controller"]
    processes = [*processes, *aside]
    names += ["detokenizer"] if len(aside) == 1 else [f"detokenizer-{n}" for n in range(len(aside))]
    try:
        yield readers, processes, names
    finally:
        rankguard.stop(processes, grace=0)
        assert stage.all_end(), stage.alive()  # a controller's schedulers are nobody's here: the kernel ends them


def failed(
    readers: Any, processes: Any, names: Any, error: type = rankguard.RankFailed, **more: Any
) -> rankguard.Verdict:
    with pytest.raises(error) as raised:
        rankguard.wait_ready(processes, readers, names=names, is_ready=is_ready, **more)
    return raised.value.verdict


def told(verdict: rankguard.Verdict) -> tuple[Any, ...]:
    culprit = verdict.culprit
    return culprit.name, culprit.cause.kind, culprit.ending.signal or culprit.ending.code


# ── Before everybody is ready ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("place", "number", "kind"),
    [
        ("TP3", signal.SIGKILL, "killed"),
        pytest.param("TP0", signal.SIGKILL, "killed", marks=pytest.mark.slow),
        pytest.param("TP2", signal.SIGABRT, "crash", marks=pytest.mark.slow),
    ],
)
def test_a_scheduler_is_killed_while_it_loads(stage: Stage, place: str, number: int, kind: str) -> None:
    """The last one's pipe does not end: its launcher holds the other end of it, too."""
    with launched(stage) as (readers, processes, names):
        stage.order([each for each in PLACES if each != place][:2], "go")
        stage.kill(place, number)
        verdict = failed(readers, processes, names)
        assert told(verdict) == (place, kind, signal.Signals(number).name)
        assert (verdict.culprit.phase, verdict.world_size) == ("starting", 5)


@pytest.mark.slow
def test_a_scheduler_raises_while_it_loads(stage: Stage, sigquit: list[int]) -> None:
    """SIGQUIT for its launcher, and an end with 0."""
    with launched(stage) as (readers, processes, names):
        stage.order("TP1", "raise out of memory")
        assert told(failed(readers, processes, names)) == ("TP1", "exit-before-ready", 0)
        assert sigquit == [signal.SIGQUIT]


@pytest.mark.slow
def test_a_scheduler_is_stuck_while_it_loads(stage: Stage) -> None:
    with launched(stage) as (readers, processes, names):
        stage.met(*PLACES)
        stage.order([each for each in PLACES if each != "TP2"], "go")
        for place, reader in zip(PLACES, readers, strict=True):
            assert reader.poll(0 if place == "TP2" else PATIENCE) == (
                place != "TP2"
            )  # all others have told that they are
        verdict = failed(readers, processes, names, rankguard.ReadyTimeout, timeout=1.5)
        assert (verdict.culprit.name, verdict.culprit.cause.kind) == ("TP2", "ready-timeout")


@pytest.mark.slow
@pytest.mark.parametrize(("detokenizers", "whom"), [(1, "detokenizer"), (2, "detokenizer-2")], ids=["one", "router"])
def test_a_detokenizer_is_killed_while_the_schedulers_load(stage: Stage, detokenizers: int, whom: str) -> None:
    with launched(stage, detokenizers=detokenizers) as (readers, processes, names):
        stage.order(PLACES[:3], "go")
        stage.kill("detokenizer" if detokenizers == 1 else "detokenizer_router")
        assert told(failed(readers, processes, names)) == (whom, "killed", "SIGKILL")


# ── While it serves ──────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def serving(stage: Stage, shape: str = "tp", whom: Sequence[str] = PLACES) -> Iterator[Any]:
    with launched(stage, shape) as (readers, processes, names):
        stage.order(whom, "go")
        infos, guard = rankguard.wait_ready(processes, readers, names=names, is_ready=is_ready, keep=True)
        assert {info["max_req_input_len"] for info in infos} == {4090}
        try:
            yield infos, guard
        finally:
            with contextlib.suppress(rankguard.RankFailed):
                guard.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whom", "what", "expected"),
    [
        ("TP3", signal.SIGKILL, ("TP3", "killed", "SIGKILL")),
        ("TP0", signal.SIGABRT, ("TP0", "crash", "SIGABRT")),
        ("TP1", "exit 0", ("TP1", "exit-code", 0)),
        ("TP1", "raise nan", ("TP1", "exit-code", 0)),
        ("detokenizer", signal.SIGKILL, ("detokenizer", "killed", "SIGKILL")),
    ],
    ids=["killed", "aborted", "exit-0", "raises", "detokenizer"],
)
def test_one_ends_while_it_serves(stage: Stage, whom: str, what: Any, expected: tuple[Any, ...]) -> None:
    with serving(stage) as (_infos, guard):
        stage.order(whom, what) if isinstance(what, str) else stage.kill(whom, what)
        assert told(guard.future.result(PATIENCE)) == expected


@pytest.mark.slow
def test_a_node_beside_the_first_waits_for_any_of_its_schedulers(stage: Stage) -> None:
    """In place of joins in order, behind a health page that always says yes."""
    with serving(stage) as (_infos, guard):
        assert guard.verdict() is None  # what the page asks
        stage.kill("TP3")
        assert told(guard.future.result(PATIENCE)) == ("TP3", "killed", "SIGKILL")
        assert guard.verdict() is not None


@pytest.mark.slow
def test_the_engine_shuts_down(stage: Stage) -> None:
    with serving(stage) as (_infos, guard):
        guard.stopping()
        stage.order(PLACES, "go")
    assert guard.future.result(PATIENCE) is None


# ── With a data-parallel controller ──────────────────────────────────────────────────────────────────────────────────

GRANDCHILDREN = ("DP0_TP0", "DP0_TP1", "DP1_TP0", "DP1_TP1")


@pytest.mark.slow
def test_a_grandchild_is_killed_while_it_serves(stage: Stage) -> None:
    """Its pid comes with the controller's payload."""
    with serving(stage, "dp", GRANDCHILDREN) as (infos, guard):
        assert sorted(infos[0]["scheduler_pids"]) == sorted(stage.met(*GRANDCHILDREN))
        for pid in infos[0]["scheduler_pids"]:
            guard.add(pid, f"scheduler {pid}")
        pid = stage.kill("DP1_TP0")
        assert told(guard.future.result(PATIENCE)) == (f"scheduler {pid}", "killed", "SIGKILL")


@pytest.mark.slow
def test_a_grandchild_has_been_killed_before_it_is_added(stage: Stage) -> None:
    with serving(stage, "dp", GRANDCHILDREN) as (infos, guard):
        pid = stage.kill("DP1_TP0")
        for each in infos[0]["scheduler_pids"]:
            guard.add(each)
        assert guard.future.result(PATIENCE).culprit.pid == pid


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "what", "says"),
    [
        ("DP1_TP1", signal.SIGKILL, "DP1_TP1 was killed by SIGKILL"),
        ("DP0_TP1", signal.SIGKILL, "DP0_TP1 was killed by SIGKILL"),
        ("DP1_TP0", "raise no kernel image", "DP1_TP0 ended with exit code 0"),
    ],
    ids=["last-of-the-last-group", "last-of-the-first", "raises"],
)
def test_a_grandchild_dies_while_it_loads(stage: Stage, place: str, what: Any, says: str) -> None:
    """Each thread of the controller waits for its group, and what it learns is sent up in place of the payload."""
    with launched(stage, "dp-embedded") as (readers, processes, names):
        stage.met(*GRANDCHILDREN)
        stage.order([each for each in GRANDCHILDREN if each != place], "go")
        stage.order(place, what) if isinstance(what, str) else stage.kill(place, what)
        verdict = failed(readers, processes, names)
        assert told(verdict)[:2] == ("controller", "reported-failure")
        assert says in verdict.culprit.cause.statement


@pytest.mark.slow
def test_a_scheduler_beside_its_controller_is_killed_while_it_loads(stage: Stage) -> None:
    """Attention DP: the schedulers are the engine's own children, and only the controller has a pipe."""
    with launched(stage, "dp-attention") as (readers, processes, names):
        stage.order("DP0_TP0_EP0", "go")
        stage.kill("DP1_TP1_EP1")
        assert told(failed(readers, processes, names)) == ("DP1_TP1_EP1", "killed", "SIGKILL")


@pytest.mark.slow
def test_the_controller_is_killed_while_it_waits(stage: Stage) -> None:
    with launched(stage, "dp") as (readers, processes, names):
        stage.met(*GRANDCHILDREN)
        stage.kill("controller")
        assert told(failed(readers, processes, names)) == ("controller", "killed", "SIGKILL")


# ── Diffusion ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_diffusion_worker_is_killed_while_it_loads(stage: Stage) -> None:
    with launched(stage, "diffusion") as (readers, processes, names):
        stage.order(["U0", "U1"], "go")
        stage.kill("U2")
        assert told(failed(readers, processes, names)) == ("U2", "killed", "SIGKILL")


@pytest.mark.slow
def test_a_diffusion_worker_is_killed_while_it_serves(stage: Stage) -> None:
    with serving(stage, "diffusion", ("U0", "U1", "U2", "U3")) as (_infos, guard):
        stage.kill("U3")
        assert told(guard.future.result(PATIENCE)) == ("U3", "killed", "SIGKILL")
