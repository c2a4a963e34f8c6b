"""Drills are played, by root and by nobody; one that differs says so; one that is interrupted leaves nothing.

Each fault by itself is played in `tests/lab`; here are those that only a drill makes, and a few of each family.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.makers import maker_of

from rankguard.drills.catalogue import DRILLS
from rankguard.testing.faults import limits
from rankguard.testing.faults.checks import Expect, checked
from rankguard.testing.faults.surroundings import Surroundings, look

SRC = Path(__file__).parents[2] / "src"
PATIENCE = 110.0
"""Seconds that a drill may take: many times what it takes on a quiet machine; whoever hangs longer ends the whole run."""
WAITS = """
import sys
from rankguard.cli import main
from rankguard.drills.catalogue import DRILLS
drill = DRILLS["ready-timeout"]
DRILLS["ready-timeout"] = drill.replace(fault=drill.fault.replace(options=lambda _cell: ("--ready-timeout", "600")))
sys.exit(main(["drill", "ready-timeout"]))
"""
"""A drill that does not end before it is ended: its own two seconds may be over when a busy machine comes to it."""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short path, so that the runs make their private folders below it too."""
    with tempfile.TemporaryDirectory(prefix="rgd") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def here() -> Surroundings:
    return look()


def drill(tmp_path: Path, *words: str, command: Sequence[str] = ()) -> subprocess.Popen[str]:
    """`rankguard drill WORDS…` with all its files below `tmp_path`."""
    home, tmp = tmp_path / "home", tmp_path / "tmp"
    for folder in (home, tmp):
        folder.mkdir(exist_ok=True)
    env = os.environ | {"RANKGUARD_HOME": str(home), "TMPDIR": str(tmp)}
    return subprocess.Popen(
        command or [sys.executable, "-m", "rankguard", "drill", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="backslashreplace", env=env,
        start_new_session=True,
    )  # fmt: skip


def left(tmp_path: Path) -> list[int]:
    """Processes that work in a folder of the drill's."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/cwd").startswith(f"{tmp_path}/tmp/"):
                found.append(int(pid))
        except OSError:
            continue
    return found


QUICK = ("exception", "kill", "cascade", "orphans", "shm-leak")


@pytest.mark.parametrize(
    "name",
    [
        name if drill.fault is None or name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name, drill in DRILLS.items()
    ],
)
def test_as_it_should_be(tmp_path: Path, name: str, here: Surroundings) -> None:
    if reason := DRILLS[name].why_not(here):
        pytest.skip(reason)
    played = drill(tmp_path, name)
    out, err = played.communicate(timeout=PATIENCE)

    assert played.returncode == 0, out + err
    assert out.endswith(f"drill {name}: as it should be\n")
    assert "WRONG" not in out
    last = err.rstrip().rpartition("\n")[2]
    assert name == "front-killed" or last.startswith("rankguard: exit ")
    assert len(list((tmp_path / "home").iterdir())) == 1  # kept, for `report` and `explain`
    assert left(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list(Path("/dev/shm").glob(f"rankguard-drill-{played.pid}-*")) == []


def test_the_list_names_each_and_whether_it_can_be_made(tmp_path: Path) -> None:
    out, err = drill(tmp_path).communicate(timeout=PATIENCE)

    lines = [line for line in out.splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in lines] == list(DRILLS)
    assert {line[25:33].strip() for line in lines} <= {"yes", "in part", "no"}
    assert all(len(line) <= 80 for line in out.splitlines()), out
    assert err == ""


@pytest.mark.slow
def test_as_a_plain_user() -> None:
    python = shutil.which("python3", path="/usr/bin:/bin")
    if os.getuid() != 0 or python is None:
        pytest.skip("needs root, to become somebody else, and a Python that others may execute")
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    if subprocess.run([python, "-c", code], check=False).returncode:
        pytest.skip("the system's Python is too old")
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are closed to others
        top = Path(made)
        top.chmod(0o755)
        shutil.copytree(SRC, top / "src", ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["chmod", "-R", "a+rX", str(top / "src")], check=True)
        for name in ("home", "tmp"):
            (top / name).mkdir()
            (top / name).chmod(0o777)
        user = ["setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups"]
        python_env = ["env", f"PYTHONPATH={top}/src", "PYTHONDONTWRITEBYTECODE=1", python]
        played = drill(top, command=[*user, *python_env, "-m", "rankguard", "drill", "all"])
        out, err = played.communicate(timeout=600)

        assert played.returncode == 0, out + err
        assert_all_are_right(out)
        assert left(top) == []


@pytest.mark.slow
def test_all_with_control_groups_that_cannot_be_written(tmp_path: Path) -> None:
    played = drill(tmp_path, command=[*read_only(), sys.executable, "-m", "rankguard", "drill", "all"])
    out, err = played.communicate(timeout=600)

    assert played.returncode == 0, out + err
    assert_all_are_right(out)
    assert "oom-own-group (no rank can be given a memory group of its own" in out


def assert_all_are_right(out: str) -> None:
    """`drill all` played each or says why it could not; most can be played anywhere."""
    right, of = re.search(r"^(\d+) of (\d+) drills as they should be$", out, re.MULTILINE).groups()
    assert right == of
    assert len(DRILLS) - 10 <= int(right) <= len(DRILLS)
    assert "WRONG" not in out


def read_only() -> list[str]:
    """Words before a command for which all control groups are read-only."""
    if os.getuid() != 0:
        pytest.skip("needs root for a mount namespace")
    return list(limits.unseen(shut_log=False))


def test_without_cgroups_the_oom_drill_says_what_it_does_not_show(tmp_path: Path) -> None:
    words = [*read_only(), sys.executable, "-m", "rankguard", "drill"]
    out, err = drill(tmp_path, command=[*words, "oom"]).communicate(timeout=PATIENCE)

    assert "neither the kernel's OOM killer nor its proof was shown" in out, out + err
    assert "ok     cause: memory-limit" in out
    assert out.endswith("drill oom: as it should be\n")


def test_a_difference_is_told(tmp_path: Path) -> None:
    code = """
import sys
from rankguard.drills.catalogue import DRILLS
from rankguard.drills.play import play
drill = DRILLS["exit-code"]
expect = lambda cell: drill.fault.expect(cell).replace(kind="crash", status=4)
sys.exit(not play(drill.replace(fault=drill.fault.replace(expect=expect))))
"""
    played = drill(tmp_path, command=[sys.executable, "-c", code])
    out, _err = played.communicate(timeout=PATIENCE)

    assert played.returncode == 1
    assert "WRONG  cause: exit-code (expected crash)" in out
    assert "WRONG  exit status: 3 (expected 4)" in out
    assert "drill exit-code: differs: cause: exit-code (expected crash); exit status: 3 (expected 4)" in out


def test_no_verdict_is_a_difference() -> None:
    expect = Expect("killed", 137)

    assert [right for right, _what in checked(expect, {}, 137, [])] == [False]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    played = drill(tmp_path, command=[sys.executable, "-c", WAITS])
    until_spawned(tmp_path)

    os.killpg(played.pid, number)
    out, err = played.communicate(timeout=PATIENCE)

    assert played.returncode == 128 + number, out + err
    assert "interrupted; nothing is left of it" in err
    assert left(tmp_path) == []
    assert [*(tmp_path / "home").iterdir(), *(tmp_path / "tmp").iterdir()] == []


def test_killed_it_leaves_no_process(tmp_path: Path) -> None:
    played = drill(tmp_path, command=[sys.executable, "-c", WAITS])
    until_spawned(tmp_path)
    pidfds = [os.pidfd_open(pid) for pid in left(tmp_path)]

    played.kill()
    played.communicate()

    assert len(pidfds) >= 4  # the command and its ranks; warden and supervisor may have left the folder
    for fd in pidfds:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(PATIENCE * 1000)
        os.close(fd)
    assert list((tmp_path / "tmp").glob("rg-*")) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("exit-cod",), "there is no drill `exit-cod`"),
        (("kill", "-n", "1"), "`--ranks 1`: expected 2 to 1024"),
        (("kill", "-n", "x"), "expected"),
    ],
)
def test_usage(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    played = drill(tmp_path, *words)
    out, err = played.communicate(timeout=PATIENCE)

    assert (played.returncode, out) == (2, "")
    assert said in err


def test_the_page_is_up_to_date() -> None:
    maker = maker_of("drills")
    if os.environ.get("UPDATE_GOLDEN"):
        maker.PAGE.write_text(maker.page())

    assert maker.page() == maker.PAGE.read_text()


def test_what_cannot_be_made_is_refused_with_the_reason(tmp_path: Path) -> None:
    out, err = drill(tmp_path, "hang", "-n", "2").communicate(timeout=PATIENCE)

    assert (out, err) == ("", "error: drill `hang` cannot be made here: it needs 3 ranks\n")


def test_a_limit_is_made_and_removed_again() -> None:
    """`why_not` makes a real group to find out; it must not stay."""
    limits.why_not()

    stays = [top for top, folders, _files in os.walk("/sys/fs/cgroup") if f"rankguard-drill-{os.getpid()}" in folders]
    assert stays == []


def until_spawned(tmp_path: Path) -> None:
    """Every rank executes: the supervisor has written its first state."""
    until = time.monotonic() + PATIENCE
    while not list((tmp_path / "home").glob("*/state.json")):
        assert time.monotonic() < until
        select.select([], [], [], 0.01)
