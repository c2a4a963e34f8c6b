"""Signals from others, children that stay or escape, other programs in a rank's place, words to us."""

from pathlib import Path

from rankguard.testing.faults.catalogue.expected import exits, failed, raises, says
from rankguard.testing.faults.checks import Expect, Verdict
from rankguard.testing.faults.fault import Cell, Fault
from rankguard.testing.faults.stage import Stage
from rankguard.testing.faults.surroundings import Surroundings

_ACTIVE = ("starting", "ready-early", "all-ready")


def _killed(cell: Cell) -> Expect:
    """A SIGKILL that was not the OOM killer's is known from a counter that stood still."""
    grade = "proven" if cell.here.counters else "likely"
    return failed("killed", "operator", 137, "wait status", "cgroup", confidence=grade, signal="SIGKILL")(cell)


def _leaked(cell: Cell) -> Expect:
    expect = _killed(cell)
    return expect if expect.kind is None else expect.replace(also=(("names the segment that is left", _names_segment),))


def _names_segment(verdict: Verdict) -> bool:
    return any(left["kind"] == "shm" and left["bytes"] == 1 << 20 for left in verdict["teardown"]["left"])


def _ended_what_was_left(verdict: Verdict) -> bool:
    return bool(verdict["teardown"]["killed"])


_WAITED_ONCE = (
    ("the other needed SIGKILL", lambda verdict: len(verdict["teardown"]["killed"]) == 1),
    ("the grace was waited for once", lambda verdict: 0.4 < verdict["teardown"]["took_s"] < 5),
)


def _no_shm(_here: Surroundings) -> str | None:
    import os

    return None if os.access("/dev/shm", os.W_OK) else "/dev/shm cannot be written"  # noqa: S108  # the subject


def _short_grace(_cell: Cell) -> tuple[str, ...]:
    return ("--grace", "0.5", "--shutdown-timeout", "0.5")


def _shell(stage: Stage, _cell: Cell, words: tuple[str, ...]) -> tuple[str, ...]:
    """A shell script round Python, as many start their ranks; `PYTHON` is the one that we are."""
    import shlex
    import sys

    script = Path(stage.folder, "rank.sh")
    script.write_text(f"#!/bin/sh\necho starting\n{shlex.join([sys.executable, *words])}\nstatus=$?\nexit $status\n")
    script.chmod(0o700)
    return ("--no-python", str(script))


FAULTS = (
    Fault("kill", "is sent SIGKILL by somebody", "processes:kill", _killed),
    Fault(
        "terminate", "is sent SIGTERM by somebody", "processes:terminate",
        failed("killed", "operator", 143, "wait status", signal="SIGTERM"),
    ),
    Fault(
        "reported-failure", "says that it failed, and lives", "processes:reported_failure",
        failed("reported-failure", "program", 1, "rank", ends="SIGKILL", also=says("of another model")),
        options=_short_grace,
    ),
    Fault(
        "complaint", "sends SIGQUIT to its parent, and ends with 0", "processes:complaint",
        failed("reported-failure", "program", 1, "rank", confidence="likely", ends="exit 0", also=says("SIGQUIT")),
    ),
    Fault(
        "cascade", "raises; its peers fail and are gone first", "processes:cascade",
        raises("ValueError", others=("collateral",)),
        phases=_ACTIVE,
    ),
    Fault(
        "signal-ignored", "fails, and another rank ignores SIGTERM", "processes:signal_ignored",
        exits(3, also=_WAITED_ONCE),
        options=_short_grace,
    ),
    Fault(
        "fork-bomb", "leaves 128 processes, and fails", "processes:fork_bomb",
        exits(3), alone=True,
    ),
    Fault(
        "orphans", "fails and leaves a grandchild elsewhere", "processes:orphans",
        exits(3, also=(("the grandchild was ended", _ended_what_was_left),)),
        options=_short_grace,
    ),
    Fault(
        "grandchild-holds-pipe", "fails; a child of it holds its output open",
        "processes:grandchild_holds_pipe", exits(3),
    ),
    Fault(
        "closes-output", "closes stdout and stderr, and fails later", "processes:closes_output",
        exits(3),
    ),
    Fault(
        "closes-everything", "closes every descriptor, and raises", "processes:closes_everything",
        raises("ValueError"),
    ),
    Fault(
        "execs-another", "becomes another program, which fails", "processes:execs_another",
        exits(7),
    ),
    Fault(
        "shell-script", "is a shell script; its Python raises", "endings:exception",
        raises("ValueError", evidence=("log",), confidence="likely", ends="SIGTERM"),
        starts=("exec",), program=_shell,
    ),
    Fault(
        "shell-script-crash", "is a shell script; its Python crashes",
        "crashes:plain_segfault", exits(139, ends="SIGTERM"),
        starts=("exec",), program=_shell,
    ),
    Fault(
        "shm-leak", "is killed and leaves 1 MiB in /dev/shm", "processes:shm_leak", _leaked, needs=_no_shm,
    ),
)  # fmt: skip
