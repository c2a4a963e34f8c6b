"""A node's facts in the world. The tables are complete: every number in every fact is a rank, an instant, or said to be
neither here, so that nobody who adds a fact can forget it.
"""

import inspect
import json
import types
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankguard import facts
from rankguard.circumstances import Core, GpuHolder, GpuState, Place, PortUse
from rankguard.collective import Entry, Recorded, Remark
from rankguard.core.machine import JOB_TABLE, RANK_TABLE
from rankguard.facts import (
    Examined,
    Exited,
    Fact,
    FailureReported,
    GpusRead,
    Judged,
    KernelKilled,
    Looked,
    Mustered,
    NodeLost,
    OomSeen,
    Silences,
    Spawned,
    SupervisorLost,
    Surveyed,
    TreeEmpty,
    Warned,
)
from rankguard.model import Begun, Ending, Left, Memory, OomRecord, Process, Report, Sign
from rankguard.nodes.mapping import (
    FACTS,
    INSTANTS,
    MEMBERS,
    PLACES,
    RANKS,
    STATEMENTS,
    Malformed,
    from_wire,
    to_wire,
    to_world,
)
from rankguard.record import Record, to_data
from rankguard.stacks import Group, Stack, Thread

FIRST, OFFSET, NODE = 8, 1000.0, "host-b"

NEITHER = {
    "StopRequested": {"signal", "grace", "spare"},  # said to an agent, of its own ranks; none goes up
    "SignalPassed": {"signal"},
    "Signalled": {"signal", "reached"},
    "Complained": {"signal"},
    "JobStarted": {"wall"},  # the time of day, as that machine has it
    "ReadinessExpected": {"timeout"},
    "TimeLost": {"seconds"},
    "FrontLost": {"pid"},
    "WardenLost": {"pid"},
    "SupervisorLost": {"pid"},
    "DeadlinePassed": {"generation"},
    "Examined": {"number", "within_s"},
    "Judged": {"exit_code", "gap_us", "node"},
    "TreeEmpty": {"killed"},
    "Joined": {"pid", "index", "parent"},
    "Perished": {"pid", "index", "parent"},
    "NodeJoined": {"node", "first", "count", "uncertainty"},  # the coordinator's own, as NodeLost
    "NodeLost": {"node", "silent_s"},
    "NodeStopping": {"node", "signal"},
    "NodeSilent": {"node", "silent_s"},
    "NodeHeard": {"node", "silent_s"},
    "MemoryShort": {"level", "left_s"},
    "Spawned": {"pid", "signals"},
    "NotSpawned": {"errno"},
    "Ready": {"payload_bytes"},
    "StatusTold": {"done", "total"},
    "Extended": {"seconds"},
    "Reaped": {"peak_bytes"},
    "Ending": {"code", "number"},
    "Begun": {"place"},  # among the ends of one node
    "Process": {"pid", "parent", "index"},
    "Sender": {"pid", "uid"},
    "Report": {"errno", "code"},
    "OomRecord": {"pid", "anon_rss_bytes", "logged_us"},
    "OomCount": {"before", "after"},
    "Memory": {"rss_bytes", "peak_bytes", "held_bytes", "growth_bytes_s", "age_s"},
    "MemoryState": set(facts.MemoryState._fields) - {"limit_from"},
    "Survivor": {"pid"},
    "Left": {"bytes"},
    "Stack": {"pid", "tracer", "child_of"},
    "Thread": {"tid", "locked_by"},
    "Frame": {"line"},
    "Recorded": {"enqueued", "completed"},
    "Entry": {"seq"},
    "Host": {"core_limit", "processes_limit", "pids", "gpus"},
    "Place": {"total", "free", "inodes", "inodes_free"},
    "PortUse": {"port", "pid", "uid"},
    "Core": {"pid", "bytes"},
    "GpuHolder": {"pid", "bytes"},
    "GpuState": {"index", "total", "used", "ecc"},
    "KernelNote": {"pid", "number"},
}
"""Numbers that mean the same in the world: pids, sizes, durations, codes, counts. By record and field."""


def kinds() -> Iterator[type[Record]]:
    """Every fact, and every record that one can hold."""
    waiting: list[Any] = [Fact, facts.RankFact, *FACTS.values()]
    seen: set[type[Record]] = set()
    while waiting:
        kind = waiting.pop()
        if kind not in seen:
            seen.add(kind)
            yield kind
            waiting += [part for hint in hints(kind).values() for part in parts(hint) if issubclass(part, Record)]


def hints(kind: type[Record]) -> dict[str, Any]:
    """Of the fields that it does not inherit."""
    own = inspect.get_annotations(kind)
    return {field: hint for field, hint in get_type_hints(kind).items() if field in own and field in kind._fields}


def parts(hint: Any) -> Iterator[type]:
    """The types that an annotation is made of."""
    if isinstance(hint, type) and not get_args(hint):
        yield hint
    for each in get_args(hint):
        yield from parts(each)


def treated(kind: type[Record]) -> set[str]:
    return {field for table in (RANKS, MEMBERS, INSTANTS) for field in table.get(kind, ())}


def test_every_number_in_every_fact_is_treated_or_said_to_be_the_same_in_the_world() -> None:
    forgotten = [
        f"{kind.__name__}.{field}: a row in RANKS or INSTANTS of nodes/mapping.py, or in NEITHER here"
        for kind in kinds()
        for field, hint in hints(kind).items()
        if {int, float} & set(parts(hint))
        and field not in treated(kind)
        and field not in NEITHER.get(kind.__name__, ())
    ]
    assert forgotten == []


def test_what_is_named_like_a_rank_or_an_instant_is_treated() -> None:
    """And is not in the list of those that are neither."""
    names = {"rank", "ranks", "either", "at", "earliest", "latest", "raised_at", "soonest", "since", "until"}
    forgotten = [f"{k.__name__}.{f}" for k in kinds() for f in hints(k) if f in names and f not in treated(k)]
    assert forgotten == []


def test_the_tables_hold_nothing_that_is_not_there() -> None:
    every = {kind.__name__: set(hints(kind)) for kind in kinds()}
    named = {k.__name__: f for table in (RANKS, INSTANTS, MEMBERS, PLACES, STATEMENTS) for k, f in table.items()}
    assert {
        k: set(f) - every.get(k, set()) for k, f in [*named.items(), *NEITHER.items()] if set(f) - every.get(k, set())
    } == {}
    assert {k.__name__ for k in kinds() if treated(k) & NEITHER.get(k.__name__, set())} == set()


def test_every_fact_that_the_core_knows_can_travel() -> None:
    assert set(FACTS.values()) == {*RANK_TABLE, *JOB_TABLE, SupervisorLost}


# ── What becomes of each ─────────────────────────────────────────────────────────────────────────────────────────

PROCESS = Stack(4711, "python3", (Thread(4711, "python3", "S"),), child_of=3)
REPORT = Report("exception", "x", raised_at=1001.0, recorded=(Recorded(1, "g", 4, 3, (Entry(4, "all_reduce"),)),))
WORLD_REPORT = Report("exception", "x", raised_at=1.0, recorded=(Recorded(9, "g", 4, 3, (Entry(4, "all_reduce"),)),))

MAPPED: list[tuple[Fact, Fact]] = [
    (Spawned(1010.0, 0, 4711), Spawned(10.0, 8, 4711)),
    (
        Exited(1010.0, 1, Ending("exit", 1), report=REPORT, begun=Begun(2, 1009.0, 1009.5)),
        Exited(10.0, 9, Ending("exit", 1), report=WORLD_REPORT, begun=Begun(2, 9.0, 9.5)),
    ),
    (FailureReported(1010.0, 0, REPORT), FailureReported(10.0, 8, WORLD_REPORT)),
    (
        Looked(1010.0, ((0, "zombie"), (3, "exiting")), ((1, Memory(5)),), processes=(Process(7, 1, "a"),)),
        Looked(10.0, ((8, "zombie"), (11, "exiting")), ((9, Memory(5)),), processes=(Process(7, 1, "a"),)),
    ),
    (
        Silences(1010.0, (Sign(1, 1003.0, "output"), Sign(2)), 1009.0),
        Silences(10.0, (Sign(9, 3.0, "output"), Sign(10)), 9.0),
    ),
    (Silences(1010.0), Silences(10.0)),
    (
        Examined(
            1010.0, 3, (Sign(0),), ((1, 0.5),), 2.0, (Group((0, 1, -4711), PROCESS),), "/x", ((2, 1.0, 3.0),), ((3, PROCESS),)
        ),
        Examined(
            10.0, 3, (Sign(8),), ((9, 0.5),), 2.0, (Group((8, 9, -4711), PROCESS),), "host-b:/x", ((10, 1.0, 3.0),), ((11, PROCESS),)
        ),
    ),
    (
        Mustered(1010.0, (Sign(0),), (Group((1,), PROCESS),), (Remark(2, ("a",)),), (Recorded(3, "g"),)),
        Mustered(10.0, (Sign(8),), (Group((9,), PROCESS),), (Remark(10, ("a",)),), (Recorded(11, "g"),)),
    ),
    (Judged(1010.0, 1, "k", 1, (0, 2)), Judged(10.0, 9, "k", 1, (8, 10))),
    (Judged(1010.0, None, "k", 1), Judged(10.0, None, "k", 1)),
    (KernelKilled(1010.0, None, OomRecord(1, "a", "b")), KernelKilled(10.0, None, OomRecord(1, "a", "b"))),
    (
        Surveyed(1010.0, ports=(PortUse(29500, "held", rank=1),), cores=(Core(1, "/core", 2),), places=(Place("/", "/", 1, 1, 1, 1),)),
        Surveyed(10.0, ports=(PortUse(29500, "held", rank=9),), cores=(Core(1, "host-b:/core", 2),), places=(Place("/", "/", 1, 1, 1, 1),)),
    ),
    (GpusRead(1010.0, (GpuState(0, holders=(GpuHolder(1, rank=2),)),)), GpusRead(10.0, (GpuState(0, holders=(GpuHolder(1, rank=10),)),))),
    (TreeEmpty(1010.0, left=(Left("shm", "/dev/shm/x", 1),)), TreeEmpty(10.0, left=(Left("shm", "host-b:/dev/shm/x", 1),))),
    (OomSeen(1010.0, "/a"), OomSeen(10.0, "host-b:/a")),
    (Warned(1010.0, "no journal"), Warned(10.0, "host-b: no journal")),
]  # fmt: skip


@pytest.mark.parametrize(("fact", "world"), MAPPED, ids=[type(f).__name__ for f, _ in MAPPED])
def test_a_fact_in_the_world(fact: Fact, world: Fact) -> None:
    assert to_world(fact, FIRST, OFFSET, NODE) == world


def full(hint: Any) -> Any:
    """A value of that type in which nothing is left out: each number is 1."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return full(next(each for each in args if each is not type(None)))
    if origin is tuple:
        return tuple(full(each) for each in args if each is not Ellipsis)
    if issubclass(hint, Record):
        told = get_type_hints(hint)
        return hint(**{field: full(told[field]) for field in hint._fields})
    return hint("1") if hint is str else hint(1)


def differing(value: Any, mapped: Any, where: str = "") -> Iterator[str]:
    """The fields whose numbers are not the same."""
    if isinstance(value, Record):
        for field in value._fields:
            named = next(k for k in type(value).__mro__ if field in inspect.get_annotations(k))
            yield from differing(getattr(value, field), getattr(mapped, field), f"{named.__name__}.{field}")
    elif isinstance(value, tuple):
        for each, other in zip(value, mapped, strict=True):
            yield from differing(each, other, where)
    elif type(value) in (int, float) and value != mapped:
        yield where


@pytest.mark.parametrize("kind", FACTS.values(), ids=FACTS)
def test_what_stands_in_the_tables_is_mapped_wherever_it_is(kind: type[Fact]) -> None:
    """And nothing else is: of a fact with every field filled, and in every record within it."""
    whole = full(kind)
    seen: set[type[Record]] = set()
    waiting: list[Any] = [whole]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Record):
            seen |= {each for each in type(value).__mro__ if issubclass(each, Record)}
            waiting += [getattr(value, field) for field in value._fields]
        elif isinstance(value, tuple):
            waiting += value

    expected = {f"{each.__name__}.{field}" for each in seen for field in treated(each)}
    assert set(differing(whole, to_world(whole, FIRST, OFFSET, NODE))) == expected


@pytest.mark.parametrize("fact", [f for f, _ in MAPPED], ids=[type(f).__name__ for f, _ in MAPPED])
def test_the_first_node_on_our_own_clock(fact: Fact) -> None:
    """But for places and statements nothing changes."""
    there = to_world(to_world(fact, FIRST, OFFSET, NODE), 0, 0.0, NODE)
    back = to_world(fact, 0, 0.0, NODE)

    assert json.dumps(to_data(back)).count(NODE) == json.dumps(to_data(there)).count(NODE) // 2
    if NODE not in str(back):
        assert back == fact


@pytest.mark.parametrize("rank", [2, 7, 1 << 40])
def test_a_rank_that_the_node_does_not_have(rank: int) -> None:
    with pytest.raises(Malformed, match=f"rank {rank} of a node that has 2"):
        to_world(Silences(1.0, (Sign(rank),)), 0, 0.0, NODE, count=2)
    assert to_world(Spawned(1.0, 1, 1), 4, 0.0, NODE, count=2) == Spawned(1.0, 5, 1)


@pytest.mark.parametrize("rank", [-1, -4711])
def test_a_rank_below_zero_is_none(rank: int) -> None:
    """Where a pid with a minus may stand (`Group.ranks`) it is left; a fact about a rank has one."""
    with pytest.raises(Malformed):
        to_world(Spawned(1.0, rank, 1), 4, 0.0, NODE, count=2)


# ── Over the wire ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fact", [f for pair in MAPPED for f in pair], ids=lambda f: type(f).__name__)
def test_there_and_back(fact: Fact) -> None:
    name, data = json.loads(json.dumps(to_wire(fact)))
    assert from_wire(name, data) == fact


def test_fields_at_their_default_do_not_travel() -> None:
    assert to_wire(Spawned(1.0, 2, 3)) == ("Spawned", {"at": 1.0, "rank": 2, "pid": 3})


def test_fields_of_a_later_version_are_ignored_and_whole_seconds_are_instants() -> None:
    made = from_wire("Spawned", {"at": 1, "rank": 2, "pid": 3, "more": [{}]})
    assert (made, type(made.at)) == (Spawned(1.0, 2, 3), float)


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("Nonsense", {}, "there is no fact `Nonsense`"),
        ("Fact", {"at": 1.0}, "there is no fact `Fact`"),
        ("RankFact", {"at": 1.0, "rank": 0}, "there is no fact `RankFact`"),
        (["Spawned"], {}, "there is no fact `['Spawned']`"),
        (None, {}, "there is no fact `None`"),
        ("Spawned", [], "Spawned: expected an object"),
        ("Spawned", {"rank": 0, "pid": 1}, "Spawned: `at` is missing"),
        ("Spawned", {"at": "1", "rank": 0, "pid": 1}, "Spawned: `at` is no float: '1'"),
        ("Spawned", {"at": float("nan"), "rank": 0, "pid": 1}, "Spawned: `at` is no float: 'nan'"),
        ("Spawned", {"at": 10**400, "rank": 0, "pid": 1}, "Spawned: `at` is no float: '1000"),
        ("Spawned", {"at": True, "rank": 0, "pid": 1}, "Spawned: `at` is no float: 'True'"),
        ("Spawned", {"at": None, "rank": 0, "pid": 1}, "Spawned: `at` is no float: 'None'"),
        ("Spawned", {"at": 1.0, "rank": 0.5, "pid": 1}, "Spawned: `rank` is no int: '0.5'"),
        ("Spawned", {"at": 1.0, "rank": True, "pid": 1}, "Spawned: `rank` is no int: 'True'"),
        ("Spawned", {"at": 1.0, "rank": 0, "pid": 1, "warm": 1}, "Spawned: `warm` is no bool: '1'"),
        ("Exited", {"at": 1.0, "rank": 0, "ending": "exit"}, "Exited.ending: expected an object"),
        ("Exited", {"at": 1.0, "rank": 0, "ending": {}}, "Exited.ending: `kind` is missing"),
        ("Looked", {"at": 1.0, "dying": [[1]]}, "Looked: `dying` is no tuple[tuple[int, str], ...]: '[[1]]'"),
        ("Looked", {"at": 1.0, "dying": {}}, "Looked: `dying` is no tuple[tuple[int, str], ...]: '{}'"),
        ("Silences", {"at": 1.0, "silent": [[]]}, "Silences.silent: expected an object"),
    ],
)
def test_a_malformed_one_is_refused_by_name(name: Any, data: Any, error: str) -> None:
    with pytest.raises(Malformed) as refused:
        from_wire(name, data)
    assert str(refused.value).startswith(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data())
def test_whatever_comes_is_a_fact_of_the_right_types_or_is_refused(data: st.DataObject) -> None:
    """A whole fact with one field replaced by anything."""
    fact = data.draw(st.sampled_from([f for f, _ in MAPPED]))
    name, told = json.loads(json.dumps(to_wire(fact)))
    told[data.draw(st.sampled_from(sorted(fact._fields)))] = data.draw(JSON)
    try:
        made = from_wire(name, told)
    except Malformed:
        return
    assert fits(made, type(made))
    to_world(made, FIRST, OFFSET, NODE)


def fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in args)
    if origin is tuple:
        inner = args[:1] * len(value) if args[-1] is Ellipsis else args
        return isinstance(value, tuple) and all(map(fits, value, inner))
    if origin is Mapping:
        return isinstance(value, dict)
    if issubclass(hint, Record):
        told = get_type_hints(hint)
        return type(value) is hint and all(fits(getattr(value, f), told[f]) for f in hint._fields)
    return type(value) is hint


def test_a_fact_of_the_coordinators_own_is_one_too() -> None:
    assert from_wire(*to_wire(NodeLost(1.0, 2, "host-c", "silent", "x", 5.0))) == NodeLost(
        1.0, 2, "host-c", "silent", "x", 5.0
    )
