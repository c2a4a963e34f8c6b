"""What ranks print: whole lines, nothing lost to a slow reader, nothing held up by one that is gone, every loss counted."""

import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pyte
import pytest
from tests.run.command import Ranks

FLOOD = "n = int(sys.argv[1])\nfor _ in range(n): os.write(1, (b'x' * 59 + b'\\n') * 1000)\nopen(sys.argv[2] + str(RANK), 'w').write('done')"


class OnTerminal:
    """A job whose three streams are a terminal of so many columns. `read` is to be called until the end."""

    def __init__(self, words: list[str], columns: int = 80, **env: str) -> None:
        self.ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, columns))
        self.data = b""
        self._columns = columns
        self.job = subprocess.Popen(
            words,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm-256color", "CI": "1"} | env,
        )
        os.close(theirs)

    def read_until(self, text: bytes) -> None:
        while text not in self.data:
            assert self._read(), self.data

    def finish(self) -> int:
        while self._read():
            pass
        os.close(self.ours)
        return self.job.wait(30)

    def _read(self) -> bool:
        try:
            data = os.read(self.ours, 65536)
        except OSError:
            data = b""
        self.data += data
        return bool(data)

    @property
    def lines(self) -> list[str]:
        screen = pyte.Screen(self._columns, 40)
        pyte.ByteStream(screen).feed(self.data)
        return [line.rstrip() for line in screen.display if line.strip()]


def warnings(folder: Path) -> list[str]:
    return list(json.loads((folder / "verdict.json").read_text())["warnings"])


# ── Lines ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_of_several_ranks_are_never_torn(ranks: Ranks) -> None:
    text = "for i in range(2000): sys.stdout.write(f'{RANK} {i} é' + 'x' * 200 + '\\n'); i % 7 or sys.stdout.flush()"

    ended = ranks.run(4, text, env=os.environ | {"PYTHONIOENCODING": "utf-8"})

    lines = ended.stdout.splitlines()
    assert len(lines) == 8000
    assert all(line == f"[{line[1]}] {line[4]} {line.split()[2]} é" + "x" * 200 for line in lines)


def test_both_streams_in_one_pipe_are_never_torn(ranks: Ranks) -> None:
    text = "for i in range(3000): os.write(1 + i % 2, b'%d' % RANK * 2000 + b'\\n')"

    ended = ranks.run(2, text, capture_output=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    lines = ended.stdout.splitlines()
    assert sorted(set(lines[:-1])) == ["[0] " + "0" * 2000, "[1] " + "1" * 2000]
    assert len(lines) == 6001


def test_one_rank_alone_is_shown_as_it_is(ranks: Ranks) -> None:
    """Ten megabytes in one line, NUL bytes, colours, broken UTF-8: what is not a terminal gets them unchanged."""
    text = "os.write(1, b'\\0\\x1b[31m\\xff\\n'); sys.stdout.write('x' * 10_000_000 + '\\n')"
    run_dir = ranks.next_dir()

    ended = subprocess.run(
        ranks.command("--run-dir", str(run_dir), ranks.program(text)), capture_output=True, timeout=60, check=True
    )

    wanted = b"\0\x1b[31m\xff\n" + b"x" * 10_000_000 + b"\n"
    assert ended.stdout == wanted
    assert (run_dir / "rank-0/attempt-0/stdout.log").read_bytes() == wanted


def test_a_progress_bar_leaves_its_last_state(ranks: Ranks) -> None:
    ended = ranks.run(1, "for n in (1, 2, 3): os.write(1, b'\\r%d/3' % n)\nos.write(1, b'\\ndos\\r\\n')")

    assert ended.stdout == "3/3\ndos\n"
    assert (ended.folder / "rank-0/attempt-0/stdout.log").read_bytes() == b"3/3\ndos\r\n"


def test_the_prefix_template_and_who_is_shown(ranks: Ranks) -> None:
    text = "print('x')\nprint('y', file=sys.stderr)"

    words = ["--log-line-prefix-template", "<${role_name}${rank}> ", "--role", "t", "-r", "0:1", "--report", "none"]
    ended = ranks.run(3, text, *words, "--local-ranks-filter", "0,2")
    one = ranks.run(3, text, "--local-ranks-filter", "1", "--report", "none")

    assert (ended.stdout, sorted(ended.stderr.splitlines())) == ("<t2> x\n", ["<t0> y", "<t2> y"])
    assert (one.stdout, one.stderr) == ("x\n", "y\n")
    assert (one.folder / "rank-2/attempt-0/stdout.log").read_text() == "x\n"


def test_filtered_files(ranks: Ranks) -> None:
    text = "print(f'loss {RANK}', 'x' * RANK * 300_000)\nprint('step')\nprint('a,b', file=sys.stderr)"

    ended = ranks.run(
        2, text, "--duplicate-stdout-filters", "loss,nothing", "--duplicate-stderr-filters", "a,,b", "--log-max", "0"
    )

    lines = sorted((ended.folder / "filtered_stdout.log").read_text().splitlines())
    assert [line[:12] for line in lines] == ["[0] loss 0 ", "[1] loss 1 x"]
    assert sorted((ended.folder / "filtered_stderr.log").read_text().splitlines()) == ["[0] a,b", "[1] a,b"]
    assert not (ended.folder / "rank-0").exists()


def test_what_a_grandchild_prints_after_its_rank_is_shown(ranks: Ranks) -> None:
    """Rank 0 ends at once and leaves a child with its pipe, which prints when rank 1 says so; nobody waits for it."""
    fifo = ranks.folder / "fifo"
    os.mkfifo(fifo)
    text = """
if RANK == 0:
    if os.fork() == 0:
        open(sys.argv[1]).read()
        print("late", flush=True)
        signal.signal(15, signal.SIG_IGN)
        open(sys.argv[1], "w").write("x")
        signal.pause()
else:
    open(sys.argv[1], "w").write("x")
    open(sys.argv[1]).read()
"""

    ended = ranks.run(2, text, "--grace", "0.2", args=(str(fifo),))

    assert ended.stdout == "[0] late\n"
    assert ended.verdict["outcome"] == "succeeded"


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_everything_that_a_collector_reads_is_json(ranks: Ranks) -> None:
    fifo = ranks.folder / "fifo"
    os.mkfifo(fifo)
    text = """
os.write(1, b"\\xff\\x1b[2J" + b"y" * 40_000 + b"\\n")
print("half", end="", file=sys.stderr)
open(sys.argv[1], "r" if RANK else "w").close()
RANK and 1 / 0
"""

    ended = ranks.run(2, text, "--log-format", "json", "--monitor-interval", "1", args=(str(fifo),))

    out = [json.loads(line) for line in ended.stdout.splitlines()]
    err = [json.loads(line) for line in ended.stderr.splitlines()]
    for rank in (0, 1):
        parts = [o for o in out if o["rank"] == rank]
        assert "".join(o["line"] for o in parts) == "\\xff\x1b[2J" + "y" * 40_000
        assert [(o["stream"], o["part"], o.get("last")) for o in parts] == [
            ("stdout", 1, None), ("stdout", 2, None), ("stdout", 3, True),
        ]  # fmt: skip
    assert {(o["stream"], o["line"]) for o in err if o.get("rank") == 0} == {("stderr", "half")}
    assert [o["level"] for o in err if "level" in o][-1] == "error"
    assert err[-1]["message"].startswith("rankguard: exit 1 exception proven rank=1 ")
    assert err[-1]["report"].startswith("error: rank 1 of 2 raised ZeroDivisionError")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", o["ts"]) for o in out + err)


# ── A terminal ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_prompt_is_shown_before_its_line_ends(ranks: Ranks) -> None:
    """On a terminal, rank 0 reads our stdin: the answer can only come once the question is seen."""
    program = ranks.program("print('you said', input('name? '))")
    terminal = OnTerminal(ranks.command("--run-dir", str(ranks.next_dir()), program))

    terminal.read_until(b"name? ")
    os.write(terminal.ours, b"ada\n")
    terminal.read_until(b"you said ada")

    assert terminal.finish() == 0


HOSTILE = rb"\x1b[2J\x1b[?1049h\x1b]0;title\x07\x1b[6n\x1b[c\x1bP+q544e\x1b\\\x9b5i\x1b]52;c;AAAA\x07\x08\x08\x1bc"


def test_nobody_else_commands_the_terminal(ranks: Ranks) -> None:
    program = ranks.program(
        f"os.write(1 + RANK, b'{HOSTILE.decode()}' + b'\\x1b[1;31mred\\nstill red\\x1b[0m plain' + b'\\xc2' + b'\\n')"
        "\nopen(sys.argv[1], 'r' if RANK else 'w').close()\nRANK and os.kill(os.getpid(), 9)"
    )
    run_dir, fifo = ranks.next_dir(), ranks.folder / "fifo"
    os.mkfifo(fifo)
    terminal = OnTerminal(ranks.command("-n", "2", "--run-dir", str(run_dir), program, str(fifo)))

    assert terminal.finish() == 137

    assert not re.search(
        rb"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]", terminal.data.decode().encode("ascii", "ignore")
    )
    escapes = set(re.findall(rb"\x1b(?:\[[0-9;?]*[a-zA-Z]|.)", terminal.data))
    assert all(escape.endswith(b"m") for escape in escapes), escapes
    assert b"[0] \\x9b5i\\x08\\x08\x1b[1;31mred\x1b[0m\r\n" in terminal.data
    assert b"[0] \x1b[1;31mstill red\x1b[0m plain\\xc2\x1b[0m\r\n" in terminal.data
    hostile = b"\x1b[2J\x1b[?1049h"
    assert (run_dir / "rank-0/attempt-0/stdout.log").read_bytes().startswith(hostile)
    verdict = (run_dir / "verdict.json").read_bytes()
    assert b"\\u001b[2J" in verdict
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]", verdict)
    for words in (["report"], ["report", "--json"], ["explain"], ["runs"]):
        told = subprocess.run(
            [sys.executable, "-m", "rankguard", *words, *([str(run_dir)] if words != ["runs"] else [])],
            capture_output=True, check=False,
        )  # fmt: skip
        said = (told.stdout + told.stderr).decode()
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", said), words
    journal = (run_dir / "events.jsonl").read_bytes()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]", journal)


def test_bars_of_several_ranks_on_a_terminal(ranks: Ranks) -> None:
    """None comes to its end before more than one of them has been seen."""
    go = ranks.folder / "go"
    program = ranks.program(
        "for n in range(4): os.write(2, b'\\r%3d%% of rank %d' % (n * 25, RANK)); time.sleep(0.1)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        "os.write(2, b'\\r100%% of rank %d\\n' % RANK)"
    )
    terminal = OnTerminal(ranks.command("-n", "4", "--run-dir", str(ranks.next_dir()), program))
    terminal.read_until(b"+3 more")
    go.touch()

    assert terminal.finish() == 0

    *bars, last = terminal.lines
    assert sorted(bars) == [f"[{rank}] 100% of rank {rank}" for rank in range(4)]
    assert last.startswith("rankguard: exit 0")


def test_no_colour(ranks: Ranks) -> None:
    program = ranks.program("os.write(1, b'\\x1b[31mred\\x1b[0m\\n')")
    words = ranks.command("--run-dir", str(ranks.next_dir()), "--report", "none")

    with_option = OnTerminal([*words, "--no-color", program])
    with_variable = OnTerminal([*words[:-3], str(ranks.next_dir()), *words[-2:], program], NO_COLOR="1")

    assert (with_option.finish(), with_variable.finish()) == (0, 0)
    assert (with_option.data, with_variable.data) == (b"red\r\n", b"red\r\n")


# ── Readers that do not read ─────────────────────────────────────────────────────────────────────────────────────


def test_a_slow_reader_gets_everything(ranks: Ranks) -> None:
    """5 MB through a pipe of 64 KiB whose reader begins when the job has filled it."""
    program = ranks.program(
        "sys.stdout.write(('x' * 99 + '\\n') * 50_000); sys.stdout.flush(); print('end', file=sys.stderr)"
    )
    job = subprocess.Popen(
        ranks.command("--run-dir", str(ranks.next_dir()), program),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    assert job.stdout is not None
    fd, wanted = job.stdout.fileno(), 0
    while data := os.read(fd, 512):
        wanted += len(data)
    job.communicate()

    assert (job.returncode, wanted) == (0, 5_000_000)


def test_a_reader_that_is_gone_ends_nothing(ranks: Ranks) -> None:
    program = ranks.program(FLOOD)
    run_dir, done = ranks.next_dir(), ranks.folder / "done"
    command = ranks.command("--run-dir", str(run_dir), program, "100", str(done))

    head = subprocess.run(f"{' '.join(command)} | head -1", shell=True, capture_output=True, text=True, check=False)

    assert head.stdout == "x" * 59 + "\n"
    assert (ranks.folder / "done0").read_text() == "done"
    (said,) = warnings(run_dir)
    assert re.fullmatch(r"\d{5} lines of output \(\d{7} bytes\) were not shown on stdout: the reader is gone", said)
    assert said in head.stderr


@pytest.mark.slow
def test_a_terminal_that_is_stopped_holds_up_nobody_for_ever(ranks: Ranks) -> None:
    """Ctrl-S, and nobody comes back: the ranks go on after five seconds. 36 MB are more than all that is kept."""
    program = ranks.program(FLOOD)
    run_dir = ranks.next_dir()
    terminal = OnTerminal(
        ranks.command("-n", "2", "--run-dir", str(run_dir), program, "300", str(ranks.folder / "done"))
    )
    os.write(terminal.ours, b"\x13")

    assert terminal.job.wait(60) == 0

    assert sorted(path.name for path in ranks.folder.glob("done*")) == ["done0", "done1"]
    (said,) = warnings(run_dir)
    assert "were not shown on stdout and stderr: the reader was too slow" in said
    assert int(said.split()[0]) > 300_000
    assert (run_dir / "rank-1/attempt-0/stdout.log").stat().st_size == 18_000_000
    os.close(terminal.ours)


def test_a_full_disk_behind_stdout_ends_nothing(ranks: Ranks) -> None:
    with open("/dev/full", "wb") as full:
        done = str(ranks.folder / "done")
        ended = ranks.run(2, FLOOD, capture_output=False, stdout=full, stderr=subprocess.PIPE, args=("10", done))

    assert ended.status == 0
    assert ended.verdict["warnings"] == [
        "20000 lines of output (1280000 bytes) were not shown on stdout: No space left on device"
    ]


def test_closed_streams_end_nothing(ranks: Ranks) -> None:
    run_dir = ranks.next_dir()
    words = ranks.command("--run-dir", str(run_dir), ranks.program(FLOOD), "10", str(ranks.folder / "done"))

    ended = subprocess.run(f"exec {' '.join(words)} >&- 2>&-", shell=True, check=False)

    assert ended.returncode == 0
    assert (run_dir / "rank-0/attempt-0/stdout.log").stat().st_size == 600_000


def limit_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def test_logs_that_may_not_grow_hurt_no_rank(ranks: Ranks) -> None:
    """RLIMIT_FSIZE for us and all ranks: the console has everything, the files their beginning, the verdict the rest."""
    ended = ranks.run(2, FLOOD, args=("10", str(ranks.folder / "done")), preexec_fn=limit_files)

    assert (ended.status, ended.stdout.count("\n")) == (0, 20_000)
    *_early, said = ended.verdict["warnings"]
    lost = re.fullmatch(
        r"(\d+) lines of output \((\d+) bytes\) are not on disk: `(.*)` and 1 other: File too large", said
    )
    assert lost is not None, said
    kept = sum((ended.folder / f"rank-{rank}/attempt-0/stdout.log").stat().st_size for rank in (0, 1))
    assert 300_000 < kept <= 400_000
    assert int(lost[2]) >= 1_200_000 - kept
    assert said[:40] in ended.stderr


def test_a_full_disk_under_the_run_leaves_room_for_the_verdict(ranks: Ranks) -> None:
    """A tmpfs of 400 KB in a mount namespace of the job's own, and 1.2 MB of output."""
    disk, copy = ranks.folder / "disk", ranks.folder / "verdict"
    disk.mkdir()
    words = ranks.command("-n", "2", "--run-dir", f"{disk}/run", ranks.program(FLOOD), "10", str(ranks.folder / "done"))
    script = (
        f"mount -t tmpfs -o size=400k tmpfs {disk} || exit 77; {' '.join(words)}; cp {disk}/run/verdict.json {copy}"
    )

    ended = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)

    if ended.returncode == 77 or "unshare failed" in ended.stderr:
        pytest.skip("no mounts for this user")
    assert ended.stdout.count("\n") == 20_000
    told = json.loads(copy.read_text())
    assert told["outcome"] == "succeeded"
    assert any("are not on disk" in said and "No space left on device" in said for said in told["warnings"])


# ── Bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_bound_of_a_log(ranks: Ranks) -> None:
    text = "for n in range(20_000): os.write(1, b'%05d\\n' % n)"

    ended = ranks.run(1, text, "--log-max", "12000", "-q")

    kept = (ended.folder / "rank-0/attempt-0/stdout.log").read_text()
    head, said, tail = re.split(r"\n*(\[rankguard: .*\])\n", kept)
    assert head.split() == [f"{n:05}" for n in range(500)]
    assert said == "[rankguard: 108000 bytes left out here (--log-max 12000)]"
    assert tail.split() == [f"{n:05}" for n in range(18_500, 20_000)]
    assert ended.stdout.count("\n") == 20_000


def test_a_log_whose_writer_was_killed_says_in_which_order_it_is(ranks: Ranks) -> None:
    """The supervisor is SIGKILLed while the stream is longer than its bound."""
    run_dir = ranks.next_dir()
    program = ranks.program(
        "for n in range(3_000): os.write(1, b'%05d\\n' % n)\nos.write(2, b'now\\n')\nsignal.pause()"
    )
    job = subprocess.Popen(
        ranks.command("--run-dir", str(run_dir), "--log-max", "12000", program),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert job.stderr is not None
    log = run_dir / "rank-0/attempt-0/stdout.log"
    assert job.stderr.readline() == "now\n"
    shape = re.compile(
        r"((?:\d{5}\n){500})\d*\n((?:\d{5}\n)*)\n\[rankguard: the job was cut off.*first 3000 bytes of this file\]\n(.*)",
        re.DOTALL,
    )
    while not (log.exists() and (found := shape.fullmatch(log.read_text())) and found[2].endswith("02999\n")):
        assert job.poll() is None  # stdout's pipe is read in its own turn, and a file is not written in one stroke
    os.kill(_supervisor(job.pid), signal.SIGKILL)
    job.communicate()

    head, newest, oldest = shape.fullmatch(log.read_text()).groups()
    assert head.split()[0] == "00000"
    assert newest.split()[-1] == "02999"
    assert int(oldest.split()[2]) < int(newest.split()[0])


def _supervisor(front: int) -> int:
    """The front's child is the warden, the warden's the supervisor."""
    for _ in range(2):
        (front,) = map(int, Path(f"/proc/{front}/task/{front}/children").read_text().split())
    return front
