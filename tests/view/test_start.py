"""The live view of a start, on a real terminal: it shows what the ranks say, gives way to their lines, and leaves nothing."""

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from tests.terminal import CTRL_Z, Terminal
from tests.view.stage import HEADING, Stage, frame, has, has_frame, has_no_frame

WAIT = ("--ready-timeout", "600")
OVER = "rankguard: exit 0 succeeded run=N"


def test_a_start_from_the_first_status_to_the_last_line(tmp_path: Path) -> None:
    with Stage(tmp_path, 4, *WAIT) as stage:
        stage.act(0, "notify('STATUS=loading weights\\nX_RANKGUARD_PROGRESS=12/30 shards')")
        stage.act(1, "notify('READY=1')")
        rows = frame(stage.expect(has_frame("loading weights", "after")))

        assert re.fullmatch(r"   0  starting  loading weights +━━━━──────   40 % +\d+\.\d", rows[1])
        assert re.fullmatch(r"   1  ready     after \d+\.\d s +\d+\.\d", rows[2])
        assert re.fullmatch(r"   2  starting +\d+\.\d", rows[3])
        assert re.fullmatch(r"1 of 4 ready · \d+ s · memory \d+\.\d of \d+\.\d GiB  ━━━━━━─{18}", rows[-1])
        assert len(rows) == 6

        stage.act(3, "say('a line of mine\\n')")
        rows = stage.expect(has_frame_below("[3] a line of mine"))
        assert rows.count("[3] a line of mine") == 1

        for rank in (0, 2, 3):
            stage.act(rank, "notify('READY=1')")
        stage.expect(has_no_frame("all 4 ranks ready"))
        stage.act(2, "say('at work\\n')")
        stage.expect(has("[2] at work"))
        assert stage.close() == 0

        expected = [
            "[3] a line of mine",
            "rankguard: all 4 ranks ready in N s (rank R last, +N s)",
            "[2] at work",
            OVER,
        ]
        assert [re.sub(r"rank \d last", "rank R last", row) for row in stage.told()] == expected


def has_frame_below(text: str):
    """A whole table, and the line above it."""
    return lambda rows: bool(frame(rows)) and text in rows[: rows.index(frame(rows)[0])]


def test_lines_beyond_the_screen_scroll_away_whole(tmp_path: Path) -> None:
    with Stage(tmp_path, 2, *WAIT) as stage:
        stage.expect(has_frame())
        for n in range(60):
            stage.act(n % 2, f"say('line {n:02}\\n')")
        stage.expect(lambda rows: bool(frame(rows)) and len(rows) >= 23)
        stage.all("notify('READY=1')")
        stage.terminal.expect("all 2 ranks ready")  # lines may come after it, and take it off the screen
        stage.close()

        told = stage.told()
        lines = sorted(row for row in told if " line " in row)
        assert lines == sorted(f"[{n % 2}] line {n:02}" for n in range(60))
        assert len(told) == 62


def test_a_window_made_narrow_and_wide_again(tmp_path: Path) -> None:
    with Stage(tmp_path, 3, *WAIT) as stage:
        stage.act(0, "say('first\\n'); notify('STATUS=loading a shard with a long name\\nX_RANKGUARD_PROGRESS=1/2')")
        wide = frame(stage.expect(has_frame("loading a shard")))
        stage.terminal.resize(24, 60)
        narrow = stage.expect(has_frame("loading a sh", "50 %"))
        narrow = stage.expect(lambda rows: bool(frame(rows)) and max(map(len, frame(rows))) < 60)
        stage.terminal.resize(24, 80)
        again = stage.expect(lambda rows: bool(frame(rows)) and len(frame(rows)[0]) == len(wide[0]))
        stage.all("notify('READY=1')")
        stage.close()

        assert max(map(len, frame(narrow))) < 60
        assert again[0] == "[0] first"
        assert [row for row in stage.told() if "ready" not in row] == ["[0] first", OVER]


def test_a_window_too_low_for_all_ranks(tmp_path: Path) -> None:
    with Stage(tmp_path, 12, *WAIT, rows=24) as stage:
        assert len(frame(stage.expect(has_frame()))) == 14
        stage.terminal.resize(12, 80)
        rows = stage.expect(has_frame("and "))
        assert len(frame(rows)) <= 12 - 5
        stage.terminal.resize(5, 80)
        stage.expect(has_no_frame())
        stage.terminal.resize(24, 80)
        stage.expect(lambda rows: len(frame(rows)) == 14)


def test_64_ranks_are_told_in_a_few_lines(tmp_path: Path) -> None:
    program = tmp_path / "mixed.sh"
    program.write_text(f'#!/bin/sh\n[ $RANK -lt 62 ] || exec python3 {tmp_path}/puppet.py "$1"\nread x < "$1/$RANK"\n')
    program.chmod(0o755)
    with Stage(tmp_path, 64, *WAIT, "--no-python", program=str(program)) as stage:
        stage.act(62, "notify('READY=1')")
        stage.act(63, "notify('X_RANKGUARD_PROGRESS=9/10')")
        rows = frame(stage.expect(has_frame("1 of 64 ready", "1 ready")))

        assert len(rows) == 1 + 8 + 1 + 1
        assert rows[-2] == "and 56 more: 1 ready, 55 starting"
        assert [row[:16] for row in rows[1:3]] == ["   0  starting  ", "   1  starting  "]
        assert not any(row.startswith("  63") for row in rows)  # it is further than the others


def test_a_failure_takes_it_away(tmp_path: Path) -> None:
    with Stage(tmp_path, 3, *WAIT) as stage:
        stage.act(1, "notify('STATUS=about to fail')")
        stage.expect(has_frame("about to fail"))
        stage.act(1, "say('goodbye\\n', 2); raise SystemExit(3)")
        assert stage.terminal.wait() == 3
        told = stage.told()

        assert not any(row.startswith((HEADING, "   0  ")) or " of 3 ready ·" in row for row in told)
        assert told[:2] == ["[1] goodbye", told[1]]
        assert told[1].startswith("error: rank 1 of 3 ended with exit code 3 while starting")


def test_ranks_that_say_nothing_get_one_line_until_the_first_output(tmp_path: Path) -> None:
    with Stage(tmp_path, 2) as stage:
        rows = stage.expect(has("2 ranks running, no output yet · "))
        assert len(rows) == 1
        stage.act(1, "say('step 1\\n')")
        stage.expect(lambda rows: rows == ["[1] step 1"])
        assert stage.close() == 0
        assert stage.told() == ["[1] step 1", OVER]


def test_it_comes_when_a_rank_speaks_later(tmp_path: Path) -> None:
    with Stage(tmp_path, 2) as stage:
        stage.expect(has("no output yet"))
        stage.act(0, "say('importing\\n')")
        stage.expect(lambda rows: rows == ["[0] importing"])
        stage.act(1, "notify('STATUS=compiling kernels')")
        rows = stage.expect(has_frame("compiling kernels"))
        assert rows[-1].startswith("2 ranks running · ")
        stage.act(1, "notify('READY=1')")
        stage.expect(has_frame("1 of 2 ready"))
        stage.act(0, "notify('READY=1')")
        assert stage.close() == 0
        assert [row for row in stage.told() if "ready" not in row] == ["[0] importing", OVER]


# ── Lines without their end ──────────────────────────────────────────────────────────────────────────────────────────


def test_half_a_line_stands_above_it(tmp_path: Path) -> None:
    with Stage(tmp_path, 2, *WAIT) as stage:
        stage.expect(has_frame())
        stage.act(1, "say('half')")
        stage.expect(has_frame_below("[1] half"))
        stage.act(1, "say(' and the rest\\n')")
        stage.expect(has_frame_below("[1] half and the rest"))
        stage.all("notify('READY=1')")
        stage.close()
        assert [row for row in stage.told() if "ready" not in row] == ["[1] half and the rest", OVER]


def test_a_progress_bar_of_a_rank_stands_above_it(tmp_path: Path) -> None:
    with Stage(tmp_path, 2, *WAIT) as stage:
        stage.expect(has_frame())
        for percent in (10, 20, 30):
            stage.act(1, f"say('\\rshards: {percent} %')")
            stage.expect(has_frame_below(f"[1] shards: {percent} %"))
        stage.act(1, "say('\\rshards: 100 %\\n'); notify('READY=1')")
        stage.act(0, "notify('READY=1')")
        stage.close()
        assert [row for row in stage.told() if "ready" not in row] == ["[1] shards: 100 %", OVER]


def test_a_question_keeps_it_away_until_it_is_answered(tmp_path: Path) -> None:
    with Stage(tmp_path, 2, *WAIT) as stage:
        stage.expect(has_frame())
        stage.act(0, "say('name? '); name = sys.stdin.readline().strip(); say(f'hello {name}\\n')")
        stage.expect(lambda rows: rows == ["[0] name?"] and stage.terminal.cursor() == (0, len("[0] name? ")))
        stage.terminal.send("bob\n")
        rows = stage.expect(lambda rows: has_frame("0 of 2 ready")(rows) and has("hello bob")(rows))
        assert rows[0] == "[0] name? bob"
        assert "hello bob" in rows[1]


# ── What must not happen ─────────────────────────────────────────────────────────────────────────────────────────────


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    with Stage(tmp_path, 5, *WAIT) as stage:
        stage.act(0, "notify('STATUS=\\x1b[2J\\x1b]0;title\\x07\\x1b[?25l\\x1b[31mred')")
        stage.act(1, "notify(b'STATUS=' + b'\\xff\\xfe\\x9b31m' + '\\u202egnitset\\u2028'.encode())")
        stage.act(2, "notify('STATUS=' + 'w' * 10000)")
        stage.act(3, "notify('STATUS=' + '\\u6f22' * 3000)")
        stage.act(4, "notify('STATUS=a' + '\\u0301' * 5000 + '\\nX_RANKGUARD_PROGRESS=-3/0')")
        rows = frame(stage.expect(has_frame("www", "漢", "\\x1b[2J")))

        assert len(rows) == 7
        assert max(map(len, rows)) <= 80
        assert [row[:6] for row in rows[1:-1]] == [f"   {rank}  " for rank in range(5)]
        for bad in (b"\x1b[2J", b"\x1b]0;", b"\x1b[?25l", b"\x9b31m", "\u202e".encode()):
            assert bad not in stage.terminal.output
        assert stage.terminal.output.count("\u0301".encode()) < 200


def test_nothing_but_erase_line_and_cursor_up_is_used(tmp_path: Path) -> None:
    with Stage(tmp_path, 2, *WAIT) as stage:
        stage.expect(has_frame())
        stage.all("notify('READY=1')")
        stage.close()
        used = set(re.findall(rb"\x1b\[[0-9;?]*([A-Za-z])", stage.terminal.output))
        assert used == {b"K", b"A", b"m"}


def test_a_front_that_is_killed_leaves_a_clean_terminal(tmp_path: Path) -> None:
    with Stage(tmp_path, 2, *WAIT) as stage:
        stage.act(0, "say('alive\\n')")
        stage.expect(has_frame_below("[0] alive"))
        os.kill(stage.terminal.pid, signal.SIGKILL)
        stage.terminal.read_until_closed()

        assert stage.told() == ["[0] alive"]
        assert stage.terminal.cursor() == (1, 0)


def test_a_terminal_that_nobody_reads_gets_every_line_in_the_end(tmp_path: Path) -> None:
    with Stage(tmp_path, 2, *WAIT) as stage:
        stage.expect(has_frame())
        done = tmp_path / "done"
        os.mkfifo(done)
        wait = os.open(done, os.O_RDWR)
        # Many times what a terminal's buffer holds (4 KiB): from here on nothing is read until both have said all.
        stage.all("[say(f'{i:06} ' + 'x' * 50 + '\\n') for i in range(500)]; notify('READY=1')")
        stage.all(f"os.write(os.open({str(done)!r}, os.O_WRONLY), b'x')")
        assert len(os.read(wait, 1) + os.read(wait, 1)) == 2
        os.close(wait)
        stage.terminal.expect("all 2 ranks ready")  # lines may come after it, and take it off the screen
        stage.close()

        told = stage.told()
        for rank in (0, 1):
            mine = [row for row in told if row.startswith(f"[{rank}] ")]
            assert mine == [f"[{rank}] {n:06} " + "x" * 50 for n in range(500)]
        assert len(told) == 1002


def test_stdout_in_a_file_has_the_ranks_lines_and_no_more(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Stage(tmp_path, 2, *WAIT, shell=f"{{}} > {out}") as stage:
        stage.expect(has_frame())
        stage.act(0, "say('to stdout\\n'); say('to stderr\\n', 2)")
        stage.expect(has_frame_below("[0] to stderr"))
        stage.all("notify('READY=1')")
        assert stage.close() == 0

        assert out.read_text() == "[0] to stdout\n"
        assert [row for row in stage.told() if "ready" not in row] == ["[0] to stderr", OVER]


@pytest.mark.slow
def test_in_the_background_there_is_none_until_fg(tmp_path: Path) -> None:
    with Stage(tmp_path, 2, *WAIT, shell="set -m; {} & read; fg") as stage:
        # In the foreground it would be there half a second after the launch: 1.5 s after that the first look is past.
        stage.act(0, "import time; time.sleep(1.5); say('up\\n')")
        stage.expect(has("[0] up"))
        assert b"rank  phase" not in stage.terminal.output
        stage.terminal.send("\n")
        stage.expect(has_frame())


def test_ctrl_z_takes_it_away_and_fg_brings_it_back(tmp_path: Path) -> None:
    with Stage(tmp_path, 2, *WAIT, shell="set -m; {}; echo the shell is back; read; fg") as stage:
        stage.act(0, "say('up\\n')")
        stage.expect(has_frame_below("[0] up"))
        stage.terminal.send(CTRL_Z)
        rows = stage.expect(has_no_frame("the shell is back"))
        assert rows[0] == "[0] up"
        stage.terminal.send("\n")
        stage.expect(has_frame_below("[0] up"))
        stage.all("notify('READY=1')")
        assert stage.close() == 0
        stopped = [row for row in stage.told() if "rankguard run" not in row and "ready" not in row]
        assert stopped[:2] == ["[0] up", stopped[1]]
        assert [row for row in stage.told() if row.startswith(("rank  ", "   0", "   1")) or " ready · " in row] == []


def test_a_locale_without_utf_8_gets_ascii(tmp_path: Path) -> None:
    with Stage(tmp_path, 2, *WAIT, env={"LC_ALL": "C"}) as stage:
        stage.act(0, "notify('STATUS=h\\u00e9llo\\nX_RANKGUARD_PROGRESS=1/2')")
        rows = frame(stage.expect(has_frame("50 %")))
        assert "h?llo" in rows[1]
        assert "#####-----" in rows[1]
        assert "".join(rows).isascii()


def test_a_rich_that_cannot_be_imported_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "rich"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('of another time')")
    with Stage(tmp_path, 2, *WAIT, env={"PYTHONPATH": str(broken.parent)}) as stage:
        # Half a second after the launch it would be imported: 1.5 s after a rank has begun that is past.
        stage.all("import time; time.sleep(1.5); notify('READY=1')")
        stage.expect(has("all 2 ranks ready"))
        assert stage.close() == 0
        assert b"\x1b[1A" not in stage.terminal.output


# ── Where there is none ──────────────────────────────────────────────────────────────────────────────────────────────

ASKS = """
import json, os, sys
from rankguard.cli.arguments import parse
from rankguard.cli.plan import plan
from rankguard.cli.front.view import view
asked = parse(sys.argv[2:], os.environ)
with open(sys.argv[1], "w") as told:
    json.dump(view(asked, plan(asked)[0], 0.0, print, os.environ) is not None, told)
"""


@pytest.mark.parametrize(
    ("words", "env", "expected"),
    [
        ((), {}, True),
        (("-q",), {}, False),
        (("--no-color",), {}, False),
        (("--report", "json"), {}, False),
        (("--report", "none"), {}, False),
        (("--log-format", "json"), {}, False),
        (("--debug", "0"), {}, False),
        ((), {"NO_COLOR": "1"}, False),
        ((), {"TERM": "dumb"}, False),
        ((), {"TERM": ""}, False),
        ((), {"CI": "true"}, False),
        ((), {"CI": "false"}, True),
    ],
)
def test_who_gets_a_view(tmp_path: Path, words: tuple[str, ...], env: dict[str, str], expected: bool) -> None:
    assert asked(tmp_path, words, env) is expected


@pytest.mark.parametrize(
    ("where", "expected"), [("> out", True), ("> /dev/null", True), ("| cat", False), ("2> out", False), ("2>&1", True)]
)
def test_where_stdout_and_stderr_go(tmp_path: Path, where: str, expected: bool) -> None:
    """`| tee log` writes to the same terminal, and we would not know where the cursor is."""
    assert asked(tmp_path, (), {}, where) is expected


def asked(folder: Path, words: tuple[str, ...], env: dict[str, str], where: str = "") -> bool:
    """Whether a job with these words has a view, as told by a process on a real terminal."""
    program = folder / "asks.py"
    program.write_text(ASKS)
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI")}
    told = folder / "told"
    line = " ".join([sys.executable, str(program), str(told), *words, "--run-dir", f"{folder}/run", "/bin/true", where])
    with Terminal("bash", "-c", line, env=kept | {"TERM": "xterm"} | env, cwd=folder) as terminal:
        assert terminal.wait() == 0
    return bool(json.loads(told.read_text()))
