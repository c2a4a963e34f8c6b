"""One terminal, several writers: what stands on a real pty after lines of ranks, lines of ours and frames."""

import fcntl
import os
import struct
import termios
from collections.abc import Iterator

import pyte
import pytest

from rankguard.linux.console import Console
from rankguard.report.pane import ERASE
from rankguard.report.screen import Screen, cells


class Shared:
    """A pty, the screen that writes to it, and what a user sees."""

    def __init__(self) -> None:
        self.fd, self.tty = os.openpty()
        os.set_blocking(self.fd, False)
        self.asked = False
        self.now = 0.0
        self.seen = pyte.HistoryScreen(40, 10, history=100_000)
        self.stream = pyte.ByteStream(self.seen)
        self.resize(10, 40)
        self.console = Console(self.tty)
        self.screen = Screen(self.console, lambda: self.asked, lambda: self.now)

    def resize(self, rows: int, columns: int) -> None:
        self.seen.resize(rows, columns)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def write(self, data: bytes) -> None:
        """Lines of a rank, long after the last."""
        self.now += 1.0
        self.screen.write(data)

    def rows(self) -> list[str]:
        """What stands on the screen, once all is written."""
        while True:
            self.console.flush()
            try:
                self.stream.feed(os.read(self.fd, 65536))
            except BlockingIOError:
                if not self.console.pending:
                    break
        rows = [row.rstrip() for row in self.seen.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows


@pytest.fixture
def shared() -> Iterator[Shared]:
    made = Shared()
    yield made
    made.console.close()
    os.close(made.fd)
    os.close(made.tty)


def test_lines_go_above_the_frame(shared: Shared) -> None:
    shared.write(b"one\n")
    shared.screen.show(["-- a", "-- b"], 39)
    shared.write(b"two\nthree\n")
    assert shared.rows() == ["one", "two", "three", "-- a", "-- b"]

    shared.screen.show(["-- c"], 39)
    assert shared.rows() == ["one", "two", "three", "-- c"]
    shared.screen.show([], 0)
    assert shared.rows() == ["one", "two", "three"]
    assert (shared.seen.cursor.y, shared.seen.cursor.x) == (3, 0)


def test_a_frame_that_changes_rewrites_what_changed(shared: Shared) -> None:
    shared.screen.show(["same", "old"], 39)
    shared.rows()
    shared.screen.show(["same", "new"], 39)
    shared.console.flush()
    changes = os.read(shared.fd, 4096)
    shared.stream.feed(changes)

    assert b"same" not in changes
    assert shared.rows() == ["same", "new"]
    shared.screen.show(["same", "new"], 39)
    with pytest.raises(BlockingIOError):
        os.read(shared.fd, 4096)


def test_half_a_line_is_put_back_as_it_was(shared: Shared) -> None:
    shared.write(b"one\nha")
    shared.screen.show(["-- frame"], 39)
    assert shared.rows() == ["one", "ha", "-- frame"]
    shared.write("lf \u6f22 \x1b[31mred\x1b[0m".encode())
    assert shared.rows() == ["one", "half 漢 red", "-- frame"]
    shared.write(b" end\ntwo\n")
    assert shared.rows() == ["one", "half 漢 red end", "two", "-- frame"]


def test_a_bar_is_put_back_in_its_last_state(shared: Shared) -> None:
    shared.write(b"10 %")
    shared.screen.show(["-- frame"], 39)
    for percent in range(20, 100, 10):
        shared.write(ERASE + b"%d %%" % percent)
        assert shared.rows() == [f"{percent} %", "-- frame"]
    shared.write(ERASE + b"done\n")
    assert shared.rows() == ["done", "-- frame"]


def test_a_question_has_the_screen_for_itself(shared: Shared) -> None:
    shared.screen.show(["-- frame"], 39)
    shared.asked = True
    shared.write(b"name? ")
    shared.screen.show(["-- frame 2"], 39)
    assert shared.rows() == ["name?"]
    assert (shared.seen.cursor.y, shared.seen.cursor.x) == (0, 6)
    assert shared.screen.due_at() is None

    shared.asked = False
    shared.write(b"\n")
    assert shared.screen.due_at() is not None
    shared.screen.redraw()
    assert shared.rows() == ["name?", "-- frame 2"]


def test_a_line_wider_than_the_terminal_keeps_the_frame_away(shared: Shared) -> None:
    shared.screen.show(["-- frame"], 39)
    shared.write(b"w" * 45)
    assert shared.rows() == ["w" * 40, "w" * 5]
    shared.screen.say("ours")
    assert shared.rows() == ["w" * 40, "w" * 5, "ours", "-- frame"]


@pytest.mark.parametrize(("asked", "expected"), [(False, ["ours", "half"]), (True, ["half", "ours", "half"])])
def test_what_we_say_goes_above_an_open_line(shared: Shared, asked: bool, expected: list[str]) -> None:
    shared.asked = asked
    shared.write(b"half")
    shared.screen.say("ours")
    assert shared.rows() == expected
    shared.write(b" and half\n")
    assert shared.rows() == [*expected[:-1], "half and half"]


def test_a_window_that_shrank_has_no_frame_until_one_fits(shared: Shared) -> None:
    shared.screen.show(["-- " + "f" * 30], 39)
    shared.rows()
    shared.resize(10, 30)
    shared.write(b"line\n")
    assert shared.rows() == ["line"]
    shared.screen.show(["-- fff"], 29)
    assert shared.rows() == ["line", "-- fff"]
    shared.resize(1, 30)
    shared.write(b"line\n")
    assert "-- fff" not in shared.rows()


def test_after_its_end_there_is_none(shared: Shared) -> None:
    shared.screen.show(["-- frame"], 39)
    shared.screen.close()
    shared.screen.show(["-- late"], 39)
    shared.write(b"report\n")
    assert shared.rows() == ["report"]


def test_many_lines_do_not_redraw_it_each_time(shared: Shared) -> None:
    shared.write(b"first\n")
    shared.screen.show(["-- frame"], 39)
    shared.rows()
    for n in range(100):
        shared.screen.write(b"line %d\n" % n)  # all at one instant
    due = shared.screen.due_at()
    assert due is not None
    shared.console.flush()
    written = os.read(shared.fd, 65536)
    assert b"-- frame" not in written
    shared.stream.feed(written)
    shared.now = due
    shared.screen.redraw()
    assert shared.rows()[-2:] == ["line 99", "-- frame"]


def test_a_backlog_is_lines_and_never_frames(shared: Shared) -> None:
    shared.screen.show(["-- frame"], 39)
    n = 0
    while not shared.console.pending:  # until the terminal's buffer is full
        shared.write(b"%06d\n" % n)
        n += 1
    for _ in range(100):
        shared.write(b"%06d\n" % n)
        shared.screen.show(["-- frame", str(n)], 39)
        n += 1
    shared.rows()
    history = ["".join(row[x].data for x in range(6)) for row in shared.seen.history.top]
    shown = [row for row in history + shared.rows() if not row.startswith("-- ")]
    assert shown == [f"{line:06}" for line in range(n)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"plain", 5),
        ("漢字".encode(), 4),
        ("e\u0301".encode(), 1),
        (b"\x1b[1;31mred\x1b[0m", 3),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", 4),
        (b"long one\rshort", 8),
        (b"a\tb", -1),
        (b"\xff", 1),
    ],
)
def test_how_wide_a_line_is(line: bytes, expected: int) -> None:
    assert cells(line) == expected
