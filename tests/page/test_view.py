"""What a page is given, from facts: complete at every moment of a run, bounded, and nothing in it that was not told."""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from tests.page.made import FAILED, KILLED, ended, spec_of, trained

from rankguard.core import story
from rankguard.facts import (
    Examined,
    Exited,
    Extended,
    Fact,
    JobStarted,
    Joined,
    KernelKilled,
    Looked,
    MemoryShort,
    NodeJoined,
    NodeLost,
    OutputClosed,
    Ready,
    Signalled,
    Spawned,
    StatusTold,
)
from rankguard.http import shown
from rankguard.http.followed import Followed
from rankguard.jobspec import JobSpec, NodesPlan, Share, WatchPlan
from rankguard.model import Begun, Memory, MemoryState, OomRecord, Sign
from rankguard.page import logs
from rankguard.page.chronicle import SPANS, STEPS, Signs, together
from rankguard.page.course import CELLS, Point, base_of, kept, line_of, points, points_of
from rankguard.record import to_data
from rankguard.stacks import Frame, Group, Stack, Thread

KEYS = {
    "schema", "rankguard", "live", "made_at", "now_s", "state", "run", "verdict", "report", "state_line", "ranks", "startup",
    "deaths", "stops", "moments", "signs", "stacks", "attempts", "doctor", "nodes",
}  # fmt: skip
SPEC = spec_of(2)


def followed(spec: JobSpec = SPEC) -> Followed:
    run = Followed(lambda: 100.0)
    run.take(json.dumps({"schema": story.VERSION, "spec": to_data(spec)}).encode())
    return run


def told(*facts: Fact, spec: JobSpec = SPEC, now: float | None = None) -> dict[str, Any]:
    run = followed(spec)
    for fact in facts:
        run.take(story.lines(fact, ()).encode())
    assert run.job is not None
    return shown.view_of(run, run.job.now if now is None else now)


STARTED = (JobStarted(10.0, 1000.0), Spawned(10.5, 0, 71), Spawned(11.0, 1, 72))


def test_it_is_complete_after_every_fact() -> None:
    run = followed(spec_of(3))
    for fact in trained(3, 12, ("a last line",)):
        run.take(story.lines(fact, ()).encode())
        assert run.job is not None
        view = shown.view_of(run, run.job.now)
        assert set(view) == KEYS
        assert json.loads(json.dumps(view)) == view
        shown.memory_of(run)


def test_start_up_is_told_in_the_ranks_own_words_and_numbers_make_no_new_ones() -> None:
    said = [StatusTold(12.0 + n, 0, f"loading shard {n} of 17") for n in range(5)]
    view = told(
        *STARTED,
        *said,
        StatusTold(17.5, 0, "capturing graphs"),
        Ready(19.0, 0),
        Ready(19.5, 1),
        StatusTold(20.0, 0, "serving"),
    )

    assert view["startup"]["ranks"][0]["spans"] == [
        {"what": "launching", "from_s": 0.0, "to_s": 0.5},
        {"what": "starting", "from_s": 0.5, "to_s": 2.0},
        {"what": "loading shard … of …", "from_s": 2.0, "to_s": 7.5},
        {"what": "capturing graphs", "from_s": 7.5, "to_s": 9.0},
    ]
    assert {k: v for k, v in view["startup"].items() if k != "ranks"} == {
        "slowest": 1,
        "behind_s": 0.5,
        "all_ready_s": 9.5,
    }


def test_what_goes_on_has_no_end_yet() -> None:
    view = told(JobStarted(10.0, 1000.0), Spawned(10.5, 0, 71), StatusTold(11.0, 0, "loading"), now=15.0)

    assert [rank["spans"][-1] for rank in view["startup"]["ranks"]] == [
        {"what": "loading", "from_s": 1.0, "to_s": None},
        {"what": "launching", "from_s": 0.0, "to_s": None},
    ]
    assert [(rank["phase"], rank["relation"], rank["ending"]) for rank in view["ranks"]] == [
        ("starting", None, None), ("waiting", None, None),
    ]  # fmt: skip
    assert (view["now_s"], view["live"], view["report"], view["verdict"]["outcome"]) == (5.0, True, None, "running")


def test_a_rank_that_says_something_else_each_time_costs_a_bounded_number_of_spans() -> None:
    words = ("alpha", "beta")
    said = [StatusTold(12.0 + n / 10, 0, words[n % 2] * (n + 1)) for n in range(500)]

    spans = told(*STARTED, *said)["startup"]["ranks"][0]["spans"]
    assert len(spans) == SPANS + 1
    assert spans[-1]["what"] == "and more"


def test_deaths_are_told_with_what_the_kernel_says_of_their_order() -> None:
    view = told(
        *STARTED,
        Ready(12.0, 0),
        Ready(12.0, 1),
        Exited(13.0, 1, KILLED, begun=Begun(0, 12.9, 12.95)),
        Looked(13.0, ((0, "exiting"),)),
        Exited(13.2, 0, FAILED, peer_death="Connection reset by peer"),
    )
    deaths = [(d["rank"], d["at_s"], d["failed_s"], d["began_s"], d["began_place"], d["what"]) for d in view["deaths"]]
    assert deaths == [(1, 3.0, 3.0, 2.95, 0, "SIGKILL"), (0, 3.2, 3.0, None, None, "exit 1")]


def test_who_was_told_to_end_and_why() -> None:
    run = followed(spec_of(4))
    facts: Iterable[Fact] = (
        JobStarted(10.0, 1000.0), *(Spawned(10.5, n, 70 + n) for n in range(4)), *(Ready(11.0, n) for n in range(4)),
        Exited(13.0, 2, KILLED), Looked(13.0), Signalled(13.1, 15, 3),
    )  # fmt: skip
    for fact in facts:
        run.take(story.lines(fact, ()).encode())

    assert shown.view_of(run, 14.0)["stops"] == [
        {"at_s": 3.0, "what": "SIGTERM to ranks 0, 1, 3: rank 2 was ended by SIGKILL"}
    ]


def test_signs_of_life_are_counted_by_steps_that_widen() -> None:
    signs = Signs()
    for second in range(3600):
        signs.add(second + 0.5)

    assert len(signs.counts) <= STEPS
    assert (sum(signs.counts), signs.step) == (3600, 25.6)
    found = together({0: signs}, 3600.0)
    assert found is not None
    assert (found["step_s"], set(found["ranks"]["0"][:-1])) == (25.6, {25, 26})


def test_signs_of_many_ranks_are_bounded_together() -> None:
    signs = Signs()
    signs.add(1.0)
    found = together(dict.fromkeys(range(1000), signs), 600.0)
    assert found is not None
    assert sum(map(len, found["ranks"].values())) <= CELLS + 1000


def test_a_sign_that_is_no_fact_is_known_of_the_looks() -> None:
    """A line of output, between two looks at the memory."""
    run = followed()
    for fact in STARTED:
        run.take(story.lines(fact, ()).encode())
    for second in range(1, 6):
        entry = json.loads(line_of(base_of(10.0 + second, {0: 1 << 20}, None, None, None), 2 if second == 4 else 0))
        run.take(json.dumps({"page": {"look": entry}}).encode())

    view = shown.view_of(run, 16.0)
    step, counts = view["signs"]["step_s"], view["signs"]["ranks"]["1"]
    heard = [round(at * step, 3) for at, count in enumerate(counts) if count]
    assert (set(counts), heard[0], heard[-1]) == ({0, 1}, 3.0, 4.0)  # somewhere between the two looks
    assert (view["ranks"][1]["last_sign_s"], view["ranks"][1]["last_sign_by"]) == (4.0, "output")
    assert view["ranks"][0]["held_bytes"] == 1 << 20


def test_an_examination_tells_the_last_sign_and_the_odd_one_out() -> None:
    stack = Stack(71, "python", (Thread(71, "python", "S", (Frame("all_reduce", "/x/dist.py", 40),)),))
    odd = Stack(72, "python", (Thread(72, "python", "S", waits_in="futex"),), lacks="no py-spy")
    groups = (Group((1,), odd), Group((0, 2, 3), stack))
    run = followed(spec_of(4))
    for fact in STARTED:
        run.take(story.lines(fact, ()).encode())
    assert run.job is not None
    run.job.examined = Examined(20.0, 1, signs=(Sign(0, 19.0, "output"),), groups=groups)
    run.chronicle.take(run.job, run.job.examined, ())
    view = shown.view_of(run, 21.0)

    assert [(g["ranks"], g["odd"], g["frames"], g["why"]) for g in view["stacks"]] == [
        ([1], True, ["in the kernel's futex"], "no py-spy"),
        ([0, 2, 3], False, ["/x/dist.py:40 all_reduce"], None),
    ]
    assert (view["ranks"][0]["last_sign_s"], view["ranks"][0]["last_sign_by"]) == (9.0, "output")


def test_a_watched_engine_and_its_processes() -> None:
    spec = spec_of(1).replace(expect_ready=False, watch=WatchPlan())
    view = told(
        JobStarted(10.0, 1000.0), Spawned(10.5, 0, 71), Joined(12.0, 1, 80, "worker_TP0", "worker", 0), Exited(13.0, 1, KILLED),
        spec=spec,
    )  # fmt: skip

    assert [(r["rank"], r["name"], r["role"], r["index"], r["local_rank"]) for r in view["ranks"]] == [
        (0, "the engine", "default", None, None), (1, "worker_TP0", "worker", 0, None),
    ]  # fmt: skip
    assert (view["run"]["watch"], view["nodes"][0]["ranks"]) == (True, [0, 1])


def test_nodes_and_their_ranks() -> None:
    spec = spec_of(6).replace(nodes=NodesPlan(3, 2))
    facts = (
        JobStarted(10.0, 1000.0), NodeJoined(10.1, 0, "host-a", 0, 2), NodeJoined(10.1, 1, "host-b", 2, 2),
        *(Spawned(10.5, n, 70 + n) for n in range(4)), NodeLost(12.0, 1, "host-b", "closed", "its agent is gone"),
    )  # fmt: skip
    view = told(*facts, spec=spec)

    assert [(n["name"], n["state"], n["ranks"]) for n in view["nodes"]] == [
        ("host-a", "joined", [0, 1]), ("host-b", "lost", [2, 3]), (None, "missing", [4, 5]),
    ]  # fmt: skip
    assert [(r["node"], r["local_rank"], r["phase"]) for r in view["ranks"]][:4] == [
        ("host-a", 0, "stopping"), ("host-a", 1, "stopping"), ("host-b", 0, "lost"), ("host-b", 1, "lost"),
    ]  # fmt: skip


def test_one_node_s_journal_under_the_verdict_of_all() -> None:
    """Its ranks 0 and 1 are ranks 2 and 3 of the job."""
    whole = followed(spec_of(4).replace(nodes=NodesPlan(2, 2)))
    for fact in (
        JobStarted(9.0, 999.0), NodeJoined(9.1, 0, "host-b", 0, 2), NodeJoined(9.1, 1, "host-a", 2, 2),
        *(Spawned(10.5, n, 70 + n) for n in range(4)), *(Ready(11.0, n) for n in range(4)),
    ):  # fmt: skip
        whole.take(story.lines(fact, ()).encode())
    mine = followed(spec_of(2).replace(share=Share("10.0.0.1", 1, 2)))
    for fact in (
        JobStarted(10.0, 1000.0),
        Spawned(10.5, 0, 72),
        Spawned(10.5, 1, 73),
        StatusTold(10.7, 1, "loading"),
        Ready(11.0, 1),
    ):
        mine.take(story.lines(fact, ()).encode())

    view = shown.view_of(mine, 12.0, verdict=whole.verdict())
    assert [(r["rank"], r["node"], r["pid"], r["status"]) for r in view["ranks"]] == [
        (0, "host-b", 70, None), (1, "host-b", 71, None), (2, "host-a", 72, None), (3, "host-a", 73, "loading"),
    ]  # fmt: skip
    assert [rank["rank"] for rank in view["startup"]["ranks"]] == [2, 3]
    assert list(view["signs"]["ranks"]) == ["3"]


def test_memory_has_the_limit_the_warning_and_the_look_on_the_failure() -> None:
    run = followed()
    short = MemoryShort(12.0, "soon", 1, MemoryState(limit_bytes=100))
    looked = Looked(
        14.5, memory=((0, Memory(held_bytes=70 << 20)),), state=MemoryState(limit_bytes=100 << 20, used_bytes=90 << 20)
    )
    for fact in (*STARTED, short, Ready(13.0, 0), Ready(13.0, 1), Exited(14.5, 1, KILLED), looked):
        run.take(story.lines(fact, ()).encode())
    run.look(
        *(
            json.loads(line_of(base_of(at, {0: 1 << 20, 1: 2 << 20}, 50 << 20, 100 << 20, "memory.max"), 0))
            for at in (5.0, 11.0, 14.0)
        )
    )

    assert shown.memory_of(run) == {
        "limit_bytes": 100 << 20, "limit_from": None, "at_s": [1.0, 4.0, 4.5], "used_bytes": [50 << 20, 50 << 20, 90 << 20],
        "ranks": {"0": [1 << 20, 1 << 20, 70 << 20], "1": [2 << 20, 2 << 20, None]}, "kills": [], "near_s": 2.0,
    }  # fmt: skip
    run.look(json.loads(line_of(base_of(14.0004, {0: 1 << 20}, None, None, None), 0)))
    since = shown.memory_of(run, since=4.0)
    assert since is not None
    assert since["at_s"] == [4.5]


def test_kills_are_told_as_they_came() -> None:
    run = followed()
    kills = [KernelKilled(14.0, rank, OomRecord(5000 + rank, "python", f"Killed process {rank}")) for rank in (1, 0)]
    exits = [Exited(14.0, 1, KILLED), OutputClosed(14.0, 1), Exited(14.1, 0, KILLED), OutputClosed(14.1, 0)]
    for fact in (*STARTED, Ready(13.0, 0), Ready(13.0, 1), *kills, *exits):
        run.take(story.lines(fact, ()).encode())
    run.look(json.loads(line_of(base_of(11.0, {0: 1 << 20}, None, None, None), 0)))

    memory = shown.memory_of(run)
    assert memory is not None
    assert [(kill["rank"], kill["at_s"]) for kill in memory["kills"]] == [(1, 4.0), (0, 4.1)]


@pytest.mark.parametrize(("count", "most"), [(5000, 300), (5000, 8), (3, 8), (1, 1), (700, 699)])
def test_what_is_kept_of_a_long_course(count: int, most: int) -> None:
    """As many as may be, the first and the last, and the newest nearer to one another than the old."""
    ats = [n * 1.0 for n in range(count)]
    chosen = kept(ats, most)

    assert len(chosen) <= most
    assert chosen == sorted(set(chosen))
    assert (chosen[-1], chosen[0]) in {(count - 1, 0), (count - 1, count - 1)}
    if most == 300:
        assert len(chosen) > 250
        gaps = [later - sooner for sooner, later in pairwise(chosen)]
        assert gaps[-10:] == [1] * 10
        assert gaps[0] > 10


def test_lines_that_are_none_are_left_out() -> None:
    good = line_of(base_of(1.0, {0: 1024}, None, None, None), 1)
    bad = [
        b"",
        b"{}",
        b"[1]",
        b'{"at":"x","kib":{}}',
        b'{"at":2,"kib":[1]}',
        b'{"at":2,"kib":{"x":1}}',
        b'{"at":0.5,"kib":{}}',
        b"\xff",
        b'{"at":2,"kib":{},"heard":"zz"}',
        b'{"at":1e999,"kib":{}}',
        b'{"at":NaN,"kib":{}}',
        good[:-9],
    ]

    assert [(point.at, point.held, point.heard) for point in points([good, *bad])] == [(1.0, {0: 1024}, 1)]


def test_bits_below_zero_end_no_loop() -> None:
    run = followed()
    run.take(story.lines(STARTED[0], ()).encode())
    run.look({"at": 11.0, "kib": {}, "heard": "-1"})
    assert shown.view_of(run, 12.0)["signs"] is None


def test_an_extension_is_a_sign_and_the_last_words_come_in_the_order_of_guilt() -> None:
    view = told(*STARTED, Extended(12.0, 0, 30.0), Ready(13.0, 0), Ready(13.0, 1), *ended(2, 20.0, ("bye",)))

    assert view["ranks"][0]["last_sign_by"] == "readiness"
    assert logs.order(view["ranks"]) == [1, 0]


def test_tails_fit_and_the_first_keeps_most() -> None:
    lines = ["x" * 100] * 100
    each = [
        {"rank": n, "attempt": 0, "streams": {"stdout": {"lines": lines, "cut": False, "path": None}}}
        for n in range(10)
    ]
    found = logs.fitted(each, 30_000)

    counts = [len(one["streams"]["stdout"]["lines"]) for one in found]
    assert counts == [100, *[20] * 9]
    assert [one["streams"]["stdout"]["cut"] for one in found] == [False, *[True] * 9]
    assert sum(counts) * 104 <= 30_000


def test_a_look_that_the_file_has_told_already_is_one() -> None:
    """A page server that begins while the run goes on reads the file, and is then sent what came meanwhile."""
    known = [Point(1.0, {0: 4096}), Point(2.0, {0: 8192})]
    sent = [{"at": at, "kib": {"0": 8}} for at in (1.0, 2.0, 2.5)]

    assert [point.at for point in points_of(sent, known)] == [2.5]
