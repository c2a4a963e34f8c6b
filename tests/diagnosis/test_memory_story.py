"""Who is responsible for an OOM kill, what everybody held, and the hint with numbers: from samples before the kill."""

import pytest
from tests.diagnosis.cases import GIB, START, by_signal, case, count, killed, looked, suspect

from rankguard.diagnosis.advice import hints
from rankguard.diagnosis.causes import cause_of
from rankguard.diagnosis.memory_story import memory_of, used
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import Judged, OomSeen
from rankguard.model import Confidence, Memory, MemoryState, Responsible


def held(gib, growth=0.0, age=None, rss=None):
    rss = gib if rss is None else rss
    return Memory(int(rss * GIB), int(rss * GIB), int(gib * GIB), growth * GIB, age)


def victim(**more):
    return suspect(1, by_signal(1, 9, oom=(count(),), oom_readable=True), **more)


def told(memory, state=MemoryState(limit_bytes=100 * GIB), **more):  # noqa: B008  # frozen
    return case(victim(), looked=looked(memory=tuple(enumerate(memory)), state=state), **more)


def responsible(of):
    return cause_of(of, of.ranks[1]).responsible


def test_the_rank_that_grew_is_responsible_not_the_largest():
    of = told([held(30), held(14, age=0.4), held(6, growth=1.9), held(2)])
    assert responsible(of) == (
        Responsible(2, "was growing by 1.9 GiB/s (6.0 GiB when rank 1 was killed)", Confidence.LIKELY),
    )


def test_the_fastest_first_and_nobody_who_hardly_grows():
    of = told([held(3, growth=0.4), held(14), held(6, growth=1.9), held(2, growth=0.1)])
    assert [each.rank for each in responsible(of)] == [2, 0]


def test_a_victim_that_grew_itself_blames_nobody():
    assert responsible(told([held(30), held(14, growth=2), held(6, growth=0.4), held(2)])) == ()


def test_a_victim_that_grew_shares_the_blame_with_one_that_grew_half_as_fast():
    (other,) = responsible(told([held(30), held(14, growth=2), held(6, growth=1.2), held(2)]))
    assert other.rank == 2


def test_without_growth_whoever_held_clearly_more():
    (larger,) = responsible(told([held(30), held(14), held(6), held(15)]))
    assert (larger.rank, larger.because) == (0, "held 30.0 GiB when rank 1 was killed with 14.0 GiB")


def test_what_is_no_rank_s_own_is_said_so():
    state = MemoryState(limit_bytes=100 * GIB, growth_bytes_s=2.0 * GIB, ranks_growth_bytes_s=0.0)
    (other,) = responsible(told([held(3), held(3), held(3), held(3)], state))
    assert (other.rank, other.because.split(":")[0]) == (None, "memory that is no rank's own grew by 2.0 GiB/s")


def test_growth_that_does_not_matter_is_none():
    """8 MiB/s below a limit of 100 GiB: nobody is blamed for that."""
    of = told([held(10, growth=0.008), held(10), held(10), held(10)])
    assert responsible(of) == ()


def test_the_kernels_own_number_at_the_kill_outdoes_an_older_sample():
    of = case(victim(ooms=(killed(1, 401, rss=15 * GIB),)), looked=looked(memory=((1, held(12, growth=1, age=0.9)),)))
    assert memory_of(of, of.ranks[1]) == held(12, growth=1).replace(held_bytes=15 * GIB, age_s=None)


def test_what_a_rank_shares_with_others_is_not_its_own():
    of = told([held(5, rss=45), held(5, rss=45), held(5, rss=45), held(5, rss=45)])
    assert used(of, of.ranks[0]) == 5 * GIB


def test_the_hint_counts_what_others_hold_and_says_that_it_is_too_little():
    """4 ranks of 20 GiB and 8 GiB of others: 88 GiB and a tenth; two were still growing."""
    state = MemoryState(limit_bytes=60 * GIB, firm_bytes=60 * GIB, ranks_bytes=52 * GIB)
    of = told([held(20), held(20, age=0.2), held(10, growth=1), held(2, growth=1)], state)
    cause = cause_of(of, of.ranks[1])
    hint, *_where = hints(of, of.ranks[1], cause, Judged(START, 1, "oom-kill", 137))
    assert hint == (
        "raise the memory limit from 60.0 GiB to more than about 97 GiB (4 × 20.0 GiB, 8.0 GiB of others, and a tenth), or cap each rank's host memory at about 12 GiB"
    )


@pytest.mark.parametrize(
    ("growth", "more"),
    [(0.0, ""), (2.0, "more than "), (None, "more than ")],
    ids=["nobody grew", "the victim grew", "it was too soon to know"],
)
def test_what_was_held_is_enough_only_if_nobody_can_have_grown(growth, more):
    own = held(20) if growth == 0.0 else held(20).replace(growth_bytes_s=growth and growth * GIB)
    of = told([held(20), own, held(20), held(20)], MemoryState(limit_bytes=60 * GIB))
    hint, *_where = hints(of, of.ranks[1], cause_of(of, of.ranks[1]), Judged(START, 1, "oom-kill", 137))

    assert hint.partition(" (")[0] == f"raise the memory limit from 60.0 GiB to {more}about 88 GiB"


def test_what_is_shared_is_told_by_one_look_and_not_by_the_kernel_after_it():
    """The look came while it grew, the peak and the kernel's word at its end: 6 of its 107 MiB were never its own."""
    mib = 1 << 20
    seen = Memory(rss_bytes=84 * mib, peak_bytes=107 * mib, held_bytes=78 * mib)
    of = case(victim(ooms=(killed(1, 5001, rss=101 * mib),)), looked=looked(memory=((1, seen),)))

    assert (used(of, of.ranks[1]), memory_of(of, of.ranks[1]).held_bytes) == (101 * mib, 101 * mib)


def test_one_that_runs_away_is_to_be_looked_at():
    of = told([held(2), held(2), held(50, growth=5), held(2)])
    cause = cause_of(of, of.ranks[1])
    hint, *_where = hints(of, of.ranks[1], cause, Judged(START, 1, "oom-kill", 137))
    assert (
        hint == "see what rank 2 allocates: it alone held 50.0 GiB and was growing by 5.0 GiB/s, the next one 2.0 GiB"
    )


@pytest.mark.parametrize(("at", "detected"), [(9.98, 20.8), (None, 0.8), (-0.5, 0.8), (10.2, 0.8)])
def test_the_kernels_event_counts_for_how_soon_it_was_noticed(at, detected):
    """One that is much older, or came after the end, was of another kill."""
    seen = () if at is None else (OomSeen(START + at, "/job"),)
    of = told([held(2), held(2), held(2), held(2)], ooms_seen=seen, signalled_first_at=START + 10.0008)
    made = verdict(of.replace(judged=Judged(START + 10.01, 1, "oom-kill", 137)), "0")
    assert made.culprit.detected_in_ms == pytest.approx(detected, abs=0.01)
    events = [each.statement for each in made.culprit.cause.evidence if each.source == "event"]
    assert events == (
        ["the kernel told of an OOM kill 20.0 ms before it had ended; it does not say of whom"] if at == 9.98 else []
    )
