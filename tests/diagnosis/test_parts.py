"""`diagnosis/parts.py`: one verdict of those that the nodes of a watch have come to, each by itself."""

import pytest

from rankguard.case import Case, RankCase
from rankguard.diagnosis.failure_class import FailureClass
from rankguard.diagnosis.parts import Part, verdict_of_all
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import Exited, Joined, NodeJoined, NodeLost, StopRequested
from rankguard.jobspec import JobSpec, NodesPlan, WatchPlan
from rankguard.model import Ending, Phase, Verdict

TIMES = (90.0, 1.7e9, 130.0)
KILLED = Ending(kind="signal", signal="SIGKILL", number=9)
ENDED = Ending(kind="exit", code=0)


def spec(**more: object) -> JobSpec:
    fields: dict[str, object] = {
        "command": ("e",),
        "argv": ("e",),
        "nprocs": 1,
        "env": {},
        "cwd": "/",
        "role": "engine",
    }
    return JobSpec(**({"run_id": "r"} | fields | more))  # type: ignore[arg-type]  # fields of JobSpec


def own(node: str, *, killed: bool = False, stop: StopRequested | None = None, code: int = 0) -> Verdict:
    """As a node's own core makes it: an engine and one worker."""
    ending = Ending(kind="exit", code=code)
    root = RankCase(rank=0, pid=10, phase=Phase.RUNNING, exited=Exited(102.0, 0, ending), signalled_at=101.0)
    member = Joined(91.0, 1, 11, "VLLM::Worker_TP0", "Worker", 0, True, 10, "rule")
    worker = RankCase(
        rank=1, pid=11, name=member.name, role="Worker", phase=Phase.RUNNING, suspect=killed,
        exited=Exited(101.0, 1, KILLED if killed else ENDED), failed_at=101.0 if killed else None,
    )  # fmt: skip
    case = Case(
        spec=spec(watch=WatchPlan(), node=node, run_id=node, run_dir=f"/runs/{node}"), started_at=90.0, started_wall=1.7e9,
        now=110.0, ranks=(root, worker), failed_at=101.0 if killed else None, failed_by="exit" if killed else None, stop=stop,
        ended_at=103.0, stopped_at=101.5 if killed or stop else None,
    )  # fmt: skip
    return verdict(case, "0")


def part(number: int, said: Verdict | None, **more: object) -> Part:
    name = f"host-{'abc'[number]}"
    fields: dict[str, object] = {"node": NodeJoined(91.0, number, name, number, 1), "verdict": said}
    return Part(**(fields | more))  # type: ignore[arg-type]  # fields of Part


def judged(*parts: Part, **more: object) -> Verdict:
    plan = NodesPlan(count=len(parts), nproc=1, watch=WatchPlan())
    job = spec(nprocs=len(parts), nodes=plan)
    never, asked = more.pop("never", ()), more.pop("asked", None)
    return verdict_of_all(job, parts, never, asked, TIMES, "0", **more)  # type: ignore[arg-type]


STOP = StopRequested(101.0, 15, None, 5.0, False, "the other nodes", "node")


def test_the_one_that_failed_gives_its_verdict_to_all() -> None:
    found = judged(
        part(0, own("host-a", stop=STOP)), part(1, own("host-b", killed=True), at=101.0, strength=FailureClass.KILLED)
    )

    assert found.culprit is not None
    assert (found.culprit.node, found.culprit.name, found.exit_code) == ("host-b", "VLLM::Worker_TP0", 137)
    assert found.statement.startswith("node 1 (host-b): VLLM::Worker_TP0 was killed")
    assert found.run_id == "host-b"
    assert found.nodes == ("host-a", "host-b")
    assert found.world_size == 2
    assert [(row.name, row.node, row.relation) for row in found.ranks] == [
        ("the engine on host-a", "host-a", "stopped"),
        ("VLLM::Worker_TP0", "host-a", "finished"),
        ("the engine", "host-b", "stopped"),
        ("VLLM::Worker_TP0", "host-b", "culprit"),
    ]
    assert found.culprit.log_path is None or found.culprit.log_path.startswith("host-b:/runs/host-b/")
    assert Verdict.from_dict(found.to_dict()).to_dict() == found.to_dict()


@pytest.mark.parametrize(
    ("first", "second", "who", "either"),
    [
        ((101.0, FailureClass.KILLED, 0.0), (105.0, FailureClass.KILLED, 0.0), 0, 0),
        ((105.0, FailureClass.KILLED, 0.0), (101.0, FailureClass.KILLED, 0.0), 1, 0),
        # Who says that it lost a peer was there first, and is a victim all the same.
        ((101.0, FailureClass.PEER_LOST, 0.0), (105.0, FailureClass.KILLED, 0.0), 1, 0),
        # The kernel tells of a large process late: one that was killed beats one that left without a word at that time.
        ((101.0, FailureClass.FAILED, 0.0), (101.5, FailureClass.KILLED, 0.0), 1, 0),
        ((101.0, FailureClass.FAILED, 0.0), (105.0, FailureClass.KILLED, 0.0), 0, 0),
        # Clocks that are not known so well cannot tell.
        ((101.0, FailureClass.KILLED, 0.2), (101.1, FailureClass.KILLED, 0.0), 0, 1),
    ],
)
def test_who_was_first(
    first: tuple[float, int, float], second: tuple[float, int, float], who: int, either: int
) -> None:
    found = judged(*(
        part(n, own(f"host-{'ab'[n]}", killed=True), at=at, strength=strength, uncertainty=off)
        for n, (at, strength, off) in enumerate((first, second))
    ))  # fmt: skip

    assert found.culprit is not None
    assert found.culprit.node == f"host-{'ab'[who]}"
    assert len(found.either) == either
    assert all(found.ranks[position].node != found.culprit.node for position in found.either)
    assert [row.relation for row in found.ranks].count("culprit") == 1


def lost(number: int, at: float, silent_s: float = 0.0, how: str = "silent") -> NodeLost:
    return NodeLost(at, number, f"host-{'ab'[number]}", how, "nothing was heard of it", silent_s)


def test_a_node_that_was_lost() -> None:
    found = judged(part(0, own("host-a", stop=STOP)), part(1, None, lost=lost(1, 106.0, 5.0)))

    assert found.culprit is not None
    assert (found.outcome, found.exit_code) == ("failed", 1)
    assert (found.culprit.cause.kind, found.culprit.node) == ("node-lost", "host-b")
    assert found.statement == "node 1 (host-b) was lost: nothing was heard of it"
    assert found.ranks[-1].name == "the engine on host-b"


@pytest.mark.parametrize(("at", "kind"), [(100.0, "killed"), (104.0, "node-lost")])
def test_a_node_is_lost_from_when_it_was_silent(at: float, kind: str) -> None:
    found = judged(
        part(0, own("host-a", killed=True), at=at, strength=FailureClass.KILLED),
        part(1, None, lost=lost(1, 106.0, 5.0)),
    )

    assert found.culprit is not None
    assert found.culprit.cause.kind == kind
    assert any("host-b" in each for each in found.warnings) == (kind == "killed")


def test_a_node_that_was_lost_is_no_failure_where_that_is_only_reported() -> None:
    found = judged(part(0, own("host-a")), part(1, None, lost=lost(1, 106.0)), reports=True)

    assert (found.outcome, found.exit_code) == ("succeeded", 0)
    assert any("node 1 (host-b) was lost" in each for each in found.warnings)


def test_a_node_that_never_came() -> None:
    gone = lost(1, 106.0, how="never").replace(name="")
    plan = NodesPlan(count=2, nproc=1, watch=WatchPlan())
    job = spec(nprocs=2, nodes=plan, on_lost="end")
    found = verdict_of_all(job, (part(0, own("host-a", stop=STOP)),), (gone,), None, TIMES, "0")

    assert (found.outcome, found.exit_code) == ("failed", 1)
    assert "node 1 of 2 has not joined" in found.statement


def test_who_asked_is_named_and_one_bad_end_is_the_status() -> None:
    asked = StopRequested(101.0, 15, None, to="front")
    found = judged(part(0, own("host-a", stop=STOP)), part(1, own("host-b", stop=asked)), asked=1)
    worse = judged(part(0, own("host-a", stop=STOP, code=9)), part(1, own("host-b", stop=asked)), asked=1)

    assert (found.outcome, found.exit_code, found.run_id) == ("interrupted", 0, "host-b")
    assert found.statement.endswith(", on node 1 (host-b)")
    assert worse.exit_code == 143
