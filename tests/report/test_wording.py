"""How numbers, ranks and endings are said."""

import pytest

from rankguard.model import Ending, StoppedBy
from rankguard.report import wording as say

GIB, MIB = 1 << 30, 1 << 20


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], ""),
        ([5], "5"),
        ([0, 1], "0, 1"),
        ([2, 1, 0], "0-2"),
        ([0, 1, 2, 3, 4, 6, 7], "0-4, 6, 7"),
        ([1, 1, 3], "1, 3"),
    ],
)
def test_ranges(numbers, expected):
    assert expected == say.ranges(numbers)


def test_many():
    assert say.many([(5, None)]) == "rank 5"
    assert say.many([(0, None), (1, None), (2, "x")]) == "ranks 0-2"
    assert say.many([(None, "scheduler"), (None, "tokenizer")]) == "scheduler, tokenizer"
    assert say.many([(None, f"w{n}") for n in range(9)]) == "w0, w1, w2, w3, w4, w5, and 3 more"
    assert say.many([(None, None)]) == "a process"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-1.0, "0.0 ms"),
        (0.0008, "0.8 ms"),
        (0.03, "0.03 s"),
        (0.9949, "0.99 s"),
        (0.996, "1.0 s"),
        (14.23, "14.2 s"),
        (599.94, "599.9 s"),
        (599.96, "10 min 0 s"),
        (725, "12 min 5 s"),
        (7980, "2 h 13 min"),
        (400000, "111 h 6 min"),
    ],
)
def test_seconds(value, expected):
    assert expected == say.seconds(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (32, "32 bytes"),
        (4096, "4.0 KiB"),
        (640 * MIB, "640.0 MiB"),
        (3 * GIB, "3.0 GiB"),
    ],
)
def test_size(value, expected):
    assert expected == say.size(value)


def test_unit_is_that_of_the_limit():
    assert (say.Unit(512 * MIB).name, say.Unit(512 * MIB).of(2 * GIB)) == ("MiB", "2048.0")
    assert (say.Unit(GIB).name, say.Unit(GIB).of(512 * MIB)) == ("GiB", "0.5")


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        (None, None),
        ("", None),
        ("2026-11-22T08:14:03.123456Z", "2026-11-22 08:14:03 UTC"),
        ("2026-11-22T08:14:03+00:00", "2026-11-22 08:14:03 UTC"),
        ("2026-11-22T08:14:03+02:00", "2026-11-22T08:14:03+02:00"),
        ("yesterday\n", "yesterday\\n"),
    ],
)
def test_when(stamp, expected):
    assert expected == say.when(stamp)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, with ümlauts and 漢字", "plain, with ümlauts and 漢字"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\r\nb\tc", r"a\r\nb   c"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
        ("x" * 200, "x" * 159 + "…"),
        ("x" * 10_000_000, "x" * 159 + "…"),
    ],
)
def test_printable(text, expected):
    assert expected == say.printable(text)


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (Ending("exit", code=1), "ended with exit 1"),
        (Ending("exit"), "exit status unknown"),
        (Ending("signal", signal="SIGSEGV", number=11, core_dumped=True), "ended by SIGSEGV, core dumped"),
        (Ending("signal", number=35), "ended by signal 35"),
        (Ending("alive"), "still alive"),
    ],
)
def test_ended(ending, expected):
    assert expected == say.ended(ending)


def test_stopper_says_only_what_is_known():
    assert say.stopper(StoppedBy("SIGTERM", 812, 0, "slurmstepd")) == "by SIGTERM from pid 812, slurmstepd, uid 0"
    assert say.stopper(StoppedBy("SIGINT")) == "by SIGINT"
    assert say.stopper(StoppedBy(None)) == ""


def test_words_for_lines_of_pairs():
    assert say.word("host a=1\n") == "host_a_1_"
    assert say.word("") == "?"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/sys/fs/cgroup/job", "/sys/fs/cgroup/job"),
        ("/sys/fs/cgroup/some/where/job/memory.max", "…/job/memory.max"),
        ("/" + "x" * 40, "…" + "x" * 19),
        ("x" * 40 + "/", "…" + "x" * 18 + "/"),
    ],
)
def test_cut_path(path, expected):
    assert expected == say.cut_path(path, 20)


@pytest.mark.parametrize(
    ("home", "expected"),
    [
        ("/home/me", "~/runs/7f3a"),
        ("/home/me/", "~/runs/7f3a"),
        ("/home/m", "/home/me/runs/7f3a"),
        ("/", "/home/me/runs/7f3a"),
        ("", "/home/me/runs/7f3a"),
        (None, "/home/me/runs/7f3a"),
    ],
)
def test_from_home(home, expected):
    assert say.from_home("/home/me/runs/7f3a", home) == expected


def test_a_number_is_not_parted_from_its_unit():
    assert say.row("then", "stopped ranks 0-36, 38-63 because rank 37 failed; all gone after 0.10 s; done", 77) == [
        "  then    stopped ranks 0-36, 38-63 because rank 37 failed; all gone after",
        "          0.10 s; done",
    ]
