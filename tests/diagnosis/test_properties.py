"""What holds for any case: no crash, the same answer twice, JSON that fits the schema, nobody blamed for our own doing."""

import json
from importlib.resources import files

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.diagnosis.cases import (
    GIB,
    START,
    WALL,
    broken,
    by_code,
    by_signal,
    case,
    count,
    killed,
    not_spawned,
    rank,
    reported,
    rss,
)

from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.evidence import ended_by_us
from rankguard.diagnosis.failure_class import FailureClass, failure_class
from rankguard.diagnosis.peers import peer_death
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import Examined, FrontLost, Looked, StatusTold, StopRequested, SupervisorLost, WardenLost
from rankguard.model import Ending, ExceptionInfo, MemoryState, Phase, Sender, Sign, Verdict
from rankguard.stacks import Frame, Group, Stack, Thread

NUMBER = st.integers(0, 3)
TIMES = st.floats(0.0, 20.0).map(lambda at: round(at, 4))
WORDS = st.sampled_from(
    [
        "",
        "Connection reset by peer",
        "CUDA out of memory",
        "MemoryError",
        "No space left on device",
        "Timed out waiting 8000ms for recv operation to complete",
        "Rank 2 failed to pass monitoredBarrier",
        "Traceback (most recent call last):",
        '  File "/a/b.py", line 3, in f',
        "ValueError: bad",
        "RuntimeError",
        "\ud800 \x00 ü",
        "x" * 500,
    ]
)
EXCEPTIONS = st.builds(
    ExceptionInfo,
    type=st.sampled_from(["ValueError", "RuntimeError", "ConnectionResetError", "a.b.C", "", "EOFError"]),
    message=WORDS,
    frames=st.lists(st.sampled_from(["/a/b.py:3 f", "junk", "", "/x/site-packages/t.py:1 g"]), max_size=4).map(tuple),
    chain=st.lists(st.sampled_from(["ValueError: x", "BrokenPipeError: y", "Empty"]), max_size=2).map(tuple),
)
COUNTS = st.builds(count, before=st.just(0), after=st.integers(0, 3), shared=st.booleans())


@st.composite
def exits(draw, number):
    more = {
        "at": draw(TIMES),
        "oom": tuple(draw(st.lists(COUNTS, max_size=2))),
        "oom_readable": draw(st.booleans()),
        "log_tail": tuple(draw(st.lists(WORDS, max_size=5))),
        "peer_death": draw(st.sampled_from([None, "Broken pipe"])),
    }
    if draw(st.booleans()):
        return by_signal(number, draw(st.sampled_from([1, 2, 6, 7, 9, 11, 13, 15, 40])), **more)
    found = by_code(number, draw(st.sampled_from([0, 1, 3, 137])), **more)
    return found.replace(ending=Ending(kind="exit")) if draw(st.integers(0, 9)) == 0 else found


@st.composite
def reports(draw, number):
    how = draw(st.sampled_from(["exception", "failed", "errno"]))
    return reported(
        number,
        how,
        draw(WORDS),
        at=draw(TIMES),
        raised=draw(st.none() | TIMES),
        error=draw(EXCEPTIONS) if how == "exception" else None,
        peer=draw(st.sampled_from([None, "Broken pipe"])),
        errno=draw(st.sampled_from([None, 5, 12, 28, 9999])) if how == "errno" else None,
    )


@st.composite
def ranks(draw, number):
    def maybe(strategy):
        return draw(strategy) if draw(st.booleans()) else None

    unborn = draw(st.integers(0, 9)) == 0
    instant = TIMES.map(lambda at: START + at)
    return rank(
        number,
        phase=draw(st.sampled_from(Phase)),
        name=draw(st.sampled_from([None, "scheduler"])),
        exited=None if unborn else maybe(exits(number)),
        not_spawned=not_spawned(number, draw(st.sampled_from([2, 13, 24, 9999]))) if unborn else None,
        report=maybe(reports(number)),
        broken=broken(number) if draw(st.integers(0, 5)) == 0 else None,
        complained=draw(st.sampled_from([None, None, 3, 99])),
        dying=draw(st.sampled_from([None, None, "exiting", "zombie", "killed", "dumping"])),
        suspect=draw(st.booleans()),
        late=draw(st.booleans()),
        spawned_at=maybe(instant),
        ready_at=maybe(instant),
        failed_at=maybe(instant),
        signalled_at=maybe(instant),
        killed_by_us=draw(st.booleans()),
        ooms=tuple(draw(st.lists(st.builds(killed, st.just(number), st.just(400 + number), at=TIMES, child=st.booleans()), max_size=2))),
        status=maybe(st.builds(StatusTold, instant, st.just(number), WORDS, st.none() | st.floats(0, 10))),
        memory=draw(st.sampled_from([rss(0), rss(3), rss(30)])),
    )  # fmt: skip


FRAMES = st.lists(
    st.sampled_from(
        [
            Frame("all_reduce", "/venv/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py", 7),
            Frame("load_shard", "/home/me/train.py", 88),
            Frame("step", "/home/me/train.py", 40),
            Frame("", None),
        ]
    ),
    max_size=3,
).map(tuple)
STACKS = st.builds(
    lambda frames, state, tracer, lacks: Stack(1, "python", (Thread(1, "MainThread", state, frames),), tracer, None, lacks),
    FRAMES, st.sampled_from("RSSSDTtZ?"), st.sampled_from([None, None, None, 7]), st.sampled_from([None, None, "no py-spy"]),
)  # fmt: skip


@st.composite
def examinations(draw, nprocs, instant):
    """Whatever the looks at ranks gave: of some nothing is known, and some have no process."""
    numbers = st.sets(st.integers(0, nprocs - 1))
    told = sorted(draw(numbers))
    first = draw(numbers)
    groups = [Group(tuple(sorted(ranks)), draw(STACKS)) for ranks in (first, set(range(nprocs)) - first) if ranks]
    signs = tuple(Sign(number, draw(st.none() | instant), "output") for number in told)
    cpu = tuple((number, draw(st.floats(0, 4))) for number in sorted(draw(numbers)))
    return Examined(
        draw(instant), 1, signs, cpu, 0.5, tuple(groups[: draw(st.integers(0, 2))]), draw(st.none() | WORDS)
    )


@st.composite
def cases(draw):
    nprocs = draw(st.integers(1, 4))
    failed = draw(st.booleans())
    stalled = failed and draw(st.booleans())
    instant = TIMES.map(lambda at: START + at)
    made = case(
        *(draw(ranks(number)) for number in range(nprocs)),
        nprocs=nprocs,
        spec_more={
            "adopted": draw(st.booleans()),
            "any_end_fails": draw(st.booleans()),
            "exit_codes": draw(st.sampled_from(["culprit", "class"])),
            "ready_timeout": draw(st.sampled_from([None, 10.0])),
            "stall_timeout": draw(st.sampled_from([None, 4.0])),
        },
        started_wall=WALL,
        expects_ready=draw(st.booleans()),
        all_ready_at=draw(st.none() | instant),
        failed_at=draw(instant) if failed else None,
        failed_by=draw(st.sampled_from(["exit", "report", "protocol", "not-spawned", "ready-timeout", "stall", "front-lost", "supervisor-lost"])) if failed and not stalled else "stall" if stalled else None,
        examined=draw(examinations(nprocs, instant)) if stalled else None,
        stop=draw(st.none() | st.builds(StopRequested, instant, st.sampled_from([1, 2, 15]), st.none() | st.builds(Sender, pid=st.integers(1, 99)))),
        lost=draw(st.sampled_from([None, FrontLost(START, 3), WardenLost(START, 4), SupervisorLost(START, None, "bug")])),
        looked=draw(st.sampled_from([None, Looked(START + 10), Looked(START + 10, (), ((0, rss(5)),), MemoryState(limit_bytes=GIB))])),
        stopped_at=draw(st.none() | instant),
        ended_at=draw(st.none() | instant),
        other_ooms=tuple(draw(st.lists(st.builds(killed, st.none(), st.just(7)), max_size=2))),
    )  # fmt: skip
    return made.replace(judged=choose(made)) if failed and draw(st.booleans()) else made


SCHEMA = jsonschema.Draft202012Validator(json.loads((files("rankguard") / "schema" / "verdict-1.json").read_text()))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_a_verdict_for_any_case(made) -> None:
    found = verdict(made, "0.1.0")
    data = json.loads(found.to_json())

    assert verdict(made, "0.1.0") == found
    assert Verdict.from_dict(data) == found
    SCHEMA.validate(data)
    assert len(found.statement) <= 140
    assert len(found.summary.splitlines()) <= 5
    assert found.outcome != "failed" or (found.exit_code != 0 and found.culprit is not None)
    assert 0 <= found.exit_code <= 255
    assert (found.culprit is None) == (found.outcome != "failed")


@settings(max_examples=150, deadline=None)
@given(cases())
def test_nobody_is_blamed_for_our_own_doing(made) -> None:
    chosen = choose(made)
    culprit = next((each for each in made.ranks if each.rank == chosen.rank), None)
    classes = [failure_class(made, each) for each in made.ranks if each.suspect]
    self_failed = min(classes, default=FailureClass.NONE) < FailureClass.UNRESOLVED
    waited_in_vain = min(classes, default=None) is FailureClass.TIMED_OUT and len(made.ranks) > 1

    # Of those that waited in vain for another rank it is the other, if it can be told (`test_collectives.py`).
    if (
        self_failed
        and not waited_in_vain
        and made.failed_by not in ("front-lost", "supervisor-lost", "ready-timeout", "stall")
    ):
        assert culprit is not None
        assert culprit.suspect
        assert failure_class(made, culprit) <= FailureClass.UNRESOLVED
        assert not ended_by_us(culprit) or culprit.report or culprit.broken or culprit.ooms
    assert chosen.rank not in chosen.either
    assert choose(made) == chosen


@given(st.text() | st.lists(WORDS).map("\n".join))
def test_any_text_may_be_a_log(text) -> None:
    phrase = peer_death(text)

    assert phrase is None or 0 < len(phrase) <= 160
