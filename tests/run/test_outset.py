"""The command begins supervisor and warden before it loads what they need not wait for; and ends them where it errs."""

import os
import select
import subprocess
import sys

import pytest

import rankguard

PACKAGE = os.path.dirname(os.path.dirname(rankguard.__file__))

WATCH = """
import posix, sys
spawn = posix.posix_spawn
def told(*words, **more):
    posix.posix_spawn = spawn
    print(*sorted(name for name in sys.modules if name.startswith("rankguard")), flush=True)
    print(*sorted({"json", "typing", "re", "pathlib", "dataclasses", "argparse", "subprocess"} & set(sys.modules)), flush=True)
    return spawn(*words, **more)
posix.posix_spawn = told
from rankguard.cli import main
sys.exit(main())
"""


def test_nothing_else_is_loaded_before_the_supervisor_is_begun() -> None:
    """Each module here delays every job."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH, "run", "-q", "-n", "1", "true"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    ours, heavy = done.stdout.split("\n")[:2]
    assert ours.split() == [
        "rankguard", "rankguard._version", "rankguard.cli", "rankguard.linux", "rankguard.linux.files", "rankguard.outset",
    ]  # fmt: skip
    assert heavy == ""


def _read(fd: int) -> bytes:
    assert select.select([fd], [], [], 30)[0], "one of the processes that were begun is alive"
    return os.read(fd, 65536)


@pytest.mark.parametrize("words", [["-n", "0", "true"], ["--no-such-option"], ["-n", "1", "--help"]])
def test_wrong_usage_ends_what_was_begun(words: list[str]) -> None:
    """Whatever holds this pipe is one of them: it ends when all have."""
    alive, holds = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "rankguard", "run", *words], stdout=subprocess.DEVNULL, stderr=holds, check=False
        )
        os.close(holds)
        said = b""
        while part := _read(alive):
            said += part
    finally:
        os.close(alive)

    assert done.returncode == (0 if "--help" in words else 2)
    assert (b"error: " in said) == ("--help" not in words)


LATER = {
    "hashlib", "random", "textwrap", "shutil", "traceback", "unicodedata", "threading", "subprocess", "asyncio", "logging",
    "dataclasses", "argparse", "multiprocessing", "rich", "rankguard.diagnosis.hints", "rankguard.diagnosis.stalls",
    "rankguard.diagnosis.collectives", "rankguard.supervisor.survey", "rankguard.supervisor.muster", "rankguard.inside.warm",
}  # fmt: skip
"""What only some jobs need, or only a failure: no start waits for it."""


def _loaded(*words: str) -> set[str]:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_supervisor_loads_what_every_job_needs() -> None:
    loaded = _loaded(
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.append({PACKAGE!r}); import rankguard.supervisor.main; print(*sys.modules)",
    )

    assert LATER & loaded == set()
    assert {"rankguard.driver", "rankguard.diagnosis.verdict"} <= loaded


FRONT = """
import sys
import rankguard.cli
rankguard.cli._leave = lambda status: print(*sys.modules) if status == 0 else None
sys.argv = ["rankguard", "run", "-q", "-n", "1", "true"]
sys.exit(rankguard.cli.main())
"""


def test_the_command_loads_what_every_job_needs() -> None:
    loaded = _loaded("-I", "-c", FRONT)

    assert LATER & loaded == set()
    assert {"rankguard.cli.front.main", "rankguard.report.text"} <= loaded
    assert {
        name for name in loaded if name.startswith(("rankguard.core", "rankguard.supervisor", "rankguard.driver"))
    } == set()
