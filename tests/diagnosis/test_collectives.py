"""Collectives that timed out: the rank that did not come is named, whoever gave up first; who cannot be told is not."""

import random
import time

import pytest
from tests.diagnosis import collective_texts as texts
from tests.diagnosis.cases import START, alive, by_code, by_signal, case, error, reported, suspect

from rankguard.collective import Entry, Recorded, Remark
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import Mustered
from rankguard.model import Confidence, Sign
from rankguard.stacks import Frame, Group, Stack, Thread

LIBRARY = "/venv/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py"


def aborted(number, *lines, at=10.0, **more):
    """Ended by NCCL's watchdog, with so much behind its words that they are not in the last lines."""
    tail = ("Fatal Python error: Aborted", *(f'  File "/app/train.py", line {n} in f' for n in range(19)))
    return suspect(
        number,
        by_signal(number, 6, at=at, remarks=lines, log_tail=tail, peer_death=lines[0][:160], timed_out=True),
        **more,
    )


def raised(number, message, at=10.0, frames=(), recorded=()):
    """A Python exception, reported by the rank."""
    report = reported(number, error=error("RuntimeError", message, frames=frames), peer=message, at=at)
    report = report.replace(report=report.report.replace(recorded=recorded))
    return suspect(number, by_code(number, 1, at=at + 0.5), report=report)


def lost(number, at=10.1):
    return raised(number, texts.LOST, at=at)


def stack(number, *calls, state="S", tracer=None):
    """`stack(3, "load_shard")`: innermost first; `torch.NAME` is torch's."""
    frames = tuple(
        Frame(call.removeprefix("torch."), LIBRARY if call.startswith("torch.") else "/app/train.py", 40)
        for call in calls
    )
    main = Thread(400 + number, "MainThread", state, frames, active=state == "R")
    return Stack(400 + number, "python3", (main,), tracer=tracer)


def mustered(*groups, remarks=(), recorded=(), signs=()):
    told = tuple(Group(tuple(ranks), made) for ranks, made in groups)
    return Mustered(
        START + 10.5,
        signs=tuple(Sign(n, START + at, "output") for n, at in signs),
        groups=told,
        remarks=tuple(Remark(n, tuple(lines)) for n, lines in remarks),
        recorded=tuple(recorded),
    )


WAITING = stack(1, "torch.all_reduce", "step")
LOADING = stack(3, "load_shard", "main")


def judged(*ranks, nprocs=4, **more):
    found = choose(case(*ranks, nprocs=nprocs, **more))
    assert found.kind == "collective-timeout"
    return found.rank, found.either


# ── Recorded texts of NCCL ───────────────────────────────────────────────────────────────────────────────────────


def test_nccl_four_ranks_one_alive_and_behind():
    """Three abort; the fourth was asked for a dump, and had not enqueued what the others waited in."""
    ranks = [
        aborted(n, texts.watchdog(n, 1234), texts.detected(n, 1234, 1236, 1233, "PG ID 0 PG GUID 0(default_pg)"))
        for n in (0, 1, 3)
    ]
    told = mustered(((2,), stack(2, "load_shard")), remarks=[(2, [texts.dump_signal(2, 0, 1233, 1233)])])
    found = verdict(case(*ranks, mustered=told), "0")

    assert (found.culprit.rank, found.either, found.exit_code) == (2, (), 1)
    assert (found.culprit.cause.kind, found.culprit.cause.confidence) == ("collective-timeout", Confidence.LIKELY)
    assert found.statement == (
        "rank 2 of 4 did not join ALLREDUCE #1234 in which ranks 0, 1, 3 timed out: it waits in `load_shard` (train.py:40)"
    )
    assert [row.relation for row in found.ranks] == ["collateral", "collateral", "culprit", "collateral"]
    assert found.culprit.stacks.startswith("MainThread: state S")
    assert [(each.source, each.statement) for each in found.culprit.cause.evidence][1:3] == [
        ("sequence numbers", "ranks 0, 1, 3 waited in ALLREDUCE #1234; rank 2 had enqueued #1233 last"),
        ("stacks", "rank 2 waits in `load_shard` (train.py:40)"),
    ]


def test_nccl_eight_ranks_one_behind_timed_out_as_well():
    """Every one aborts, the lagging one in an earlier collective and first of all."""
    ranks = [aborted(n, texts.watchdog(n, 7753), texts.failure(n, 7753, 7755, 7752)) for n in range(8) if n != 5]
    late = aborted(5, texts.watchdog(5, 7752, "BROADCAST"), texts.failure(5, 7752, 7752, 7751), at=9.0)

    assert judged(*ranks, late, nprocs=8) == (5, ())


def test_nccl_sixty_four_ranks_quickly():
    """Whatever order they end in; judged and told in far less than a second."""
    numbers = [n for n in range(64) if n != 41]
    random.Random(4).shuffle(numbers)
    ranks = [
        aborted(n, texts.watchdog(n, 99), texts.detected(n, 99, 101, 98), *texts.going_down(n)[:3], at=10 + i / 100)
        for i, n in enumerate(numbers)
    ]
    whole = case(*ranks, nprocs=64, mustered=mustered(((41,), LOADING), signs=[(41, 3.0)]))
    began = time.process_time()
    found = verdict(whole, "0")

    assert time.process_time() - began < 2.0
    assert (found.culprit.rank, found.either) == (41, ())
    assert found.statement.startswith("rank 41 of 64 did not join ")
    assert "in which ranks 0-40, 42-63 timed out" in found.statement
    assert {row.relation for row in found.ranks if row.rank != 41} == {"collateral"}


def test_nccl_another_operation_at_the_same_number():
    ranks = [aborted(n, texts.watchdog(n, 7), texts.detected(n, 7, 7, 6)) for n in (0, 1, 3)]
    odd = aborted(2, texts.watchdog(2, 7, "_ALLGATHER_BASE"), texts.detected(2, 7, 7, 6))
    found = verdict(case(*ranks, odd), "0")

    assert (found.culprit.rank, found.exit_code) == (2, 134)
    assert found.statement == "rank 2 of 4 was in _allgather_base while the others were in allreduce (collective #7)"


def test_nccl_one_waits_alone_in_a_collective_that_nobody_else_reached():
    """Most are behind: then it is the one that is ahead that does something else than all."""
    ahead = aborted(0, texts.watchdog(0, 11), texts.failure(0, 11, 11, 10))
    told = mustered(remarks=[(n, [texts.dump_signal(n, 0, 10, 10)]) for n in range(1, 8)])

    assert judged(ahead, nprocs=8, mustered=told) == (0, ())


def test_nccl_groups_are_told_apart():
    """A late rank makes its peers late for everybody else: it is behind in every group that it is in."""
    default, tp = "PG ID 0 PG GUID 0(default_pg)", "PG ID 2 PG GUID 5(tp)"
    far = [aborted(n, texts.watchdog(n, 50), texts.failure(n, 50, 50, 49, default)) for n in (0, 1)]
    near = aborted(2, texts.watchdog(2, 8), texts.failure(2, 8, 8, 7, tp, place=0), texts.dump_signal(2, 0, 49, 49))
    late = [
        texts.dump_signal(3, 0, 49, 49),
        texts.failure(3, 7, 7, 7, tp, place=1).replace("failure detected by watchdog at work sequence id: 7 ", ""),
    ]

    assert judged(*far, near, mustered=mustered(remarks=[(3, late)])) == (3, ())


@pytest.mark.parametrize(
    ("lines", "world", "expected"),
    [
        (texts.DESYNC, 8, (7, ())),
        (texts.NEVER_JOINED, 4, (2, ())),
        (texts.JAX, 8, (1, (6,))),
        (texts.NCCL_ID, 4, (None, (1, 2, 3))),
    ],
    ids=["desync", "never joined", "jax", "nccl id"],
)
def test_ranks_that_a_runtime_names(lines, world, expected):
    assert judged(aborted(0, *lines), nprocs=world) == expected


def test_a_report_that_names_everybody_names_nobody():
    ranks = [aborted(n, *texts.ALL_JOINED) for n in range(8)]

    assert judged(*ranks, nprocs=8) == (None, tuple(range(8)))


def test_ranks_of_a_group_are_not_ranks_of_the_job():
    """Rank 4 speaks of the ranks of a group in which it is rank 0."""
    lines = tuple(line.replace("[rank0]", "[rank4]") for line in texts.NEVER_JOINED)

    assert judged(aborted(4, *lines), nprocs=8) == (None, (0, 1, 2, 3, 5, 6, 7))


def test_old_words_and_the_heartbeat():
    assert judged(aborted(7, *texts.OLD), *(aborted(n, *texts.OLD) for n in range(6)), nprocs=8) == (6, ())
    assert judged(aborted(6, *texts.HEARTBEAT), nprocs=2 + 6)[0] is None


# ── Gloo, TCPStore, barriers ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("first", range(3))
def test_the_one_that_did_not_time_out(first):
    """Whoever gives up first. Nothing else is known of the fourth than that it lives."""
    ranks = [raised(n, texts.GLOO, at=9.0 if n == first else 10.0) for n in range(3)]

    assert judged(*ranks) == (3, ())


def test_one_that_came_when_the_others_had_given_up():
    assert judged(*(raised(n, texts.GLOO) for n in range(3)), lost(3)) == (3, ())


def test_two_that_lost_a_peer_may_both_have_waited():
    assert judged(raised(0, texts.GLOO), raised(1, texts.GLOO), lost(2), lost(3)) == (None, (2, 3))


def test_one_alive_rather_than_those_that_lost_a_peer():
    told = mustered(((3,), LOADING))

    assert judged(raised(0, texts.GLOO), lost(1), lost(2), mustered=told) == (3, ())


def test_one_that_left_with_0():
    left = alive(3, exited=by_code(3, 0, at=5.0), signalled_at=None)
    found = verdict(case(*(raised(n, texts.GLOO) for n in range(3)), left), "0")

    assert (found.culprit.rank, found.exit_code) == (3, 1)
    assert found.statement == "rank 3 of 4 had ended with exit code 0 before a collective in which ranks 0-2 timed out"


@pytest.mark.parametrize(
    ("text", "expected"), [(texts.BARRIER, (3, ())), (texts.BARRIER_ALL, (2, (3,)))], ids=["one", "several"]
)
def test_whom_a_monitored_barrier_names(text, expected):
    assert judged(raised(0, text), raised(1, texts.BARRIER_OTHER)) == expected


def test_a_barrier_at_a_dead_rank_is_no_time_out():
    """`failed to pass` is said of a rank that died, too; the reason is what counts."""
    dead = suspect(3, by_signal(3, 9, at=10.2, oom_readable=True), dying="exiting")
    found = choose(case(raised(0, texts.BARRIER_DEAD, at=9.9), dead))

    assert (found.rank, found.kind) == (3, "killed")
    assert choose(case(raised(0, texts.BARRIER_DEAD))).kind == "exception"


def test_a_rank_that_never_joins_the_group():
    """Those that wait for rank 0's address name it, and it waits itself."""
    ranks = [raised(0, texts.CLIENTS), raised(1, texts.STORE.format(0)), raised(2, texts.STORE.format(0))]

    assert judged(*ranks) == (3, ())


def test_whose_address_is_waited_for():
    assert judged(raised(0, texts.STORE.format(2)), raised(3, texts.STORE.format(2))) == (2, ())


def test_all_came_and_one_to_another_call():
    """Told by the lines at which they gave up."""
    here = ("/app/train.py:60 step", f"{LIBRARY}:83 wrapper", f"{LIBRARY}:3145 broadcast")
    there = ("/app/train.py:58 warm_up", f"{LIBRARY}:83 wrapper", f"{LIBRARY}:3245 all_reduce")
    ranks = [raised(n, texts.GLOO, frames=there if n == 2 else here) for n in range(4)]
    found = verdict(case(*ranks), "0")

    assert (found.culprit.rank, found.either) == (2, ())
    assert found.statement == (
        "rank 2 of 4 was in `all_reduce` (train.py:58), in another call than the ranks it waited for"
    )


def test_two_that_disagree_are_both_named():
    here, there = ("/app/a.py:1 f", f"{LIBRARY}:1 broadcast"), ("/app/a.py:2 f", f"{LIBRARY}:1 all_reduce")
    ranks = [raised(0, texts.GLOO, frames=here), raised(1, texts.GLOO, frames=there)]
    found = verdict(case(*ranks, nprocs=2), "0")

    assert (found.culprit.rank, found.either, found.exit_code) == (None, (0, 1), 1)
    assert found.statement == "all 2 ranks timed out in a collective, and which rank they waited for is not known"
    assert found.culprit.cause.confidence == Confidence.UNKNOWN


# ── Stacks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_waits_is_not_the_one():
    """Two are alive: one stands in the collective and would have given up a moment later."""
    told = mustered(((1,), WAITING), ((3,), LOADING))

    assert judged(raised(0, texts.GLOO), raised(2, texts.GLOO), mustered=told) == (3, ())


def test_one_that_stands_still():
    told = mustered(((2,), stack(2, "load_shard")), ((3,), stack(3, "load_shard", state="T")))
    found = verdict(case(raised(0, texts.GLOO), raised(1, texts.GLOO), mustered=told), "0")

    assert (found.culprit.rank, found.either, found.owner) == (3, (), "outside")
    assert found.hints[0].startswith("ask who stopped rank 3 (`kill -STOP`")


def test_one_that_stands_still_in_the_collective():
    told = mustered(((3,), stack(3, "torch.all_reduce", "step", state="T")), ((2,), WAITING))

    assert judged(raised(0, texts.GLOO), raised(1, texts.GLOO), mustered=told) == (3, ())


def test_the_odd_one_of_many_that_live():
    """One of eight has given up so far. NCCL's waiters are in no collective's Python frame."""
    told = mustered(((3,), LOADING), ((1, 2, 4, 5, 6, 7), stack(1, "step", "main")))

    assert judged(raised(0, texts.GLOO), nprocs=8, mustered=told) == (3, ())


def test_several_that_do_something_else():
    """The one that has been silent for longest, and the other may as well be."""
    told = mustered(((2, 3), LOADING), signs=[(2, 5.0), (3, 2.0)])

    assert judged(raised(0, texts.GLOO), raised(1, texts.GLOO), mustered=told) == (3, (2,))


def test_nothing_is_known_of_several():
    found = verdict(case(raised(0, texts.GLOO), raised(1, texts.GLOO)), "0")

    assert (found.culprit.rank, found.either) == (None, (2, 3))
    assert found.statement == "ranks 0, 1 of 4 timed out in a collective, and which rank they waited for is not known"
    assert [row.relation for row in found.ranks] == ["collateral", "collateral", "stopped", "stopped"]


# ── PyTorch's flight recorder ────────────────────────────────────────────────────────────────────────────────────


def record(number, *ops, first=1, completed=None):
    entries = tuple(Entry(first + n, op, "scheduled", f"train.py:{40 + n} step") for n, op in enumerate(ops))
    return Recorded(number, "0", first + len(ops) - 1, completed, entries)


def test_records_of_those_that_gave_up_show_one_more_collective():
    """The extra one shifts all that follow: the first number at which they differ tells whose it is."""
    usual = ("allreduce", "broadcast", "allgather")
    ranks = [
        raised(n, texts.GLOO, recorded=(record(n, *(("allreduce", "allreduce", "broadcast") if n == 1 else usual)),))
        for n in range(4)
    ]
    found = verdict(case(*ranks), "0")

    assert (found.culprit.rank, found.either) == (1, ())
    assert found.statement == (
        "rank 1 of 4 was in allreduce (train.py:41) while the others were in broadcast (collective #2)"
    )


def test_a_record_in_a_file_shows_who_is_behind():
    ranks = [raised(n, texts.GLOO, recorded=(record(n, "allreduce", first=9),)) for n in (0, 1)]
    told = mustered(recorded=[record(2, "allreduce", first=9), record(3, "allreduce", first=8)])

    assert judged(*ranks, mustered=told) == (3, ())
