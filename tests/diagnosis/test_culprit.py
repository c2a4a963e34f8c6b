"""Rule 9: class first, then what one clock proves, then the order in which they were seen, with the others in `either`."""

import itertools

import pytest
from tests.diagnosis.cases import (
    START,
    alive,
    broken,
    by_code,
    by_signal,
    case,
    count,
    error,
    killed,
    looked,
    not_spawned,
    rank,
    reported,
    suspect,
)

from rankguard.diagnosis.culprit import choose
from rankguard.facts import FrontLost, Judged, StatusTold, SupervisorLost, WardenLost
from rankguard.model import Begun, Ending

GLOO = "[/x/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"
GLOO_TIMEOUT = "[/x/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 8000ms for recv operation to complete"


def judged(rank_, kind, exit_code, basis, either=(), gap_us=None):
    return Judged(at=START + 20, rank=rank_, kind=kind, exit_code=exit_code, either=either, basis=basis, gap_us=gap_us)


def by_exception(number, type_name="ValueError", message="bad", peer=None, at=10.0, raised=None, **more):
    report = reported(number, error=error(type_name, message), peer=peer, at=at, raised=raised)
    return suspect(number, by_code(number, 1, at=at + 0.01), report=report, **more)


def victim(number, at=9.99, **more):
    return by_exception(number, "RuntimeError", GLOO, peer="Connection closed by peer", at=at, **more)


# One of each class, the strongest first. The weaker ones are always seen earlier.
CLASSES = {
    "reported": (lambda n: suspect(n, report=reported(n, "failed", "no weights"), signalled_at=START + 10.001), "reported-failure"),
    "oom": (lambda n: suspect(n, by_signal(n, 9, oom=(count(),), oom_readable=True)), "oom-kill"),
    "aborted": (lambda n: suspect(n, by_signal(n, 6, at=9.9)), "crash"),
    "exception": (lambda n: by_exception(n, at=9.8), "exception"),
    "timed out": (lambda n: by_exception(n, "RuntimeError", GLOO_TIMEOUT, peer="Timed out", at=9.7), "collective-timeout"),
    "peer lost": (lambda n: victim(n, at=9.6), "exception"),
    "none": (lambda n: suspect(n, by_signal(n, 15, at=10.5), signalled_at=START + 10.001), "unknown"),
}  # fmt: skip


@pytest.mark.parametrize(("stronger", "weaker"), list(itertools.combinations(CLASSES, 2)))
def test_the_stronger_class_wins_whatever_came_first(stronger, weaker) -> None:
    """One that timed out is a victim, too: of a rank that is not among the suspects (`test_collectives.py`)."""
    (strong, kind), (weak, _) = CLASSES[stronger], CLASSES[weaker]

    actual = choose(case(weak(0), strong(1)))

    expected = (None, kind, (0, 2, 3) if weaker == "none" else (2, 3)) if stronger == "timed out" else (1, kind, ())
    assert (actual.rank, actual.kind, actual.either) == expected


SINGLE = [
    (suspect(1, report=reported(1, "failed", "no weights")), "reported-failure", 1),
    (suspect(1, report=reported(1, "errno", "", errno=5)), "reported-failure", 1),
    (suspect(1, broken=broken(1)), "protocol-error", 1),
    (suspect(1, not_spawned=not_spawned(1, 2), pid=None), "cannot-start", 127),
    (suspect(1, by_signal(1, 9, oom_readable=True)), "killed", 137),
    (suspect(1, by_signal(1, 11)), "crash", 139),
    (suspect(1, by_signal(1, 13)), "killed", 141),
    (by_exception(1), "exception", 1),
    (suspect(1, by_code(1, 3)), "exit-code", 3),
    (victim(1), "exception", 1),
]


@pytest.mark.parametrize(("only", "kind", "code"), SINGLE)
def test_an_only_suspect(only, kind, code) -> None:
    expected = judged(1, kind, code, "only suspect")

    assert choose(case(only)) == expected


def test_exit_code_0_before_ready() -> None:
    expected = judged(1, "exit-before-ready", 1, "only suspect")

    assert choose(case(suspect(1, by_code(1, 0)), expects_ready=True)) == expected


def test_a_kill_seen_after_its_victims() -> None:
    culprit = suspect(2, by_signal(2, 9, at=10.2), dying="exiting")
    victims = [suspect(n, by_code(n, 1, at=10.0 + n / 1000, peer_death="Connection reset by peer")) for n in (0, 1, 3)]

    expected = judged(2, "killed", 137, "killed by a signal")

    assert choose(case(culprit, *victims, looked=looked((2, "exiting")))) == expected


def test_an_abort_with_its_peers_words_is_a_victim() -> None:
    victim_ = suspect(0, by_signal(0, 6, at=9.9, peer_death="remote process exited"))

    assert choose(case(victim_, by_exception(1))) == judged(1, "exception", 1, "own failure, not a peer's")


def test_a_segfault_with_a_peers_words_is_still_a_crash() -> None:
    crash = suspect(1, by_signal(1, 11, peer_death="Connection reset by peer"))

    assert choose(case(crash, by_exception(0))) == judged(1, "crash", 139, "killed by a signal")


def test_a_failure_report_about_a_peer_is_a_victims() -> None:
    said = suspect(0, report=reported(0, "failed", "lost rank 1", at=9.0, peer="Connection reset by peer"))

    assert choose(case(said, by_exception(1))).rank == 1


def test_its_own_exception_outranks_its_log() -> None:
    both = suspect(1, by_code(1, 1, peer_death="Broken pipe"), report=reported(1, error=error("ValueError", "bad")))

    assert choose(case(victim(0), both)).rank == 1


def test_a_lost_child_that_the_oom_killer_took_is_no_peer() -> None:
    parent = suspect(1, by_code(1, 1, oom=(count(),), peer_death="Broken pipe"))

    assert choose(case(parent, by_exception(0))) == judged(1, "oom-kill", 1, "killed by the OOM killer")


def test_ended_by_us_is_never_the_culprit() -> None:
    ours = [
        suspect(n, by_signal(n, s, at=10.5), signalled_at=START + 10.001, killed_by_us=True)
        for n, s in ((0, 15), (1, 9), (2, 2))
    ]

    assert choose(case(*ours, victim(3))).rank == 3


def test_sigkill_that_is_not_ours_after_our_sigterm() -> None:
    other = suspect(0, by_signal(0, 9, at=10.5), signalled_at=START + 10.001)

    assert choose(case(other, by_exception(1))).rank == 0


def test_who_was_dying_before_our_signal_was_not_ended_by_it() -> None:
    dying = suspect(0, by_signal(0, 9, at=10.5), dying="killed", signalled_at=START + 10.001, killed_by_us=True)

    assert choose(case(dying, by_exception(1), looked=looked((0, "killed")))).rank == 0


# ── Within a class ───────────────────────────────────────────────────────────────────────────────────────────────


def test_own_stamps_decide() -> None:
    late_news = by_exception(0, at=10.9, raised=10.0)
    early_news = by_exception(1, at=10.5, raised=10.0008)

    expected = judged(0, "exception", 1, "raised first", gap_us=800)

    assert choose(case(late_news, early_news)) == expected


def test_stamps_too_close_prove_nothing() -> None:
    a, b = by_exception(0, at=10.9, raised=10.0), by_exception(1, at=10.5, raised=10.00015)

    assert choose(case(a, b)) == judged(1, "exception", 1, "seen first", either=(0,))


def test_one_stamp_alone_proves_nothing() -> None:
    a, b = by_exception(0, at=10.1, raised=10.0), suspect(1, by_code(1, 3, at=10.5))

    assert choose(case(a, b)) == judged(0, "exception", 1, "seen first", either=(1,))


def test_ended_before_the_other_raised() -> None:
    a, b = by_exception(0, at=10.5, raised=10.4), suspect(1, by_code(1, 3, at=10.1))

    assert choose(case(a, b)) == judged(1, "exit-code", 3, "ended before the others failed", gap_us=300_000)


def test_who_is_proven_later_leaves_and_the_rest_is_either() -> None:
    a, b, c = by_exception(0, raised=9.9), by_exception(1, raised=9.95), suspect(2, by_code(2, 3, at=10.2))

    assert choose(case(a, b, c)) == judged(0, "exception", 1, "seen first", either=(2,))


def test_two_crashes_are_either() -> None:
    first, second = suspect(0, by_signal(0, 11, at=10.0)), suspect(1, by_signal(1, 11, at=10.3), dying="dumping")

    expected = judged(0, "crash", 139, "seen first", either=(1,))

    assert choose(case(first, second, looked=looked((1, "dumping")))) == expected


def test_two_oom_kills_in_the_kernel_logs_order() -> None:
    a = suspect(0, by_signal(0, 9, at=10.0), ooms=(killed(0, 400, at=9.95),))
    b = suspect(1, by_signal(1, 9, at=10.4), ooms=(killed(1, 401, at=9.90),))

    assert choose(case(a, b)) == judged(1, "oom-kill", 137, "kernel log order")


def test_two_oom_kills_that_were_read_in_one_look() -> None:
    """Seen in a container, where no order of exits is told: the log's own clock has it."""
    a = suspect(0, by_signal(0, 9, at=10.0), ooms=(killed(0, 400, logged=1_700_300),))
    b = suspect(1, by_signal(1, 9, at=10.0), ooms=(killed(1, 401, logged=1_700_200),))

    assert choose(case(a, b)) == judged(1, "oom-kill", 137, "kernel log order")


def test_two_oom_kills_read_at_once_are_either() -> None:
    a, b = (suspect(n, by_signal(n, 9, at=10.0 + n), ooms=(killed(n, 400 + n),)) for n in (0, 1))

    assert choose(case(a, b)) == judged(0, "oom-kill", 137, "seen first", either=(1,))


def test_all_lost_a_peer() -> None:
    actual = choose(case(victim(0, at=10.0), victim(1, at=10.1), nprocs=2))

    assert (actual.rank, actual.either, actual.basis) == (0, (1,), "seen first")


# ── Unresolved suspects ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_unresolved_suspect_beats_victims() -> None:
    expected = judged(1, "unknown", 1, "was dying when the others lost a peer")

    assert choose(case(victim(0), suspect(1, dying="exiting"), looked=looked((1, "exiting")))) == expected


def test_an_unresolved_suspect_loses_to_a_failure_but_may_have_been_first() -> None:
    expected = judged(0, "exception", 1, "own failure, not a peer's", either=(1,))

    assert choose(case(by_exception(0), suspect(1, dying="killed"), looked=looked((1, "killed")))) == expected


def test_an_unresolved_suspect_alone() -> None:
    assert choose(case(suspect(1, dying="dumping"))) == judged(1, "unknown", 1, "only suspect")


def test_an_ending_of_unknown_status() -> None:
    unknown = by_code(1, None)

    assert choose(case(suspect(1, unknown.replace(ending=Ending(kind="exit"))))) == judged(
        1, "unknown", 1, "only suspect"
    )


def test_no_suspect_at_all() -> None:
    assert choose(case()) == judged(None, "unknown", 1, "nothing is known of any suspect")


# ── Of the job ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("lost", "by", "kind"),
    [
        (FrontLost(START + 10, 7), "front-lost", "supervisor-lost"),
        (WardenLost(START + 10, 7), "warden-lost", "supervisor-lost"),
        (SupervisorLost(START + 10), "supervisor-lost", "supervisor-lost"),
        (SupervisorLost(START + 10, None, "KeyError: 3"), "supervisor-lost", "bug"),
    ],
)
def test_one_of_our_own_processes_was_lost(lost, by, kind) -> None:
    expected = judged(None, kind, 125, "one of rankguard's own processes was gone")

    assert choose(case(lost=lost, failed_by=by)) == expected


def late(number, **more):
    return rank(number, late=True, suspect=True, failed_at=START + 10, signalled_at=START + 10.001, **more)


def test_ready_timeout_blames_the_longest_silence() -> None:
    ranks = (
        late(0, status=StatusTold(START + 9, 0, "loading")),
        late(1, status=StatusTold(START + 4, 1, "allocating")),
        late(2, spawned_at=START + 5),
    )

    expected = judged(1, "ready-timeout", 124, "longest without a sign of life", either=(0, 2))

    assert choose(case(*ranks, failed_by="ready-timeout", expects_ready=True)) == expected


def test_one_late() -> None:
    expected = judged(2, "ready-timeout", 124, "only one late")

    assert choose(case(late(2), failed_by="ready-timeout", expects_ready=True)) == expected


def test_a_rank_that_died_in_that_moment_explains_the_lateness() -> None:
    dying = suspect(3, by_signal(3, 9, at=10.01), dying="exiting")

    actual = choose(case(late(0), dying, failed_by="ready-timeout", looked=looked((3, "exiting"))))

    assert (actual.rank, actual.kind) == (3, "killed")


def test_late_ranks_that_lose_their_peer_when_we_stop_stay_late() -> None:
    ended = late(0, exited=by_code(0, 1, at=10.5, peer_death="Broken pipe"))

    assert choose(case(ended, failed_by="ready-timeout", expects_ready=True)).kind == "ready-timeout"


def test_others_that_are_no_suspects_do_not_count() -> None:
    after = alive(0, exited=by_signal(0, 11, at=11.0))

    assert choose(case(after, by_exception(1))) == judged(1, "exception", 1, "only suspect")


# ── When exits began ─────────────────────────────────────────────────────────────────────────────────────────────────


def begun(place, at=9.9, within=0.0002):
    return Begun(place, START + at, START + at + within)


def test_an_odd_exit_code_that_began_first_is_the_first() -> None:
    made = case(
        suspect(0, by_code(0, 1, begun=begun(1))),
        suspect(1, by_code(1, 1, begun=begun(2))),
        suspect(2, by_code(2, 3, at=10.2, begun=begun(0))),
        suspect(3, by_code(3, 1, begun=begun(3))),
    )

    assert choose(made) == judged(2, "exit-code", 3, "began to exit first")


def test_an_exit_that_began_first_may_be_of_a_rank_that_was_let_go_before() -> None:
    """One of the crowd was first: whoever it lost has closed its connections and taken its time."""
    made = case(
        suspect(0, by_code(0, 1, begun=begun(0))),
        suspect(1, by_code(1, 1, begun=begun(2))),
        suspect(2, by_code(2, 3, at=10.2, begun=begun(1))),
        suspect(3, by_code(3, 1, begun=begun(3))),
    )

    assert choose(made) == judged(0, "exit-code", 1, "began to exit first", either=(1, 2, 3))


def test_two_exits_without_a_word_cannot_be_told_apart() -> None:
    made = case(suspect(0, by_code(0, 4, begun=begun(1))), suspect(1, by_code(1, 3, at=10.2, begun=begun(0))))

    assert choose(made) == judged(1, "exit-code", 3, "began to exit first", either=(0,))


@pytest.mark.parametrize(("later", "either"), [(0.004, (0,)), (0.03, ())])
def test_two_signals_by_the_instants_of_their_exits(later, either) -> None:
    """A process that is killed dies when it is given a processor: within some milliseconds that says nothing."""
    made = case(
        suspect(0, by_signal(0, 9, at=9.95, begun=begun(1, 9.9 + later))),
        suspect(1, by_signal(1, 9, at=10.4, begun=begun(0, 9.9))),
    )

    actual = choose(made)
    assert (actual.rank, actual.either) == (1, either)
    if not either:
        assert (actual.basis, actual.gap_us) == ("ended before the others failed", 24_800)


def test_an_exit_that_had_begun_before_the_signal_may_have_been_first() -> None:
    made = case(suspect(0, by_signal(0, 11, begun=begun(1))), suspect(1, by_code(1, 3, begun=begun(0))))
    assert choose(made) == judged(0, "crash", 139, "killed by a signal", either=(1,))

    after = case(suspect(0, by_signal(0, 11, begun=begun(0))), suspect(1, by_code(1, 3, begun=begun(1))))
    assert choose(after) == judged(0, "crash", 139, "killed by a signal")


def test_a_core_is_dumped_before_the_exit_begins() -> None:
    """So that the order of exits is not that of the failures: it is as if it were not known."""
    dumped = by_signal(0, 11, begun=begun(1))
    dumped = dumped.replace(ending=dumped.ending.replace(core_dumped=True))
    made = case(suspect(0, dumped), suspect(1, by_signal(1, 11, at=10.1, begun=begun(0, 9.8))))

    actual = choose(made)
    assert (actual.rank, actual.either, actual.basis) == (0, (1,), "seen first")
