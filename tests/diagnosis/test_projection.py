"""The warning before the limit, on series that were recorded once a second from real processes in a real memory group.

`memory_series/*.json`: what the kernel cannot give back (firm) and what it counts (used), in bytes; when the OOM killer came.
"""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankguard.diagnosis.projection import (
    BEGINS,
    Alarm,
    Course,
    Nearness,
    Outlook,
    Sample,
    easing,
    outlook,
    slope,
    small,
    warning,
)
from rankguard.model import MemoryState

GIB = 1 << 30
SERIES = Path(__file__).with_name("memory_series")


def rings(name, column=1):
    """(instant, level) of each warning, and the record."""
    record = json.loads((SERIES / f"{name}.json").read_text())
    course, alarm, told = Course(), Alarm(), []
    for sample in record["samples"]:
        course.add(sample[0], sample[column])
        now = outlook(course, record["limit"])
        if alarm.rings(now):
            told.append((sample[0], now.level, now.left_s))
    return told, record


@pytest.mark.parametrize("name", ["grows", "page_cache_makes_way"])
def test_what_grows_is_told_seconds_before_the_kill_and_nearly_right(name):
    told, record = rings(name)
    (at, level, left), (last, full, _soon) = told
    assert (level, full) == (1, 2)
    assert record["killed_at_s"] - at > 5
    assert abs(at + left - record["killed_at_s"]) < 2
    assert at < last < record["killed_at_s"]


def test_what_stands_still_at_96_percent_is_not_told_of():
    told, record = rings("grows_then_stands_at_96")
    stands = next(at for at, firm, _used in record["samples"] if firm > 0.94 * record["limit"])
    assert record["killed_at_s"] is None
    assert [at for at, _level, _left in told if at > stands + 1] == []  # on its way there it is


def test_page_cache_alone_is_nothing_to_tell_of():
    told, record = rings("page_cache")
    assert max(used for _at, _firm, used in record["samples"]) > 0.99 * record["limit"]
    assert told == []


def test_what_rises_and_falls_as_before_is_told_once_at_most():
    told, record = rings("sawtooth")
    assert record["killed_at_s"] is None
    assert [at for at, _level, _left in told if at > 10] == []


def test_each_level_is_told_once_until_it_is_calm_again():
    alarm = Alarm()
    levels = [1, 1, 2, 1, 2, 0, 1]
    shares = [0.85, 0.9, 0.96, 0.94, 0.97, 0.5, 0.85]
    assert [alarm.rings(Outlook(level, share)) for level, share in zip(levels, shares, strict=True)] == [
        True, False, True, False, False, False, True,
    ]  # fmt: skip
    calm = [alarm.rings(Outlook(0, 0.1)) or alarm.rings(Outlook(1, 0.9)) for _ in range(20)]
    assert sum(calm) + 3 == Alarm.MOST


def test_what_is_a_matter_of_less_than_a_second_is_told_once():
    alarm = Alarm()
    told = [alarm.rings(Outlook(level, share, left_s=left)) for level, share, left in (
        (1, 0.6, 0.7), (2, 0.97, 0.1), (0, 0.4, None), (1, 0.85, 20.0), (2, 0.97, 0.4), (2, 0.98, 0.2),
    )]  # fmt: skip
    assert told == [True, False, False, True, True, False]


def test_growth_that_has_stopped_is_none():
    course = Course()
    for at in range(5):
        course.add(float(at), at * GIB)
    assert course.growth() == pytest.approx(GIB)
    for at in range(5, 8):
        course.add(float(at), 4 * GIB)
    assert course.growth() == pytest.approx(0, abs=1)


@given(
    st.lists(st.tuples(st.floats(0.05, 100), st.integers(0, 1 << 40)), min_size=1, max_size=60), st.integers(1, 1 << 41)
)
def test_no_series_makes_it_stumble(steps, limit):
    course, alarm, at = Course(), Alarm(), 0.0
    for step, value in steps:
        at += step
        course.add(at, value)
        now = outlook(course, limit)
        assert now.growth >= 0
        assert now.level == 0 or (now.left_s is not None and now.left_s >= 0)
        alarm.rings(now)
        assert warning(MemoryState(limit_bytes=limit, firm_bytes=value), now, ()).startswith(BEGINS)


def test_a_warning_is_over_once_and_only_when_it_was_given():
    alarm = Alarm()
    told = [alarm.eases(each) for each in (Outlook(0, 0.4), Outlook(0, 0.9))]
    alarm.rings(Outlook(1, 0.85, 100.0, 20.0))
    told += [
        alarm.eases(each) for each in (Outlook(0, 0.75), Outlook(1, 0.6, 100.0, 9.0), Outlook(0, 0.69), Outlook(0, 0.3))
    ]

    assert told == [False, False, False, False, True, False]
    state = MemoryState(limit_bytes=GIB, firm_bytes=GIB // 4, limit_from="memory.max of /sys/fs/cgroup/job")
    assert easing(state) == "the memory limit is far again: 256 MiB of 1.0 GiB (memory.max of …/job)"


def test_near_is_what_the_kernel_may_act_on_until_it_is_calm():
    nearness = Nearness()
    looks = [[0.5, 0.2], [0.91, 0.2], [0.75, 0.2], [0.2, 0.72], [0.69, 0.69], [0.8, 0.8]]
    assert [nearness.of(Outlook(share=share) for share in look) for look in looks] == [
        False, True, True, True, False, False,
    ]  # fmt: skip
    assert nearness.of([Outlook(1, 0.6, 100.0, 5.0)])
    assert not nearness.of([])


def test_slope():
    assert slope([(0.0, 0), (1.0, 10), (2.0, 20)]) == pytest.approx(10)
    assert slope([(0.0, 5)]) is None
    assert slope([(0.0, 5), (0.001, 6)]) is None


def test_the_words():
    state = MemoryState(
        limit_bytes=100 * GIB, firm_bytes=82 * GIB, limit_from="memory.max of /sys/fs/cgroup/kubepods/job",
        growth_bytes_s=0.5 * GIB, ranks_growth_bytes_s=0.5 * GIB,
    )  # fmt: skip
    ranks = [Sample(n, 27 * GIB, 0) for n in range(3)] + [
        Sample(3, 6 * GIB, 0.5 * GIB),
        Sample(4, GIB, 0),
        Sample(5, GIB),
    ]
    told = warning(state, Outlook(1, 0.82, 0.5 * GIB, 36.4), ranks)

    assert told == (
        "the memory limit is reached in about 36 s: 82.0 GiB of 100 GiB (memory.max of …/job), +512 MiB/s; "
        "rank 3 (+512 MiB/s) grows; ranks 4, 5 have not allocated yet (1.0 GiB at most)"
    )
    assert [each.rank for each in small(ranks, 0.5 * GIB)] == [4, 5]


def test_what_no_rank_allocates_is_said_so():
    state = MemoryState(
        limit_bytes=100,
        firm_bytes=90,
        limit_from="MemTotal of this machine",
        growth_bytes_s=100.0,
        ranks_growth_bytes_s=1.0,
    )
    told = warning(state, Outlook(1, 0.9, 100.0, 0.1), [Sample(0, 40, 1.0), Sample(1, 40, None)])
    assert told.startswith(
        "the memory limit is reached in less than 1 s: 90 bytes of 100 bytes (MemTotal of this machine)"
    )
    assert told.endswith("the ranks' own memory does not grow: shared memory, tmpfs or other processes do")
