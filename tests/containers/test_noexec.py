"""A folder in which nothing may be executed, as /tmp is in hardened pods: whoever starts ranks through a script there has
none, and an engine that then waits for them would wait for ever (sglang#40627).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.containers.box import container, needs_container

pytestmark = needs_container
ENGINE = Path(__file__).with_name("engine.py")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Mounted in the container; there is a wrapper in it, with every x bit."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def ended(place: Path, tmp_path: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    wrapper = f"{place}/wrapper"
    setup = f"mount -t tmpfs -o noexec none {place} && printf '#!/bin/sh\\nexec {sys.executable} \"$@\"\\n' >{wrapper} && chmod 755 {wrapper}"
    env = os.environ | {"RANKGUARD_HOME": str(tmp_path / "home"), "COLUMNS": "200"}
    return subprocess.run(
        [*container(setup), sys.executable, "-m", "rankguard", *words],
        capture_output=True, text=True, env=env, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("how", [(), ("--no-python",)])
def test_ranks_through_a_wrapper_there(place: Path, tmp_path: Path, how: tuple[str, ...]) -> None:
    """Whether or not it was said that it is no Python: the kernel's word, and not a SyntaxError of Python's."""
    told = ended(place, tmp_path, "run", "-n", "2", "--report", "json", *how, f"{place}/wrapper", "-c", "pass")

    assert told.returncode == 126, told.stderr
    verdict = json.loads(told.stdout)
    assert verdict["culprit"]["cause"]["kind"] == "cannot-start"
    assert verdict["statement"].startswith(
        f"rank 0 of 2 was not started: unable to execute `{place}/wrapper`: Permission"
    )
    assert verdict["hints"] == [
        f"copy `{place}/wrapper` to a folder where programs may be executed, such as an emptyDir, and start it there"
    ]


def test_a_python_script_there_runs_under_python(place: Path, tmp_path: Path) -> None:
    script = f"echo '#!/usr/bin/env python3' >{place}/job && echo 'raise SystemExit(3)' >>{place}/job && chmod 755 {place}/job"
    words = [*container(f"mount -t tmpfs -o noexec none {place}", script), sys.executable, "-m", "rankguard", "run"]
    told = subprocess.run([*words, f"{place}/job"], capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 3, told.stderr


@pytest.mark.slow
def test_an_engine_that_waits_for_ranks_that_never_began(place: Path, tmp_path: Path) -> None:
    """It has no end of file to see, and its children ended before they were Python: without a watch it hangs for ever."""
    # The engine waits by then: its interpreter and its modules have time to come up on a busy machine, too.
    words = ["--ready-log", "all ready", "--ready-timeout", "6", "--report", "json"]
    told = ended(place, tmp_path, "watch", *words, "--", sys.executable, str(ENGINE), f"{place}/wrapper")

    assert told.returncode == 124, told.stderr
    verdict = json.loads(told.stdout)
    assert (verdict["outcome"], verdict["culprit"]["cause"]["kind"]) == ("failed", "ready-timeout")
    assert "recv" in verdict["culprit"]["stacks"]
    assert verdict["teardown"]["survivors"] == []
    # Its two ranks, gone before anybody could see them and asked by nobody; Python's own helper may be the third.
    codes = [each["ending"]["code"] for each in verdict["reported"]]
    assert len(codes) in (2, 3)
    assert set(codes) == {255}
