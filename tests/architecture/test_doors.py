"""What the doors of the library load, as a list of modules: each delays the first rank, and lives in the user's process."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
before = set(sys.modules)
import rankguard
own = set(sys.modules) - before
{use}
print(*sorted(own))
print(*sorted(set(sys.modules) - before))
"""
HEAVY = {
    "asyncio",
    "ssl",
    "logging",
    "subprocess",
    "dataclasses",
    "inspect",
    "argparse",
    "hashlib",
    "random",
    "traceback",
}
NOT_LAUNCHING = {"multiprocessing", "threading", "concurrent.futures", "pickle"}
"""What functions need that are given as ranks; commands do without."""


def _loaded(use: str) -> tuple[list[str], set[str]]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM.format(use=use)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    own, used = done.stdout.splitlines()
    return own.split(), set(used.split())


@pytest.mark.parametrize(
    ("use", "without"),
    [
        ("rankguard.launch", HEAVY | NOT_LAUNCHING),
        ("rankguard.wait_ready", HEAVY | {"concurrent.futures"}),
        ("rankguard.guard, rankguard.stop", HEAVY),
        ("rankguard.read_run", HEAVY | NOT_LAUNCHING),
        ("rankguard.this_rank", HEAVY | NOT_LAUNCHING | {"typing", "json"}),
        ("rankguard.launch(['true'], console='none').wait()", HEAVY | NOT_LAUNCHING),
    ],
)
def test_a_door_loads_little_and_the_standard_library_alone(use: str, without: set[str]) -> None:
    own, used = _loaded(use)

    assert own == ["rankguard", "rankguard._version"]
    assert used & without == set()
    assert {name.split(".")[0] for name in used} <= sys.stdlib_module_names | {"rankguard", "__mp_main__"}
