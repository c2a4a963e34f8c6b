"""What a pod takes away: the job starts all the same, a killed rank is told rightly, what is lost is said, nothing hangs.

What costs the user something for good (no files of the run) is said when the job starts. What weakens a later verdict is
said by `rankguard doctor`, whose findings are compared with those of a container that lacks nothing.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence

import pytest
from tests.containers.box import (
    NO_KERNEL_LOG,
    READ_ONLY_CGROUPS,
    bare_dev,
    container,
    needs_container,
    needs_stranger,
    open_to_all,
)
from tests.faults.nest import Nest
from tests.marks import slowly
from tests.others import AS_STRANGER, why_no_stranger
from tests.runs import no_ptrace

pytestmark = needs_container
PROGRAM = """
import os, signal, rankguard
me = rankguard.this_rank()
me.ready()
fd = os.open('there', os.O_RDWR)  # a FIFO: the one is killed when the other is there
if me.rank == 0: os.write(fd, b'x')
else: os.read(fd, 1); os.kill(os.getpid(), 9)
signal.pause()
"""
NOBODY = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs")
VOLUME = "mount --bind $TOP/cwd $TOP/cwd && mount --bind $TOP/home $TOP/home"
READ_ONLY_ROOT = "mount -o remount,ro,bind /"


class Case:
    """`setup` is done in the container, `then` are words before the command; `env` is changed, null: taken away.

    `said`: what the start says of it, as an expression. `lost`: checks of the doctor that find less than in a container
    that lacks nothing.
    """

    def __init__(
        self,
        *setup: str,
        then: Sequence[str] = (),
        env: dict[str, str | None] | None = None,
        said: str = "",
        lost: Sequence[str] = (),
    ) -> None:
        self.setup, self.then, self.env, self.said, self.lost = setup, then, env or {}, said, set(lost)


CASES = {
    "nothing": Case(),
    "root": Case(VOLUME, READ_ONLY_ROOT, lost=["tmp"]),
    "root and no volume": Case(
        "mount --bind $TOP/cwd $TOP/cwd", READ_ONLY_ROOT,
        env={"RANKGUARD_HOME": None, "TMPDIR": None, "HOME": "/root", "XDG_STATE_HOME": None},
        said=r"warning: no files are kept of this run: .*: Read-only file system\ntry:   --run-dir DIR, .*\n",
        lost=["tmp", "run-home"],
    ),
    "cgroups read-only": Case(READ_ONLY_CGROUPS, lost=["rank-groups"]),
    "cgroups": Case("umount -l /sys/fs/cgroup/* /sys/fs/cgroup 2>/dev/null || :", lost=["cgroups", "rank-groups"]),
    "kernel log": Case(NO_KERNEL_LOG, lost=["kernel-log"]),
    "devices": Case("mkdir $TOP/dev", bare_dev("$TOP/dev"), lost=["kernel-log", "dev-shm"]),
    "capabilities": Case(then=NOBODY, lost=["rank-groups", "kernel-log"]),
    "ptrace": Case(then=(sys.executable, no_ptrace.__file__), lost=["ptrace"]),
    "user": Case(then=AS_STRANGER, env={"HOME": None}, lost=["rank-groups", "kernel-log"]),
    "home": Case(
        then=AS_STRANGER, env={"HOME": "/", "RANKGUARD_HOME": None, "XDG_STATE_HOME": None}, lost=["rank-groups", "kernel-log"]
    ),
    "execution": Case("mount -t tmpfs -o noexec,mode=1777 none $TOP/tmp", lost=["tmp"]),
    "processors": Case(then=("taskset", "-c", "0")),
    "others' processes": Case(
        "mount -t proc -o hidepid=2 proc /proc", then=AS_STRANGER, lost=["rank-groups", "kernel-log"]
    ),
    "root outside": Case(
        then=(*AS_STRANGER, "unshare", "--user", "--map-root-user"), lost=["rank-groups", "kernel-log"]
    ),  # rootless: 0 within, a plain user to the rest of the machine
    "scores": Case("mount -o remount,ro,bind /proc", lost=["oom-score"]),
}  # fmt: skip
QUICK = ("root and no volume", "cgroups read-only", "devices", "ptrace", "home", "others' processes")


def begin(case: Case, nest: Nest, *words: str) -> subprocess.CompletedProcess[str]:
    if "--reuid" in case.then and why_no_stranger() is not None:
        pytest.skip(str(why_no_stranger()))
    os.chmod(nest.top, 0o755)
    open_to_all(nest.folder, nest.home, nest.tmp)
    env = nest.env(TOP=nest.top)
    for name, value in case.env.items():
        env.pop(name, None)
        env |= {} if value is None else {name: value}
    before = container(*case.setup, then=case.then)
    return subprocess.run(
        [*before, sys.executable, "-m", "rankguard", *words],
        cwd=nest.folder, env=env, capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("what", [*QUICK, *slowly(*(name for name in CASES if name not in QUICK))])
def test_a_killed_rank(what: str) -> None:
    with Nest() as nest:
        with open(f"{nest.top}/program.py", "w") as file:
            file.write(PROGRAM)
        os.mkfifo(f"{nest.folder}/there")
        os.chmod(f"{nest.folder}/there", 0o666)
        case = CASES[what]
        ended = begin(
            case, nest, "run", "-n", "2", "--ready-timeout", "20", "--report", "json", f"{nest.top}/program.py"
        )

        assert ended.returncode == 137, ended.stderr
        verdict = json.loads(ended.stdout)
        culprit = verdict["culprit"]
        assert (culprit["rank"], culprit["cause"]["kind"], culprit["cause"]["confidence"]) == (1, "killed", "proven")
        assert [rank["relation"] for rank in verdict["ranks"]] == ["stopped", "culprit"]
        assert verdict["teardown"]["survivors"] == []
        assert verdict["warnings"] == []
        said = re.sub(r"rankguard: all 2 ranks ready .*\n", "", ended.stderr)
        assert re.fullmatch(case.said, said), said
        assert nest.alive() == {}
        assert nest.traces() == []


@pytest.mark.slow
@pytest.mark.parametrize("what", CASES)
def test_the_doctor_says_what_is_lost(what: str) -> None:
    found = {}
    for name in ("nothing", what):
        with Nest() as nest:
            told = json.loads(begin(CASES[name], nest, "doctor", "--json").stdout)
            assert told["can_run"]
            found[name] = {each["id"]: each for each in told["checks"] if each["state"] != "ok"}

    lost = set(found[what]) - set(found["nothing"]) - {"clock"}  # which is measured, and others work here too
    assert lost == CASES[what].lost
    assert all(found[what][name]["cost"] and found[what][name]["cure"] for name in lost)


@needs_stranger
def test_a_stranger_is_nobody() -> None:
    """The uid of these tests has no entry, so what asks for one would fail here."""
    with Nest() as nest:
        open_to_all(nest.folder)
        ended = begin(CASES["user"], nest, "--version")
        assert ended.returncode == 0, ended.stderr
