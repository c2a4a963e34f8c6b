"""The drills tell the same in a container as outside: kind, confidence, exit status, as root and as a stranger.

Every drill checks itself (`ok`, `WRONG`); here its verdict is compared with the one outside. What a container weakens is
listed with its reason, so that nothing else may become weaker unseen.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.containers.box import container, needs_container, open_to_all
from tests.faults.nest import Nest
from tests.marks import slowly
from tests.others import AS_STRANGER, why_no_stranger

from rankguard.drills.catalogue import DRILLS

pytestmark = needs_container
WHO: dict[str, Sequence[str]] = {"root": (), "stranger": AS_STRANGER}
Told = tuple[str | None, str | None, int]
WEAKER = {
    "oom-shared-counter": "the kernel log has pids of the initial PID namespace: nobody can tell whose they are, so it is "
    "`likely` where it would be `proven`",
}
"""Drills whose verdict a PID namespace weakens, for root; a stranger cannot read the kernel log in any case."""


def drilled(name: str, wrap: Sequence[str] = ()) -> dict[str, Told]:
    """Each drill that was played: kind, confidence, exit code of its verdict."""
    with Nest() as nest:
        open_to_all(nest.folder, nest.home, nest.tmp)
        Path(nest.top).chmod(0o755)
        ended = subprocess.run(
            [*wrap, sys.executable, "-m", "rankguard", "drill", name],
            cwd=nest.folder, env=nest.env(), capture_output=True, text=True, errors="replace", timeout=600, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "WRONG" not in ended.stdout
        told = {}
        for run in Path(nest.home).iterdir():
            drill = re.sub(r"^drill-(.*)-[0-9a-f]+$", r"\1", run.name)
            verdict = json.loads((run / "verdict.json").read_text())
            cause = (verdict["culprit"] or {}).get("cause") or {}
            told[drill] = (cause.get("kind"), cause.get("confidence"), verdict["exit_code"])
        assert nest.alive() == {}
        return told


def same(name: str, who: str) -> tuple[dict[str, Told], dict[str, Told]]:
    if WHO[who] and why_no_stranger() is not None:
        pytest.skip(str(why_no_stranger()))
    return drilled(name, WHO[who]), drilled(name, container(then=WHO[who]))


@pytest.mark.parametrize(
    ("name", "who"), [("kill", "stranger"), ("supervisor-killed", "root"), *slowly(("oom", "root"))]
)
def test_one(name: str, who: str) -> None:
    outside, inside = same(name, who)
    assert inside == outside
    assert list(inside) == [name]


@pytest.mark.slow
@pytest.mark.parametrize("who", WHO)
def test_all(who: str) -> None:
    outside, inside = same("all", who)

    assert len(outside) >= len(DRILLS) - 10
    others = {name: (outside[name], inside.get(name)) for name in outside if inside.get(name) != outside[name]}
    expected = {name: (("oom-kill", "proven", 137), ("oom-kill", "likely", 137)) for name in WEAKER if who == "root"}
    assert others == expected
    assert set(inside) == set(outside)
