"""From bytes to lines, JSON objects and files: the same however the bytes were cut into reads, and nothing is lost."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rankguard.report import lines as lines_module
from rankguard.report.jsonlines import LARGEST, JsonLines, message
from rankguard.report.lines import LONGEST, Lines
from rankguard.report.logfile import LogFile
from rankguard.report.ranklog import RankLog

CHUNKS = st.lists(
    st.one_of(
        st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bar 10%", "é".encode(), b"\xc3", b"\xf0\x9f", b"\x1b[31m", b"\0"]),
        st.binary(max_size=12),
    ),
    max_size=30,
)  # fmt: skip


def fed(chunks: list[bytes]) -> list[bytes]:
    splitter = Lines()
    parts = [part for chunk in chunks for part in splitter.feed(chunk)]
    rest = splitter.rest()
    return b"".join([*parts, rest]).split(b"\n")


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"a\nb", b"c\n"], [b"a", b"bc", b""]),
        ([b"caf\xc3", b"\xa9\n"], ["café".encode(), b""]),
        ([b"1%\r2%", b"\r3%\n"], [b"3%", b""]),
        ([b"no end"], [b"no end"]),
        ([b"dos\r\n", b"more\r", b"\n"], [b"dos", b"more", b""]),
        ([b"50%\r"], [b"50%"]),
    ],
)
def test_bytes_to_lines(pieces: list[bytes], lines: list[bytes]) -> None:
    assert fed(pieces) == lines


@given(CHUNKS)
@example([b"a\r", b"\r", b"\nb"])
def test_any_split_gives_the_same_lines(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)

    assert fed(chunks) == fed([whole]) == fed([whole[n : n + 1] for n in range(len(whole))])
    if b"\r" not in whole:
        assert fed(chunks) == whole.split(b"\n")


@given(CHUNKS, st.integers(4, 30))
@example(["0ü0".encode(), b"0"], 4)
@example([b"aaaa\r", b"b"], 4)
def test_lines_that_are_too_long_come_in_pieces_that_do_not_depend_on_the_split(
    chunks: list[bytes], longest: int
) -> None:
    whole = b"".join(chunks)
    before, lines_module.LONGEST = LONGEST, longest
    try:
        several, one, bytewise = Lines(), Lines(), Lines()
        parts = [part for chunk in chunks for part in several.feed(chunk)] + [several.rest()]
        parts_of_one = [*one.feed(whole), one.rest()]
        parts_of_bytes = [p for n in range(len(whole)) for p in bytewise.feed(whole[n : n + 1])] + [bytewise.rest()]
    finally:
        lines_module.LONGEST = before

    assert _pieces(parts) == _pieces(parts_of_one) == _pieces(parts_of_bytes)
    if b"\r" not in whole:
        assert b"".join(parts) == whole


def _pieces(parts: list[bytes]) -> list[bytes]:
    """Whole lines may come in one part or in several; pieces of a line come alone."""
    return [piece for part in parts for piece in re.findall(rb"[^\n]+\n?|\n", part)]


def test_a_long_line_is_cut_between_characters() -> None:
    splitter = Lines()
    text = "é" * LONGEST

    parts = [part for n in range(0, 2 * LONGEST, 10_001) for part in splitter.feed(text.encode()[n : n + 10_001])]

    assert "".join(part.decode() for part in [*parts, splitter.rest()]) == text
    assert len(parts) >= 1


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def objects(chunks: list[bytes], ascii_only: bool) -> list[dict]:
    made, splitter = JsonLines(3, 'host "a"', "stderr", ascii_only), Lines()
    said = b"".join(made.lines(part, 1_790_000_000.25) for chunk in chunks for part in splitter.feed(chunk))
    rest = splitter.rest()
    if rest:
        said += made.lines(rest + b"\n", 1_790_000_000.25)
    assert not said or said.endswith(b"\n")
    assert all(len(line) < LARGEST for line in said.split(b"\n"))
    if ascii_only:
        assert not re.search(rb"[^\n\x20-\x7e]", said)
    return [json.loads(line) for line in said.splitlines()]


@given(CHUNKS, st.booleans())
def test_any_bytes_are_valid_json(chunks: list[bytes], ascii_only: bool) -> None:
    told = objects(chunks, ascii_only)

    assert told == objects([b"".join(chunks)], ascii_only)
    lines = fed(chunks)
    assert [o["line"] for o in told] == [line.decode(errors="backslashreplace") for line in lines[: len(told)]]
    assert {json.dumps({k: v for k, v in o.items() if k != "line"}) for o in told} <= {
        json.dumps({"ts": "2026-09-21T14:13:20.250000Z", "rank": 3, "node": 'host "a"', "stream": "stderr"})
    }


@pytest.mark.parametrize("text", [b"x" * 50_000, b"\0" * 9_000, "€".encode() * 700_000, b"\xff" * 20_000])
def test_a_long_line_comes_in_parts_that_a_container_runtime_does_not_cut(text: bytes) -> None:
    told = objects([text + b"\nshort\n"], False)

    *parts, short = told
    assert "part" not in short
    assert [o["part"] for o in parts] == list(range(1, len(parts) + 1))
    assert [o.get("last") for o in parts] == [None] * (len(parts) - 1) + [True]
    assert "".join(o["line"] for o in parts) == text.decode(errors="backslashreplace")
    cut = [text[n : n + 7_777] for n in range(0, len(text), 7_777)]
    assert objects([*cut, b"\nshort\n"], False) == told


def test_a_line_that_just_fits_has_no_part() -> None:
    assert "part" not in objects([b"x" * 16_000 + b"\n"], False)[0]


def test_a_line_of_our_own() -> None:
    assert json.loads(message("warning", "a\x1b", 0.5)) == {
        "ts": "1970-01-01T00:00:00.500000Z", "level": "warning", "message": "a\x1b",
    }  # fmt: skip


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def kept(path: Path, chunks: list[bytes], limit: int = 1 << 20) -> bytes:
    log = RankLog(str(path), limit)
    for chunk in chunks:
        log.write(chunk)
    log.close()
    log.file.finish()
    return path.read_bytes() if path.exists() else b""


@settings(max_examples=60)
@given(CHUNKS)
@example([b"10%", b"\r5%"])
@example([b"a\r", b"\n"])
def test_of_a_bar_the_file_keeps_the_last_state_and_of_the_rest_every_byte(
    chunks: list[bytes],
) -> None:
    whole = b"".join(chunks)

    with TemporaryDirectory() as folder:
        in_file = kept(Path(folder) / "log", chunks)
        assert in_file == kept(Path(folder) / "whole", [whole])

    assert [line.rstrip(b"\r") for line in in_file.split(b"\n")] == fed([whole])
    if b"\r" not in whole.replace(b"\r\n", b""):
        assert in_file == whole


def test_a_bar_is_in_the_file_while_it_moves(tmp_path: Path) -> None:
    log = RankLog(str(tmp_path / "log"), 1000)
    seen = []
    for state in (b"one\n", b"\rloading 100 of 200", b"\rloading 101", b"\r", b"\rx", b"\ndone"):
        log.write(state)
        seen.append((tmp_path / "log").read_bytes())

    assert seen == [
        b"one\n", b"one\nloading 100 of 200", b"one\nloading 101", b"one\nloading 101", b"one\nx", b"one\nx\ndone",
    ]  # fmt: skip


@pytest.mark.parametrize("keep_open", [True, False])
@pytest.mark.parametrize("written", [0, 10, 99, 100, 101, 250, 1_000, 12_345])
@pytest.mark.parametrize("step", [7, 99, 100_000])
def test_of_a_long_log_the_first_quarter_and_the_last_three_are_kept(
    tmp_path: Path, written: int, keep_open: bool, step: int
) -> None:
    log = LogFile(str(tmp_path / "log"), 100, keep_open)
    everything = bytes(b"0123456789abcdefghijklmnopqrstuvwxyz"[i % 36] for i in range(written))
    for start in range(0, written, step):
        log.write(everything[start : start + step])
    log.close()
    log.finish()

    in_file = (tmp_path / "log").read_bytes() if written else b""
    if written <= 100:
        assert in_file == everything
    else:
        said = f"\n[rankguard: {written - 100} bytes left out here (--log-max 100)]\n".encode()
        assert in_file == everything[:25] + said + everything[-75:]


@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 60)), max_size=30), st.integers(40, 400))
def test_what_is_taken_back_leaves_a_log_in_order(writes: list[tuple[bytes, int]], limit: int) -> None:
    stream = b""
    with TemporaryDirectory() as folder:
        log = LogFile(f"{folder}/log", limit)
        for data, wanted in writes:
            back = min(wanted, len(stream), log.can_go_back)
            stream = stream[: len(stream) - back] + data
            log.write(data, back)
        log.close()
        log.finish()
        in_file = Path(log.path).read_bytes() if any(data for data, _back in writes) else b""

    if b"[rankguard: " not in in_file:
        assert in_file == stream
    else:
        first, _said, last = in_file.partition(b"\n[rankguard: ")
        assert first == stream[: limit // 4]
        assert stream.endswith(last.partition(b"]\n")[2])


@pytest.mark.parametrize("written", [150, 300, 500, 1_000, 1_203])
def test_a_log_that_was_cut_off_says_where_it_goes_on(tmp_path: Path, written: int) -> None:
    """Nobody calls `finish`: the supervisor was killed."""
    log = LogFile(str(tmp_path / "log"), 100)
    everything = b"".join(b"%04d " % n for n in range(written // 5))
    for start in range(0, len(everything), 33):
        log.write(everything[start : start + 33])

    in_file = (tmp_path / "log").read_bytes()

    seam = re.compile(rb"\n\[rankguard: the job was cut off[^]]*first 25 bytes of this file\]\n")
    ring = in_file[25:]
    doubled = ring + ring  # the seam itself may go round
    found = seam.search(doubled)
    assert found is not None
    newest = doubled[: found.start()][-75:] if found.start() >= 75 else doubled[: found.start()]
    assert newest
    assert everything.endswith(newest)
    assert in_file[:25] == everything[:25]


def test_a_log_that_cannot_be_written_hurts_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = LogFile(str(tmp_path / "file" / "log"), 100)

    log.write(b"lost\n")
    log.close()
    log.finish()

    assert (log.lost, log.lost_lines, log.error) == (5, 1, "File exists")


def test_what_is_missing_in_a_log_is_marked_where_it_is_missing(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    log = LogFile(str(tmp_path / "folder" / "log"), 1000)
    log.write(b"lost\n")
    (tmp_path / "folder").unlink()

    log.write(b"kept\n")
    log.close()

    assert Path(log.path).read_bytes() == b"\n[rankguard: 5 bytes are missing here: File exists]\nkept\n"
