"""Every failing command as it looks: exit status, stdout, stderr. `UPDATE_GOLDEN=1 pytest tests/cli/test_messages.py`
writes the files anew; read the difference before you commit it.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.messages import BAD_VALUES, CASES, World

from rankguard import private
from rankguard.cli import main
from rankguard.cli.options import OPTIONS
from rankguard.cli.verbs import VERBS

SNAPSHOTS = Path(__file__).parent / "snapshots"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def shown(line: str, ended: subprocess.CompletedProcess[bytes], world: World) -> str:
    """The snapshot's text: what differs from run to run has one name."""
    parts = [f"$ {line!r}" if not line.isprintable() else f"$ {line}", f"exit {ended.returncode}"]
    for name, data in (("stdout", ended.stdout), ("stderr", ended.stderr)):
        if data:
            parts += [f"--- {name}", normal(data.decode(), world).rstrip("\n")]
    return "\n".join(parts) + "\n"


def normal(text: str, world: World) -> str:
    for path, name in ((world.work, "WORK"), (world.runs, "RUNS"), (world.folder, "HOME"), (sys.executable, "python")):
        text = text.replace(str(path), name)
    text = text.replace(os.uname().nodename, "host-a")
    text = re.sub(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", "2026-11-22 08:14:03", text)
    text = re.sub(r"\bpid \d+", "pid 40213", text)
    text = re.sub(r"\b\d+ lines? of output \(\d+ bytes\) w\w+", "N lines of output were", text)
    # What other jobs of this user leave in /dev/shm meanwhile is told too.
    text = re.sub(
        r"^note: left behind: .*\n|^  left    .*\n(?: {10}.*\n)*|; nothing left behind", "", text, flags=re.MULTILINE
    )
    text = re.sub(r"\b\d+(\.\d+)? (ms|s)\b", r"0.1 s", text)
    known = {path.name for path in world.runs.glob("*") if path.name in ("1a2b3c4d", "1a2bffff", "7f3a0001")}
    return re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8}\b", lambda m: m[0] if m[0] in known else "7f3a0000", text)


def compare(name: str, actual: str) -> None:
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(actual)
    assert path.exists(), f"there is no snapshot {path.name}: UPDATE_GOLDEN=1 writes it"
    assert path.read_text() == actual


def is_usage_alone(name: str) -> bool:
    """Nothing is prepared for it, and nothing is begun: then `main` in this process says the same, at a tenth of the cost."""
    path = SNAPSHOTS / f"{name}.txt"
    return CASES[name][1] is None and path.exists() and "\nexit 2\n" in path.read_text()


@pytest.mark.parametrize("name", CASES)
def test_message(name: str, world: World, monkeypatch, capsysbinary) -> None:
    line, setup = CASES[name]
    if setup is not None:
        setup(world)
    if is_usage_alone(name):
        for variable, value in world.env.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.chdir(world.work)
        monkeypatch.setattr(private, "private_parents", lambda: iter([world.env["TMPDIR"]]))  # no live run of anybody
        _name, *words = shlex.split(line)
        status = main(words)
        ended = subprocess.CompletedProcess(words, status, *capsysbinary.readouterr())
    else:
        ended = world.run(line)
    actual = shown(line, ended, world)
    compare(name, actual)


def test_every_snapshot_has_its_case() -> None:
    assert {path.stem for path in SNAPSHOTS.iterdir()} - set(CASES) - {"fault", "fault-without-a-file"} == set()


def test_every_option_that_is_checked_has_a_case() -> None:
    checked = {o.name for o in OPTIONS if o.metavar and (o.choices or o.parse is not str)}
    anything = {"--duplicate-stdout-filters", "--duplicate-stderr-filters"}
    assert checked - anything - set(BAD_VALUES) == set()


# ── What all of them have in common ──────────────────────────────────────────────────────────────────────────────

TEXTS = {path.stem: path.read_text() for path in sorted(SNAPSHOTS.glob("*.txt"))}


@pytest.mark.parametrize("name", TEXTS)
def test_a_message_keeps_to_the_guide(name: str) -> None:
    text = TEXTS[name]
    status = int(re.search(r"^exit (-?\d+)$", text, re.MULTILINE)[1])
    lines = text.partition("--- stderr\n")[2].splitlines()

    assert "Traceback" not in text
    assert not [line for line in lines if re.match(r"(error|warning|note|try|or): .*[.!]$", line) and "..." not in line]
    assert not [line for line in lines if line.count("`") % 2]
    assert status >= 0
    if status == 2:
        assert lines == [] or (lines[0].startswith("error: ") and len(lines) <= 3), "usage: an error and what to try"
        assert "--- stdout" not in text
        assert [line for line in lines if len(line) > 100] == []


# ── What a snapshot cannot show ──────────────────────────────────────────────────────────────────────────────────

BROKEN = """
import sys
import rankguard.runs.folder
def broken(*_): raise ZeroDivisionError("division by zero")
rankguard.runs.folder.known_runs = broken
for name in ("rankguard.glimpse", "rankguard.cli.runs"):
    try:
        module = __import__(name, fromlist=["x"])
    except ImportError:
        continue
    if hasattr(module, "known_runs"):
        module.known_runs = broken
from rankguard.cli import main
sys.exit(main(["report", "1a2b", "--no-color"]))
"""


def fault(world: World) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", BROKEN], env=world.env, cwd=world.work, capture_output=True)


def test_a_fault_of_ours_is_one_block_and_a_file(world: World) -> None:
    ended = fault(world)
    actual = shown("rankguard report 1a2b --no-color", ended, world)
    (kept,) = world.runs.glob("fault-*.txt")

    compare("fault", re.sub(r"fault-[^`]+\.txt", "fault-20261122-081403-40213.txt", actual))
    assert "ZeroDivisionError: division by zero" in kept.read_text()
    assert "Traceback" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_fault_of_ours_that_no_file_takes_is_quoted(world: World) -> None:
    for name in ("runs", "state", "tmp"):
        path = world.folder / name
        if path.is_dir():
            path.rmdir()
        path.write_text("in the way")
    ended = fault(world)

    lines = ended.stderr.decode().splitlines()
    assert ended.returncode == 125
    assert lines[0].startswith("error: a fault of rankguard: ZeroDivisionError: division by zero")
    assert lines[1] == "try:   report it with the lines below"
    assert [line for line in lines[2:] if not line.startswith("  |")] == []
    assert "  | ZeroDivisionError: division by zero" in lines


def test_a_reader_that_is_gone_is_no_error(world: World) -> None:
    for n in range(2000):  # 94 kB: more than a pipe and the buffer of `head` hold
        world.run_of(f"{n:08x}")
    ended = subprocess.run(
        ["bash", "-c", '"$@" | head -n 1; exit ${PIPESTATUS[0]}', "-", *world.command("rankguard runs -n 2000")],
        env=world.env, capture_output=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (141, b"")
    assert ended.stdout.count(b"\n") == 1


@pytest.mark.parametrize("verb", ["runs -n 5000", "help run"])
def test_ctrl_c_in_a_verb_that_reads_is_silent(world: World, verb: str) -> None:
    """It writes into a pipe that nobody empties; what has been read so far says that it is at work."""
    for n in range(2000 if verb.startswith("runs") else 0):
        world.run_of(f"{n:08x}")
    program = (
        f"import sys; from rankguard import cli; from rankguard.cli import help\n{SLOW}" if "help" in verb else None
    )
    command = [sys.executable, "-c", program, *verb.split()] if program else world.command(f"rankguard {verb}")
    process = subprocess.Popen(command, env=world.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")


SLOW = """
def page():
    sys.stdout.write("it begins\\n")
    sys.stdout.flush()
    while True:
        sys.stdin.read()
help.run_overview = page
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "run"])
def test_every_verb_refuses_an_option_alike(verb: str, world: World) -> None:
    ended = world.run(f"rankguard {verb} --frobnicate")
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert ended.stderr == f"error: there is no option `--frobnicate`\ntry:   rankguard {verb} --help\n".encode()


@pytest.mark.parametrize(
    ("env", "words", "colored"),
    [
        ({"TERM": "xterm"}, "", True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "", False),
        ({"TERM": "xterm", "NO_COLOR": ""}, "", True),
        ({"TERM": "dumb"}, "", False),
        ({"TERM": "xterm"}, "--no-color", False),
    ],
)
def test_colour_only_where_it_is_wanted(world: World, env: dict[str, str], words: str, colored: bool) -> None:
    from tests.terminal import Terminal

    command = world.command(f"rankguard {words} report nosuch")
    with Terminal(*command, env=world.env | env) as term:
        term.read_until_closed()
        assert term.wait() == 2
        assert (b"\x1b[" in term.output) == colored
        plain = re.sub(rb"\x1b\[[0-9;]*m", b"", term.output)
        assert plain.startswith(b"error: no run begins with `nosuch`\r\ntry:   rankguard runs\r\n")
