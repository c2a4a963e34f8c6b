"""Without a process: what the options mean, how a device's number is read, how the report gets its fresh line."""

import os
from argparse import Namespace

import pyte
import pytest
from tests.diagnosis.cases import spec

from rankguard.cli.front.hand import Hand
from rankguard.cli.terminal import Hands, hands
from rankguard.errors import UsageError
from rankguard.linux.modes import _device


def asked(**more: object) -> Namespace:
    return Namespace(**{"debug": None, "stdin": "auto", "ready_timeout": None, "stall_timeout": None} | more)


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _fd: False)


def test_without_a_terminal_nobody_reads_and_nothing_changes() -> None:
    assert hands(asked(ready_timeout=5.0), 3, (0, 3, 0)) == Hands(None, None, (0, 3, 0), 5.0, None)


def test_the_debug_rank_is_all_that_is_shown_and_no_clock_runs() -> None:
    told = hands(asked(debug="1", ready_timeout=5.0), 3, (3, 3, 0))

    assert (told.debug, told.stdin, told.hidden, told.ready_timeout) == (1, 1, (3, 0, 3), None)
    assert told.said == (
        ("`--ready-timeout 5`: it does not run with `--debug`", "leave it out"),
        (
            "`--debug 1`: stdin is no terminal; rank 1 reads what there is",
            "start it on a terminal, or attach with debugpy: docs/debug.md",
        ),
    )


@pytest.mark.parametrize(("stdin", "reads"), [("none", None), ("1", 1), ("auto", 1)])
def test_stdin_of_the_debug_rank(stdin: str, reads: int | None) -> None:
    assert hands(asked(debug="1", stdin=stdin), 2, ()).stdin == reads


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"debug": "2"}, "`--debug 2`: expected a rank of this job, 0 to 1"),
        ({"debug": "x"}, "`--debug x`: expected a rank of this job, 0 to 1"),
        ({"stdin": "-1"}, "`--stdin -1`: expected a rank of this job, 0 to 1"),
        ({"debug": "1", "stdin": "0"}, "`--stdin 0`: expected no other rank than that of `--debug 1`, which has the terminal"),
    ],
)  # fmt: skip
def test_refused(more: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        hands(asked(**more), 2, ())

    assert error.value.statement == said


@pytest.mark.parametrize(("major", "minor"), [(4, 1), (136, 0), (136, 255), (136, 300), (136, 70_000)])
def test_the_terminal_of_a_session(major: int, minor: int) -> None:
    """`tty_nr` is the kernel's `new_encode_dev` (include/linux/kdev_t.h)."""
    assert _device(minor & 0xFF | major << 8 | (minor & ~0xFF) << 12) == os.makedev(major, minor)


@pytest.mark.parametrize("before", ["", "half a line", "x" * 79, "x" * 80, "a whole line\r\n"])
def test_the_report_begins_on_a_fresh_line(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _fd: os.terminal_size((80, 24)))
    monkeypatch.setenv("TERM", "xterm")
    screen = pyte.Screen(80, 5)
    pyte.Stream(screen).feed(before + Hand(spec(2, debug_rank=1)).take_back().decode() + "error: it failed")

    lines = [line.rstrip() for line in screen.display]
    shown = [line for line in lines if line]
    assert shown[-1] == "error: it failed"
    assert shown[:-1] == ([before.strip()] if before else [])
    assert "" not in lines[: len(shown)]
