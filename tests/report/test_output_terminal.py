"""What a terminal is given: text and colours, nothing that moves or changes the screen, and bars that can be read."""

import json
import re

import pyte
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rankguard.jobspec import JobSpec, NodesPlan
from rankguard.report.ansi import Painter, fitted, held_back, is_harmless, is_plain
from rankguard.report.output import Output, prefix
from rankguard.report.prefix import marked
from rankguard.testing.player import new_spec

CHUNKS = st.lists(
    st.one_of(
        st.sampled_from(
            [b"\n", b"\r", b"\x1b", b"[", b"31m", b"\x1b[1;38;5;200m", b"\x1b[0m", b"\x1b[2J", b"\x1b]0;", b"\x07",
             b"\x1b\\", b"\x9b", b"\xc2", b"\x9b2J", "\x9b".encode(), "é€😀".encode(), b"\xf0\x9f", b"word", b"\x1b[6n", b"\x1bP"]
        ),
        st.binary(max_size=8),
    ),
    max_size=25,
)  # fmt: skip
ALLOWED = re.compile(rb"\x1b\[[0-9;:]{0,200}m|[\n\t\x20-\x7e]")
OURS = re.compile(rb"\r\x1b\[2K")


class Terminal:
    """What was written to a terminal of so many columns, and what stands on it then."""

    def __init__(self, columns: int = 80) -> None:
        self.data = b""
        self._columns = columns

    def write(self, data: bytes) -> None:
        self.data += data

    def columns(self) -> int:
        return self._columns

    @property
    def lines(self) -> list[str]:
        screen = pyte.Screen(self._columns, 60)
        pyte.ByteStream(screen).feed(self.data.replace(b"\n", b"\r\n"))
        lines = [line.rstrip() for line in screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines


class File(Terminal):
    def columns(self) -> int:
        return 0


def job(n: int = 2, **more: object) -> JobSpec:
    return new_spec(n).replace(env={"TERM": "xterm"}, console="prefix", node="host-a", **more)


def output(spec: JobSpec, console: Terminal) -> Output:
    def fail(statement: str) -> None:
        raise AssertionError(statement)

    return Output(spec, (console, console), fail, False)


# ── Painting ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "painted"),
    [
        (b"plain\ttext", b"plain\ttext"),
        (b"\x1b[31mred\x1b[0m", b"\x1b[31mred\x1b[0m\x1b[0m"),
        (b"a\x1b[2Jb\x1b[10;10Hc\x1b[?1049hd\x1b[?25le", b"abcde"),
        (b"\x1b]0;title\x07x\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", b"xlink"),
        (b"\x1bPq secret\x1b\\x\x1b[6n\x1b[c\x1b]52;c;AAAA\x07\x1b[5i", b"x"),
        (b"\x1b]0;no end", b"0;no end"),
        (b"\x1bc\x1b7\x1b8\x1b(0\x1b#8\x1bM", b""),
        (b"\x1b[>4;2mx\x1b[?4mx\x1b[ qx\x1b[!px", b"xxxx"),
        (b"\x1b\x1b[K[2J", b"\\x1b[2J"),
        (b"a\x00b\x07c\x08d\x0be\x0cf\x7fg", b"a\\x00b\\x07c\\x08d\\x0be\\x0cf\\x7fg"),
        (b"\x9b2J \xff \xe9", b"\\x9b2J \\xff \\xe9"),
        ("\x9b2J".encode(), b"\\x9b2J"),
        (b"\xc2\x1b[K\x9b2J", b"\\xc2\\x9b2J"),
        ("日本 é 😀".encode(), "日本 é 😀".encode()),
    ],
)
def test_what_is_painted(text: bytes, painted: bytes) -> None:
    assert Painter(color=True).paint(text) == painted


def test_colours_go_on_in_the_next_line_of_that_stream() -> None:
    painter = Painter(color=True)

    painted = [painter.paint(line) for line in (b"\x1b[1;31mone", b"two\x1b[39m bold", b"three\x1b[m", b"four")]

    assert painted == [
        b"\x1b[1;31mone\x1b[0m", b"\x1b[1;31mtwo\x1b[39m bold\x1b[0m", b"\x1b[1mthree\x1b[m\x1b[0m", b"four",
    ]  # fmt: skip


def test_without_colour_none_is_left() -> None:
    assert Painter(color=False).paint(b"\x1b[31mred\x1b[0m") == b"red"


@given(CHUNKS)
@example([b"\xc2", b"\x1b[K", b"\x9b"])
@example([b"\x1b[", b"31m"])
def test_no_control_character_reaches_a_terminal(chunks: list[bytes]) -> None:
    text = b"".join(chunks).replace(b"\n", b" ")

    painted = Painter(color=True).paint(text)

    assert not ALLOWED.sub(b"", painted.decode().encode("ascii", "ignore"))
    assert not re.search("[\x80-\x9f]", painted.decode())
    assert b"\x1b" not in painted or painted.endswith(b"\x1b[0m")
    if is_plain(text):
        assert painted == text


@given(CHUNKS)
@example([b"\x1b[31mred\x1b[0m\n", "é".encode()])
@example([b"\x1b[31mred\n"])
@example([b"\xc3", b"\x1b[m", b"\x9b"])
@example([b"\x1b[31"])
def test_what_is_harmless_looks_the_same_when_it_is_painted(chunks: list[bytes]) -> None:
    lines = b"".join(chunks) + b"\n"
    painter = Painter(color=True)

    painted = b"\n".join([painter.paint(line) for line in lines.split(b"\n")])

    if is_harmless(lines):
        assert painter.idle
        assert _without_last_resets(painted) == _without_last_resets(lines)


def _without_last_resets(lines: bytes) -> bytes:
    return re.sub(rb"(?:\x1b\[0?m)+\n", b"\n", lines)


@given(CHUNKS)
def test_a_line_shown_in_pieces_is_the_line(chunks: list[bytes]) -> None:
    """What is held back of a piece makes that no escape and no character is torn."""
    line, whole, pieces = b"".join(chunks).replace(b"\n", b" "), Painter(False), Painter(False)
    shown, painted = 0, b""
    for end in range(len(line) + 1):
        piece = line[shown:end]
        piece = piece[: len(piece) - held_back(piece)]
        if piece:
            painted += pieces.paint(piece)
            shown += len(piece)
    painted += pieces.paint(line[shown:])

    if not re.search(rb"\x1b[\]PX^_]", line):  # the text of an escape without its end is shown once that is known
        assert painted == whole.paint(line)


@pytest.mark.parametrize(
    ("text", "columns", "cut"),
    [
        (b"abcdef", 4, b"abcd"),
        ("日本語".encode(), 5, "日本".encode()),
        ("e\u0301xyz".encode(), 2, "e\u0301x".encode()),
        (b"\x1b[31mabc\x1b[0m", 2, b"\x1b[31mab\x1b[0m"),
        (b"a\tb", 9, b"a b"),
    ],
)
def test_cut_to_columns(text: bytes, columns: int, cut: bytes) -> None:
    assert fitted(text, columns) == cut


# ── The console ──────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), CHUNKS, st.floats(0, 1)), max_size=12))
def test_whatever_ranks_print_a_terminal_obeys_only_us(told: list[tuple[int, int, list[bytes], float]]) -> None:
    terminal, now = Terminal(), 0.0
    out = output(job(), terminal)
    for rank, which, chunks, passed in told:
        for chunk in chunks:
            if chunk:
                out.feed(rank, which, chunk, now)
            now += passed / 8
            out.wake(now)
    for rank in (0, 1):
        out.ended(rank, 0, now)
        out.ended(rank, 1, now)

    text = OURS.sub(b"", terminal.data).decode()
    assert not ALLOWED.sub(b"", text.encode("ascii", "ignore"))
    assert not re.search("[\x80-\x9f]", text)
    assert terminal.data == b"" or terminal.data.endswith((b"\n", b"\x1b[2K"))


@given(st.lists(st.tuples(st.integers(0, 2), CHUNKS, st.floats(0, 0.3)), max_size=12))
def test_elsewhere_nothing_is_lost_and_lines_are_whole(told: list[tuple[int, list[bytes], float]]) -> None:
    """Not a terminal: each rank's lines are there as they were, however slowly they came, but for bars."""
    file, now = File(), 0.0
    out = output(job(3), file)
    sent = [b"", b"", b""]
    for rank, chunks, passed in told:
        for chunk in chunks:
            data = chunk.replace(b"\r", b"|")
            if data:
                out.feed(rank, 0, data, now)
            sent[rank] += data
            now += passed
            out.wake(now)
    for rank in range(3):
        out.ended(rank, 0, now)

    for rank in range(3):
        start = b"[%d] " % rank
        mine = [line.removeprefix(start) for line in file.data.split(b"\n") if line.startswith(start)]
        # A prompt that another rank's line ended goes on in a line of its own.
        assert b"".join(mine) == sent[rank].replace(b"\n", b"")


def test_bars_of_eight_ranks_share_one_line_and_leave_their_last_states() -> None:
    terminal = Terminal(40)
    out = output(job(8), terminal)
    for step in range(1, 5):
        for rank in range(8):
            out.feed(rank, 1, f"\r{step * 25:3}%|{'█' * step:4}| {step}/4 {'x' * 40}".encode(), step * 0.3)
        out.wake(step * 0.3)
        assert terminal.lines == [f"[0] {step * 25:3}%|{'█' * step:4}| {step}/4 {'x' * 11}  +7 more"]
    out.feed(3, 0, b"a line\n", 1.2)
    assert terminal.lines[0] == "[3] a line"
    assert terminal.lines[1].startswith("[0] 100%")
    for rank in (0, 5, 1, 2, 3, 4, 6, 7):
        out.feed(rank, 1, b"\n", 1.5)
    out.wake(1.7)  # until then another bar may come below

    assert [line[:8] for line in terminal.lines if line.startswith("[")] == [
        "[3] a li", "[0] 100%", "[5] 100%", "[1] 100%", "[2] 100%", "[3] 100%", "[4] 100%", "[6] 100%", "[7] 100%",
    ]  # fmt: skip
    assert terminal.data.endswith(b"\n")


def test_a_bar_is_drawn_at_most_four_times_a_second() -> None:
    terminal = Terminal()
    out = output(job(), terminal)

    for step in range(100):
        out.feed(0, 1, b"\r%d%%" % step, step / 100)
        at = out.next_wake()
        if at is not None and at <= step / 100:
            out.wake(step / 100)

    assert terminal.data.count(b"\x1b[2K") in (4, 5)


def test_a_rank_whose_bar_stands_still_gives_way() -> None:
    terminal = Terminal()
    out = output(job(), terminal)
    for now in (0.0, 3.0, 6.0):
        if now == 0.0:
            out.feed(0, 1, b"\rstuck", now)
        out.feed(1, 1, b"\rat %d" % now, now)
        out.wake(now)

    assert terminal.lines == ["[1] at 6  +1 more"]


def test_a_bar_that_is_wiped_away_leaves_nothing() -> None:
    terminal = Terminal()
    out = output(job(), terminal)
    out.feed(0, 1, b"\r50%", 0.0)
    out.wake(0.0)
    out.feed(0, 1, b"\r     \r", 1.0)
    out.wake(1.0)

    assert terminal.lines == []


def test_a_prompt_becomes_a_bar_in_place() -> None:
    terminal = Terminal()
    out = output(job(1), terminal)
    out.feed(0, 0, b"loading", 0.0)
    out.wake(0.2)
    out.feed(0, 0, b"\rloading 50%", 0.3)
    out.wake(0.5)
    out.feed(0, 0, b"\rloaded\n", 0.6)
    out.ended(0, 0, 0.6)

    assert terminal.lines == ["loaded"]


def test_not_on_a_terminal_a_prompt_that_becomes_a_bar_stays() -> None:
    file = File()
    out = output(job(2), file)
    out.feed(0, 0, b"loading", 0.0)
    out.wake(0.2)
    out.feed(0, 0, b"\rloading 50%", 0.3)
    out.wake(0.9)
    out.feed(0, 0, b"\rloaded\n", 1.0)
    out.ended(0, 0, 1.0)

    assert file.data == b"[0] loading\n[0] loaded\n"


def test_a_prompt_that_another_rank_interrupts_goes_on_below() -> None:
    terminal = Terminal()
    out = output(job(2), terminal)
    out.feed(0, 0, b"name? ", 0.0)
    assert out.next_wake() == 0.2
    out.wake(0.2)
    assert terminal.lines == ["[0] name?"]
    out.feed(1, 0, b"other\n", 0.3)
    out.feed(0, 0, b"ada\n", 0.4)

    assert terminal.lines == ["[0] name?", "[1] other", "[0] ada"]


def test_a_bar_below_a_bar() -> None:
    """As tqdm draws it that has no terminal to ask."""
    terminal = Terminal()
    out = output(job(1), terminal)
    for step, data in enumerate(
        (b"\repoch 1", b"\n", b"\r batch 1", b"\x1b[A", b"\n\r batch 2\x1b[A", b"\repoch 2", b"\nend\n")
    ):
        out.feed(0, 1, data, step / 10)
        out.wake(step / 10)

    assert terminal.lines == ["epoch 2", "end"]


def test_the_end_of_a_bar_comes_before_what_its_rank_says_next() -> None:
    file = File()
    out = output(job(2), file)
    out.feed(0, 1, b"\r100%\n", 0.0)
    out.feed(1, 0, b"another\n", 0.1)
    out.feed(0, 0, b"next\n", 0.1)

    assert file.data == b"[1] another\n[0] 100%\n[0] next\n"


def test_each_line_waits_for_its_own_end() -> None:
    """Reads that all end within a line, as at full speed: none of these lines is 200 ms old."""
    file = File()
    out = output(job(2), file)
    for step in range(10):
        out.feed(0, 0, b"end\nbegin", step / 10)
        out.wake(step / 10)

    assert file.data == b"[0] end\n" + b"[0] beginend\n" * 9


def test_a_line_is_not_torn_while_its_reader_is_behind() -> None:
    file = File()
    out = output(job(2), file)
    out.feed(0, 0, b"half", 0.0)
    out.hold(True, 0.1)
    assert out.next_wake() is None
    out.hold(False, 9.0)

    assert out.next_wake() == 9.2
    out.wake(9.1)
    assert file.data == b""


def test_dots_are_shown_while_they_come() -> None:
    terminal = Terminal()
    out = output(job(2), terminal)
    for step in range(8):
        out.feed(0, 0, b".", step / 10)
        out.wake(step / 10)

    assert terminal.lines == ["[0] ........"]


def test_a_dumb_terminal_gets_no_bar() -> None:
    terminal = Terminal()
    out = output(job().replace(env={"TERM": "dumb"}), terminal)
    out.feed(0, 1, b"\r1%\r2%", 0.0)
    out.wake(9.0)
    out.feed(0, 1, b"\r3%\nnext\n", 9.0)

    assert terminal.data == b"[0] 3%\n[0] next\n"


def test_a_long_line_of_one_rank_stays_one_line() -> None:
    file = File()
    out = output(job(1), file)
    text = b"0123456789" * 1_000_000
    for start in range(0, len(text), 65536):
        out.feed(0, 0, text[start : start + 65536], 0.0)
    out.feed(0, 0, b"\n", 0.0)

    assert file.data == text + b"\n"


def test_colours_are_kept_elsewhere_unless_nobody_wants_them() -> None:
    kept, taken = File(), File()
    for spec, file in ((job(1), kept), (job(1, color=False), taken)):
        output(spec, file).feed(0, 0, b"\x1b[31mred\x1b[0m \x1b[2J\0\n", 0.0)

    assert (kept.data, taken.data) == (b"\x1b[31mred\x1b[0m \x1b[2J\0\n", b"red \x1b[2J\0\n")


def test_hidden_streams_and_the_prefix_of_one() -> None:
    file = File()
    spec = job(3, hidden=(3, 2, 3))
    out = output(spec, file)
    for rank in range(3):
        out.feed(rank, 0, b"out\n", 0.0)
        out.feed(rank, 1, b"err\n", 0.0)

    assert file.data == b"out\n"
    assert out.tail(2) == ("out", "err")
    assert prefix(spec.replace(hidden=(3, 2, 1)), 1) == b"[1] "


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("[${role_name}${rank}]:", b"[actor3]:"),
        ("$rank/$local_rank@${hostname} ", b"3/3@host-a "),
        ("$$ ${unknown} $0 ${", b"$ ${unknown} $0 ${"),
        ("", b""),
    ],
)
def test_the_prefix_template(template: str, said: bytes) -> None:
    assert marked(job(4, prefix=template, role="actor"), 3) == said
    assert prefix(job(4, prefix=template, role="actor"), 3) == said


def test_the_prefix_of_a_virtual_local_rank() -> None:
    assert marked(job(4, prefix="${local_rank}/${rank}", virtual_local_rank=True), 3) == b"0/3"


# ── Several machines ─────────────────────────────────────────────────────────────────────────────────────────────


def test_on_several_machines_a_line_has_its_node_too() -> None:
    file = File()
    spec = job(4, nodes=NodesPlan(count=2, nproc=2))
    out = output(spec, file)
    for rank in range(4):
        out.feed(rank, 0, b"out\n", 0.0)

    assert file.data == b"[0:0] out\n[0:1] out\n[1:2] out\n[1:3] out\n"
    assert marked(spec.replace(prefix="${node}.${local_rank}.${rank}"), 3) == b"1.1.3"


def test_a_machine_is_called_by_its_name_once_that_is_known() -> None:
    """It says it when it joins, which is later than the console's beginning."""
    file = File()
    out = output(job(2, nodes=NodesPlan(count=2, nproc=1), prefix="${hostname} "), file)
    out.name_node(1, "host-b")
    for rank in range(2):
        out.feed(rank, 0, b"out\n", 0.0)
    assert file.data == b"host-a out\nhost-b out\n"

    file = File()
    out = output(job(2, nodes=NodesPlan(count=2, nproc=1), log_format="json"), file)
    out.name_node(1, "host-b")
    for rank in range(2):
        out.feed(rank, 1, b"out\n", 0.0)
    told = [json.loads(line) for line in file.data.splitlines()]
    assert [(each["rank"], each["node"], each["stream"]) for each in told] == [
        (0, "host-a", "stderr"),
        (1, "host-b", "stderr"),
    ]
