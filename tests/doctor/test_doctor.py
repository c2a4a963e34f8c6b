"""The doctor as a whole: every finding has its shape, its page, its cure; nothing hangs and nothing is left."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from tests.doctor.machine import command, examine
from tests.terminal import PATIENCE

from rankguard.doctor.catalogue import CHECKS
from rankguard.doctor.check import Answer, Check, Machine, ok
from rankguard.doctor.page import as_text
from rankguard.doctor.probes import examine as examined

DOCS = Path(__file__).parents[2] / "docs"
TEXT = {"type": "string", "minLength": 1}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "rankguard", "node", "can_run", "checks"],
    "properties": {
        "schema": {"const": "rankguard.doctor/1"},
        "rankguard": TEXT,
        "node": TEXT,
        "can_run": {"type": "boolean"},
        "removed": {"type": "array"},
        "checks": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["id", "group", "state", "found", "cost", "cure", "essential", "details"],
                "properties": {
                    "id": {"enum": [check.id for check in CHECKS]},
                    "group": TEXT,
                    "state": {"enum": ["ok", "limited", "missing", "unknown"]},
                    "found": TEXT,
                    "cost": {"type": ["string", "null"]},
                    "cure": {"type": ["string", "null"]},
                    "essential": {"type": "boolean"},
                    "details": {"type": ["object", "null"]},
                },
                # A problem without its cost and its cure is no use to anybody.
                "if": {"properties": {"state": {"const": "ok"}}},
                "then": {"properties": {"cost": {"type": "null"}, "cure": {"type": "null"}}},
                "else": {"properties": {"cost": TEXT, "cure": TEXT}},
            },
        },
    },
}


def test_this_machine(tmp_path: Path) -> None:
    found = examine(tmp_path)

    jsonschema.Draft202012Validator(SCHEMA).validate(found.told)
    assert list(found.checks) == [check.id for check in CHECKS]
    assert [each for each in found.checks.values() if each["state"] == "unknown"] == []
    assert (found.status, found.told["can_run"], found.err) == (0, True, "")
    assert [*(tmp_path / "tmp").iterdir(), *(tmp_path / "home").iterdir()] == []


def test_the_page_has_a_row_for_each_check() -> None:
    rows = [
        line
        for line in (DOCS / "doctor.md").read_text().splitlines()
        if line.startswith("| `") and line.count("|") == 4
    ]

    expected = [f"| `{check.id}` | {check.looks_at} | {'yes' if check.essential else ''} |" for check in CHECKS]
    assert expected == rows


def test_ids_are_unique_and_plain() -> None:
    ids = [check.id for check in CHECKS]

    assert len(set(ids)) == len(ids)
    assert all(name.replace("-", "").isalnum() and name == name.lower() for name in ids)


def test_the_text_fits_80_columns_and_has_no_colour_in_a_pipe(tmp_path: Path) -> None:
    asked, env = command(tmp_path, "-n", "4000000")
    ended = subprocess.run(asked, env=env | {"TERM": "xterm"}, capture_output=True, text=True, check=False)
    assert ended.returncode == 2

    asked, env = command(tmp_path, "-n", "30000")
    ended = subprocess.run(asked, env=env | {"TERM": "xterm"}, capture_output=True, text=True, check=False)

    lines = ended.stdout.splitlines()
    assert ended.returncode == 1  # no machine of these tests can have that many open files
    assert "ranks cannot be run here" in lines[0]
    assert lines[2].startswith("missing ")
    assert [line for line in lines if len(line) > 80] == []
    assert "\x1b" not in ended.stdout


def test_in_an_empty_environment() -> None:
    source = str(Path(__file__).parents[2] / "src")
    code = f"import sys; sys.path.insert(0, {source!r}); from rankguard.cli import main; sys.exit(main(['doctor']))"
    ended = subprocess.run(
        [sys.executable, "-I", "-c", code],
        env={}, cwd="/", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert (ended.returncode, ended.stderr) == (0, "")


# ── Checks that misbehave ────────────────────────────────────────────────────────────────────────────────────────────


def _hang(_machine: Machine) -> Answer:
    subprocess.run(["sleep", "1000"], check=True)
    return ok("never")


def _raise(_machine: Machine) -> Answer:
    raise ValueError("DB_PASSWORD=hunter2-hunter2")


def _die(_machine: Machine) -> Answer:
    os.kill(os.getpid(), signal.SIGKILL)
    return ok("never")


def test_a_check_that_hangs_raises_or_dies_costs_its_own_answer(wait_for_exit) -> None:
    checks = [
        Check("hangs", "g", "", _hang, limit_s=0.5, essential=True),
        Check("raises", "g", "", _raise, limit_s=60.0),  # time enough on a busy machine
        Check("dies", "g", "", _die, limit_s=60.0),
        *(Check(f"fine-{n}", "g", "", lambda _machine: ok("x" * 200_000), limit_s=60.0) for n in range(20)),
    ]

    found = {each.id: each for each in examined(checks, Machine(2, os.getpid()))}

    assert [found[name].state for name in ("hangs", "raises", "dies")] == ["unknown"] * 3
    waited = re.fullmatch(r"no answer within (\S+) s", found["hangs"].found)
    assert waited is not None
    assert 0.5 <= float(waited[1]) <= 5.0  # up to ten times as long where a fork takes long
    assert found["raises"].found == "the check itself failed: ValueError: DB_PASSWORD=***"
    assert not found["hangs"].essential  # what is not known does not keep anybody from running ranks
    assert all(found[f"fine-{n}"].state == "ok" for n in range(20))
    for pid in _processes("sleep 1000"):
        wait_for_exit(pid)
    assert all(len(line) <= 80 for line in as_text(list(found.values()), "n", color=False))


def test_killed_at_any_moment_it_leaves_nothing(tmp_path: Path) -> None:
    for n in range(8):
        asked, env = command(tmp_path)
        doctor = subprocess.Popen(asked, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
        pidfd = os.pidfd_open(doctor.pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(60 + 60 * n)  # at another moment each time
        doctor.kill()
        doctor.wait()
        os.close(pidfd)
        until = time.monotonic() + PATIENCE
        while (alive := _of_session(doctor.pid)) or _groups(doctor.pid):
            assert time.monotonic() < until, (alive, _groups(doctor.pid))
            select.select([], [], [], 0.01)
    assert [*(tmp_path / "tmp").iterdir(), *(tmp_path / "home").iterdir()] == []


def _groups(pid: int) -> list[str]:
    names = {f"rankguard-doctor-{pid}", f"rankguard-doctor-{pid}.sup"}
    return [top for top, folders, _files in os.walk("/sys/fs/cgroup") if names & set(folders)]


def _of_session(leader: int) -> list[int]:
    """What lives of a session whose leader has gone: whatever it had started, at whichever moment."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.append(int(pid))
    return found


def _processes(line: str) -> list[int]:
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip() == line and _ours(
                pid
            ):
                found.append(int(pid))
        except OSError:
            continue
    return found


def _ours(pid: str) -> bool:
    """A descendant of this process."""
    while pid not in ("0", "1", str(os.getpid())):
        pid = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1]
    return pid == str(os.getpid())


@pytest.mark.parametrize("words", [("--jso",), ("x",), ("-n", "0"), ("--nope",)])
def test_usage(tmp_path: Path, words: tuple[str, ...]) -> None:
    asked, env = command(tmp_path, *words)
    ended = subprocess.run(asked, env=env, capture_output=True, text=True, check=False)

    assert ended.returncode == (0 if words == ("--jso",) else 2), ended.stderr  # an abbreviation is no mistake
