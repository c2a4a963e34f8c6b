"""A rank in plain C that speaks systemd's protocol: by one `sendto` a message, and through libsystemd itself."""

import shutil
import subprocess

import pytest
from tests.ecosystem.engine import PROGRAMS
from tests.torch._runs import innocent, who

RANKS = 3
OPTIONS = ("--ready-timeout", "60")


@pytest.fixture(scope="module", params=["sendto", "libsystemd"])
def program(request, tmp_path_factory):
    """libsystemd's header is in a package of its own; the library is on every machine that systemd runs."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    built = tmp_path_factory.mktemp("notify") / f"notify-{request.param}"
    words = ["-DLIBSYSTEMD", "-l:libsystemd.so.0"] if request.param == "libsystemd" else []
    made = subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", str(PROGRAMS / "notify.c"), "-o", str(built), *words],
        capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode and "cannot find -l:libsystemd" in made.stderr:
        pytest.skip("there is no libsystemd")
    assert made.returncode == 0, made.stderr
    return built


def test_to_the_end(run, program):
    with run(RANKS, program, 10, options=OPTIONS) as job:
        verdict = job.end()

    assert (job.status, verdict["outcome"]) == (0, "succeeded")
    assert all(row["ready_after_s"] for row in verdict["ranks"])


def test_a_rank_is_killed(run, program):
    with run(RANKS, program, 0, options=OPTIONS) as job:
        for _ in range(RANKS):
            job.until(f" of {RANKS} is ")
        job.kill(1)
        verdict = job.end()

    assert who(verdict) == (1, "killed", "operator", "proven", 137)
    assert innocent(verdict)
    culprit = verdict["culprit"]
    assert (culprit["phase"], culprit["was_ready"], culprit["status"]) == ("ready", True, "serves")


def test_a_heartbeat_that_stops(run, program):
    with run(RANKS, program, 0, 5, options=(*OPTIONS, "--stall-timeout", "3")) as job:
        verdict = job.end()

    rank, kind, family, _confidence, code = who(verdict)
    assert (rank, kind, family, code) == (1, "stall", "time", 124)
