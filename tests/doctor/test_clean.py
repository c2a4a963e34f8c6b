"""`doctor --clean` removes what is provably dead, and nothing else."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doctor.machine import command, examine

from rankguard.linux.hierarchies import own_groups

LONG_AGO = time.time() - 3600


def clean(tmp_path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """(what was removed, paths that the check still names)."""
    asked, env = command(tmp_path, "--json", "--clean")
    ended = subprocess.run(asked, env=env, capture_output=True, text=True, check=False, timeout=60)
    told = json.loads(ended.stdout)
    left = next(each["details"] or {"left": []} for each in told["checks"] if each["id"] == "leftovers")["left"]
    ours = [each for each in told["removed"] if str(tmp_path) in each["path"] or str(os.getpid()) in each["path"]]
    return ours, [each["path"] for each in left]


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """Paths of sockets are short, those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="rgt") as made:
        yield Path(made)


def private_folder(parent: Path, name: str, *, alive: bool, age: float = LONG_AGO) -> tuple[Path, socket.socket | None]:
    folder = parent / "tmp" / name
    folder.mkdir(parents=True)
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    held.bind(str(folder / "0"))
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(folder / "control"))
    listening.close()
    if not alive:
        held.close()
    os.utime(folder, (age, age))
    return folder, held if alive else None


def test_folders_whose_sockets_refuse(short_tmp: Path) -> None:
    dead, _none = private_folder(short_tmp, "rg-dead0001", alive=False)
    living, held = private_folder(short_tmp, "rg-live0001", alive=True)
    young, _none = private_folder(short_tmp, "rg-young001", alive=False, age=time.time())

    removed, _left = clean(short_tmp)

    assert [(each["path"], each["error"]) for each in removed] == [(str(dead), None)]
    assert (dead.exists(), living.exists(), young.exists()) == (False, True, True)
    assert held is not None
    held.close()


def test_a_process_of_anybody_may_have_a_name_that_is_no_text(short_tmp: Path) -> None:
    """An empty folder is dead when no supervisor lives, which is asked of every process."""
    empty = short_tmp / "tmp" / "rg-empty001"
    empty.mkdir(parents=True)
    os.utime(empty, (LONG_AGO, LONG_AGO))
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'\\xff', 0, 0, 0); print(); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as named:
        assert named.stdout is not None
        named.stdout.readline()
        found = examine(short_tmp)
        named.communicate(b"\n")

    assert found.checks["leftovers"]["state"] != "unknown", found.checks["leftovers"]


def test_folders_of_drills_that_are_gone(short_tmp: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead = short_tmp / "tmp" / f"rankguard-drill-{gone.pid}-abc"
    living = short_tmp / "tmp" / f"rankguard-drill-{os.getpid()}-abc"
    for folder in (dead, living):
        (folder / "run").mkdir(parents=True)
    strange = short_tmp / "tmp" / "rankguard-drill-x"
    strange.mkdir()

    removed, left = clean(short_tmp)

    assert [each["path"] for each in removed] == [str(dead)]
    assert (dead.exists(), living.exists(), strange.exists()) == (False, True, True)
    assert str(dead) not in left


def test_groups_without_a_process(short_tmp: Path) -> None:
    own = own_groups()
    group = own.get("memory") or own.get("v2")
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead = Path(group.path if group else "/nowhere", f"rankguard-drill-{gone.pid}")
    used = Path(group.path if group else "/nowhere", f"rankguard-drill-{gone.pid}-used")
    sleeper = subprocess.Popen(["sleep", "1000"])
    try:
        try:
            dead.mkdir()
            (dead / "rank-0").mkdir()
            used.mkdir()
            (used / "cgroup.procs").write_text(str(sleeper.pid))
        except OSError as error:
            pytest.skip(f"no control group can be made: {error}")
        clean(short_tmp)

        assert (dead.exists(), used.exists()) == (False, True)
    finally:
        sleeper.kill()
        sleeper.wait()
        for path in (dead / "rank-0", dead, used):
            with contextlib.suppress(OSError):
                path.rmdir()


def test_a_live_run_keeps_everything(short_tmp: Path) -> None:
    """The real thing: its private folder and groups are there, and stay."""
    fifo = short_tmp / "up"
    os.mkfifo(fifo)
    asked, env = command(short_tmp)
    words = [*asked[:-1], "run", "-n", "1", "--no-python", "sh", "-c", f"echo x >{fifo}; exec sleep 1000"]
    run = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    fifo.read_text()
    before = sorted(str(path) for path in (short_tmp / "tmp").iterdir())

    removed, _left = clean(short_tmp)

    after = sorted(str(path) for path in (short_tmp / "tmp").iterdir())
    run.terminate()
    status = run.wait()
    assert (removed, before, status) == ([], after, 143)
    assert any("/rg-" in path for path in before)
