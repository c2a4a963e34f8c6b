"""Who holds a stalled job up. Stacks of real jobs (`examined/`, each with what was done in it), and cases by hand."""

import json
from pathlib import Path

import pytest
from tests.diagnosis.cases import START, case, rank

from rankguard.diagnosis.culprit import choose as judge
from rankguard.diagnosis.stalls import choose
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import Examined, Exited, FailureReported
from rankguard.model import Confidence, Ending, Report, Sign
from rankguard.record import from_data
from rankguard.stacks import UNREAD, Frame, Group, Stack, Thread

EXAMINED = Path(__file__).parent / "examined"
LIKELY, PROVEN, UNKNOWN = Confidence.LIKELY, Confidence.PROVEN, Confidence.UNKNOWN
LIMIT, AT = 10.0, START + 100.0
TRAIN, DIST = "/home/me/train.py", "/venv/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py"


def recorded(name):
    told = json.loads((EXAMINED / f"{name}.json").read_text())
    found = from_data(Examined, told["examined"])
    ranks = [
        rank(number, spawned_at=at, late=True, suspect=True, failed_at=found.at)
        for number, at in enumerate(told["spawned_at"])
    ]
    return case(
        *ranks, nprocs=told["nprocs"], spec_more={"stall_timeout": told["stall_timeout"]}, failed_by="stall",
        failed_at=found.at, examined=found, started_at=told["spawned_at"][0], now=found.at, stopped_at=found.at,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "culprit", "either", "sure", "words"),
    [
        ("torch_gloo", 5, (), LIKELY, "it waits in `load_shard` (pt.py:9)"),
        ("lock", 1, (), LIKELY, "it waits in `load_shard` (p1.py:5)"),
        ("busy", 2, (), LIKELY, "it is in `busy` (p2.py:5)"),
        ("stopped", 2, (), PROVEN, "it is stopped by a signal (SIGSTOP or SIGTSTP), in `stopped` (p2.py:6)"),
        ("no_py_spy", 2, (), LIKELY, "it waits in `futex`"),
        ("same", None, (0, 1, 2, 3), UNKNOWN, "and which holds the others up is not known"),
    ],
)
def test_recorded(name, culprit, either, sure, words):
    made = recorded(name)

    judged = judge(made)
    told = verdict(made.replace(judged=judged), "0")

    assert (judged.rank, judged.kind, judged.exit_code, judged.either) == (culprit, "stall", 124, either)
    assert (told.culprit.rank, told.culprit.cause.confidence, told.exit_code) == (culprit, sure, 124)
    assert words in told.statement
    assert len(told.statement) <= 140
    assert (told.culprit.stacks is None) == (culprit is None)


def test_the_largest_group_is_told_beside_the_culprit():
    told = verdict(recorded("torch_gloo"), "0").culprit

    assert [each.statement for each in told.cause.evidence] == [
        "rank 5 waits in `load_shard` (pt.py:9)",
        "ranks 0-4, 6, 7 wait in `all_reduce`, called by `<module>` (pt.py:11)",
        "it has used no CPU in the last 0.50 s: it is asleep in `clock_nanosleep`",
        "its last sign of progress (output) was 60.5 s old when it was looked at",
    ]
    assert told.stacks == (
        "MainThread: state S in clock_nanosleep\n  load_shard (/home/me/pt.py:9)\n  <module> (/home/me/pt.py:10)"
    )


# ── By hand ──────────────────────────────────────────────────────────────────────────────────────────────────────


def stack(*frames, state="S", tracer=None):
    return Stack(1, "python", (Thread(1, "MainThread", state, frames, active=state == "R"),), tracer)


def reduce(line=40):
    return stack(Frame("all_reduce", DIST, 7), Frame("step", TRAIN, line))


def load():
    return stack(Frame("load_shard", TRAIN, 88))


def spin(line=5):
    return stack(Frame("tokenize", TRAIN, line), state="R")


def stalled(does, quiet=None, cpu=None, nprocs=None):
    """`does`: ranks → stack; `quiet`: rank → seconds of silence, if not the timeout; `cpu`: rank → CPUs used."""
    groups = tuple(Group(ranks, found) for ranks, found in does.items())
    numbers = sorted(number for ranks in does for number in ranks)
    silence = dict.fromkeys(numbers, LIMIT) | (quiet or {})
    found = Examined(
        AT, 1, tuple(Sign(n, AT - s, "output") for n, s in silence.items()), tuple((cpu or {}).items()), 0.5, groups
    )
    rows = [rank(n, late=s >= LIMIT, suspect=s >= LIMIT) for n, s in silence.items()]
    made = case(*rows, nprocs=nprocs or len(numbers), spec_more={"stall_timeout": LIMIT}, failed_by="stall",
                failed_at=AT, examined=found)  # fmt: skip
    return choose(made, found)


def test_the_first_whose_time_is_over_need_not_be_the_one():
    """It said its last word 0.1 s before the others came to wait for rank 3."""
    told = stalled({(0, 1, 2): reduce(), (3,): load()}, quiet={0: 10.0, 1: 9.9, 2: 9.9, 3: 9.9})

    assert (told.rank, told.either, told.confidence) == (3, (), LIKELY)


def test_one_that_spins_in_a_collective_waits_all_the_same():
    """As NCCL does. The one that sleeps elsewhere is the odd one."""
    spinning = stack(Frame("all_reduce", DIST, 7), Frame("step", TRAIN, 40), state="R")

    told = stalled({(0, 2, 3): spinning, (1,): load()}, cpu={0: 1.0, 1: 0.0, 2: 1.0, 3: 0.99})

    assert (told.rank, told.either) == (1, ())


def test_two_ranks_of_which_one_waits_for_its_peer():
    assert stalled({(0,): reduce(), (1,): load()}).rank == 1
    assert stalled({(0,): spin(), (1,): reduce()}).rank == 0


def test_of_two_that_are_odd_the_one_that_is_busy():
    told = stalled({(0, 1, 2): reduce(), (3,): load(), (4,): spin()}, cpu={3: 0.0, 4: 0.9})

    assert (told.rank, told.either) == (4, ())


def test_of_two_that_are_equally_odd_either():
    told = stalled({(0, 1, 2): reduce(), (3,): load(), (4,): stack(Frame("save", TRAIN, 99))})

    assert (told.rank, told.either, told.confidence) == (3, (4,), LIKELY)


def test_of_two_that_are_equally_odd_the_one_that_is_silent_for_much_longer():
    told = stalled({(0, 1, 2): reduce(), (3,): load(), (4,): stack(Frame("save", TRAIN, 99))}, quiet={4: 18.0})

    assert (told.rank, told.either, told.basis) == (4, (), "silent for longest")


def test_who_waits_for_a_peer_in_another_collective_is_odd_too():
    elsewhere = stack(Frame("broadcast", DIST, 9), Frame("save", TRAIN, 70))

    assert stalled({(0, 1, 2): reduce(), (3,): elsewhere}).rank == 3


def test_an_own_function_below_a_library_that_talks_to_peers_is_no_wait():
    """Fully sharded models call the program's own layers: the innermost line of the program counts."""
    layer = stack(Frame("forward", TRAIN, 12), Frame("forward", DIST, 80), Frame("step", TRAIN, 40), state="R")

    assert stalled({(0,): reduce(), (1,): layer}).rank == 1


def test_held_from_outside_goes_before_all():
    held = {"stopped": stack(Frame("step", TRAIN, 40), state="T"), "traced": stack(tracer=7), "disk": stack(state="D")}
    for how, found in held.items():
        told = stalled({(0, 1): reduce(), (2,): spin(), (3,): found}, cpu={2: 1.0})

        assert (told.rank, told.confidence, told.basis) == (3, PROVEN, "held from outside"), how


def test_all_are_stopped():
    told = stalled({(0, 1, 2): stack(state="T")})

    assert (told.rank, told.either, told.confidence) == (None, (0, 1, 2), UNKNOWN)


def test_the_only_silent_rank_is_to_blame_even_where_it_does_as_others_do():
    told = stalled({(0, 1, 2): spin()}, quiet={0: 1.0, 1: 1.0})

    assert (told.rank, told.confidence, told.basis) == (2, PROVEN, "the only silent rank")


def test_the_only_silent_rank_may_wait_for_one_that_talks():
    told = stalled({(0,): spin(), (1,): reduce()}, quiet={0: 1.0})

    assert (told.rank, told.either, told.confidence) == (1, (0,), LIKELY)


def test_one_that_talks_and_does_not_come():
    """Rank 0 prints while it evaluates, and all others wait for it."""
    told = stalled({(1, 2, 3): reduce(), (0,): spin()}, quiet={0: 0.5})

    assert (told.rank, told.either, told.confidence) == (0, (), LIKELY)


def test_the_cause_of_one_that_talks_says_so():
    made = recorded("torch_gloo")
    found = made.examined
    talks = found.replace(signs=tuple(s.replace(at=found.at) if s.rank == 5 else s for s in found.signs))
    ranks = tuple(row.replace(late=row.rank != 5, suspect=row.rank != 5) for row in made.ranks)

    told = verdict(made.replace(examined=talks, ranks=ranks), "0")

    assert told.statement == "rank 5 of 8 holds the silent ranks up: it waits in `load_shard` (pt.py:9)"


def test_several_that_all_do_something_else():
    told = stalled({(0,): spin(1), (1,): spin(2), (2,): reduce()}, cpu={0: 1.0, 1: 1.0})

    assert (told.rank, told.either, told.confidence) == (None, (0, 1), UNKNOWN)


def test_a_single_rank():
    assert (stalled({(0,): reduce()}).rank, stalled({(0,): reduce()}).confidence) == (0, PROVEN)


def test_nothing_could_be_read():
    found = Examined(AT, 1, (Sign(0), Sign(1)))
    made = case(
        rank(0, late=True), rank(1, late=True), nprocs=2, spec_more={"stall_timeout": LIMIT}, failed_by="stall",
        failed_at=AT, examined=found,
    )  # fmt: skip

    told = verdict(made, "0")

    assert (told.culprit.rank, told.either, told.exit_code) == (None, (0, 1), 124)
    assert told.hints[0].startswith("if they are only slow, let each rank say so")


def test_a_rank_that_crashed_meanwhile_goes_before_those_that_are_silent():
    made = recorded("torch_gloo")
    crashed = Exited(made.examined.at, 2, Ending("signal", signal="SIGSEGV", number=11))
    ranks = tuple(row.replace(exited=crashed, signalled_at=None) if row.rank == 2 else row for row in made.ranks)

    judged = judge(made.replace(ranks=ranks))

    assert (judged.rank, judged.kind, judged.exit_code) == (2, "crash", 139)


def test_what_it_says_when_it_is_told_to_end_is_no_failure():
    made = recorded("torch_gloo")
    at = made.failed_at + 0.1
    told = FailureReported(at, 5, Report("exception", "RuntimeError: told to end", raised_at=at))
    ended = Exited(at + 0.1, 5, Ending("exit", code=1))
    ranks = tuple(
        row.replace(report=told, exited=ended, signalled_at=made.failed_at) if row.rank == 5 else row
        for row in made.ranks
    )

    told = verdict(made.replace(ranks=ranks, judged=judge(made)), "0")

    assert (told.culprit.rank, told.culprit.cause.kind, told.exit_code) == (5, "stall", 124)


# ── Locks, the GIL, ranks that were not read ─────────────────────────────────────────────────────────────────────


def lock(of):
    """Waits for a lock on a file that the process `of` has (cases.rank: rank n has pid 1000 + n, or so)."""
    main = Thread(1, "MainThread", "S", (Frame("cache", TRAIN, 3),), waits_in="flock", locked_by=of)
    return Stack(1, "python", (main,))


def test_the_rank_that_has_the_lock():
    """Two of four wait in a collective: no majority; the kernel tells who waits for whom."""
    assert stalled({(0, 3): reduce(), (1,): lock(rank(2).pid), (2,): load()}).rank == 2


def test_a_lock_of_its_own():
    own = lock(of=1)  # as `Stack.pid`
    made = unready({(0, 2): reduce(), (1,): own}, late=range(3))

    told = verdict(made, "0")

    assert told.culprit.rank == 1
    assert "the lock that it waits for is its own, by another opening of the file" in [
        each.statement for each in told.culprit.cause.evidence
    ]
    assert told.hints[0] == "rank 1 waits for a lock that it has itself: it opened the file twice"


def test_whoever_waits_for_the_other_end_of_a_connection_is_told_which():
    main = Thread(
        1, "MainThread", "S", (Frame("fetch", TRAIN, 3),), "recvfrom", waits_on="a TCP socket to 10.0.0.5:443"
    )
    waits = Stack(1, "python", (main,))

    told = verdict(unready({(0, 2): reduce(), (1,): waits}, late=range(3)), "0")

    assert told.hints[0] == "see why 10.0.0.5:443 sends nothing: rank 1 waits for it without a time-out of its own"
    assert "it sleeps in `recvfrom` on a TCP socket to 10.0.0.5:443" in [
        each.statement for each in told.culprit.cause.evidence
    ]


def test_a_ring_of_locks_is_to_blame_as_a_whole():
    told = stalled({(0,): lock(rank(1).pid), (1,): lock(rank(0).pid), (2, 3): reduce()})

    assert (told.rank, told.either, told.confidence) == (None, (0, 1), UNKNOWN)


def test_a_thread_that_sleeps_with_the_gil_makes_its_rank_the_odd_one():
    holder = Thread(2, "loader", "S", (Frame("native", TRAIN, 9),), holds_gil=True)
    waits_too = reduce().replace(threads=(reduce().main, holder))

    assert stalled({(0, 2, 3): reduce(), (1,): waits_too}).rank == 1


def test_ranks_that_were_not_read_are_not_the_odd_ones():
    """Of 512 the time was enough for some: what the kernel tells of the rest is no other thing that they do."""
    unread = stack().replace(lacks=UNREAD)

    told = stalled({(0, 1): reduce(), (2, 3, 4, 5): unread, (6,): load()})

    assert (told.rank, told.confidence) == (6, LIKELY)


# ── Not ready in time ────────────────────────────────────────────────────────────────────────────────────────────


def unready(does, late):
    numbers = sorted(number for ranks in does for number in ranks)
    groups = tuple(Group(ranks, found) for ranks, found in does.items())
    found = Examined(AT, 1, tuple(Sign(n, AT - LIMIT, "status") for n in numbers), (), 0.5, groups)
    rows = [rank(n, late=n in late, suspect=n in late, failed_at=AT if n in late else None) for n in numbers]
    return case(*rows, nprocs=len(numbers), spec_more={"ready_timeout": LIMIT}, failed_by="ready-timeout",
                failed_at=AT, examined=found, expects_ready=True, now=AT)  # fmt: skip


def test_of_those_that_are_not_ready_the_one_that_holds_the_others_up():
    made = unready({(0, 1, 2, 4, 5, 6, 7): reduce(), (3,): load()}, late=range(8))

    told = verdict(made, "0")

    assert (told.culprit.rank, told.either, told.exit_code) == (3, (), 124)
    assert told.statement == "rank 3 of 8 was not ready within 10 s: it waits in `load_shard` (train.py:88)"
    assert [each.statement for each in told.culprit.cause.evidence if each.source == "stacks"] == [
        "rank 3 waits in `load_shard` (train.py:88)",
        "ranks 0-2, 4-7 wait in `all_reduce`, called by `step` (train.py:40)",
    ]
    assert told.culprit.stacks == "MainThread: state S\n  load_shard (/home/me/train.py:88)"


def test_of_those_that_are_not_ready_and_do_the_same_one_is_named_and_the_others_may_be():
    told = verdict(unready({(0, 1, 2): reduce()}, late=range(3)), "0")

    assert (told.culprit.rank, told.either, told.culprit.cause.kind) == (0, (1, 2), "ready-timeout")


def test_who_is_ready_is_not_to_blame_for_those_that_are_not():
    told = verdict(unready({(0, 1): reduce(), (2,): load()}, late=(0, 1)), "0")

    assert (told.culprit.rank, told.either) == (0, (1,))


def test_on_an_overloaded_machine_one_that_wants_to_run_is_busy():
    """It got a twentieth of a CPU."""
    starved = unready({(0, 2): reduce(), (1,): spin()}, late=range(3))
    found = starved.examined.replace(cpu=((0, 0.0), (1, 0.05), (2, 0.0)))

    told = verdict(starved.replace(examined=found), "0").culprit

    assert told.rank == 1
    assert "it has used 0.03 s of CPU in the last 0.50 s: it is busy, and says nothing" in [
        each.statement for each in told.cause.evidence
    ]


def test_the_cpu_is_told_since_the_last_sign():
    made = recorded("busy")
    used = made.examined.replace(used=((2, 41.02, 42.0),))

    told = verdict(made.replace(examined=used), "0").culprit.cause.evidence

    assert "it has used 41 s of CPU in the last 42 s: it is busy, and says nothing" in [e.statement for e in told]
