"""`--clean-shm` in a container of its own, as PID 1: shared memory of an earlier life is gone before the job starts, the
job's own when it ends, and what somebody still uses stays.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.containers.box import container, needs_container, needs_stranger, open_to_all
from tests.faults.nest import Nest
from tests.others import AS_STRANGER

pytestmark = needs_container
AN_EARLIER_LIFE = (
    "mount -t tmpfs -o mode=1777 none /dev/shm",
    "head -c 65536 /dev/zero >/dev/shm/psm_old && mkdir /dev/shm/lib && : >/dev/shm/lib/inner && : >/dev/shm/sem.old",
    "chmod 666 /dev/shm/psm_old",
    "ipcmk -M 4096 >/dev/null",
    "sleep 60 <>/dev/shm/held & :",
    "until [ -e /dev/shm/held ]; do :; done",
)
PROGRAM = """
import ctypes, os, signal, time
print(sorted(os.listdir('/dev/shm')), len(open('/proc/sysvipc/shm').readlines()) - 1, flush=True)
fd = os.open('/dev/shm/psm_new', os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(fd, 4096)
ctypes.CDLL(None).shmget(0, 4096, 0o1600)
time.sleep(1.0)  # whose it is, is asked 20 ms after it was made, and nobody tells that it was: time for a busy machine
os.kill(os.getpid(), 9)
"""


def ended(nest: Nest, mode: str, then: tuple[str, ...] = ()) -> tuple[str, list[str], dict]:
    """What the rank found there, what is there when all is over, and the verdict."""
    open_to_all(nest.folder, nest.home, nest.tmp)
    Path(nest.top).chmod(0o755)
    Path(nest.folder, "program.py").write_text(PROGRAM)
    options = ["-n", "1", "--clean-shm", mode, "--report", "json"]
    run = [*then, sys.executable, "-m", "rankguard", "run", *options, "program.py"]
    # PID 1 is a shell here, which looks at what is left; that rankguard is PID 1 makes no difference to it (below).
    look = f'"$@"; echo "$(ls /dev/shm)" >{nest.folder}/left; ipcs -m | grep -c "^0x" >>{nest.folder}/left; exit 0'
    words = [*container(*AN_EARLIER_LIFE), "sh", "-c", look, "sh", *run]
    told = subprocess.run(
        words, cwd=nest.folder, env=nest.env(), capture_output=True, text=True, timeout=100, check=False
    )
    assert told.stdout, told.stderr
    found = next(line for line in told.stderr.splitlines() if line.startswith("["))
    verdict = json.loads(told.stdout)
    return found, Path(nest.folder, "left").read_text().split(), verdict


def test_all() -> None:
    with Nest() as nest:
        found, left, verdict = ended(nest, "all")

    assert found == "['held', 'lib'] 0"  # an empty folder costs nothing, and may be somebody's
    assert left == ["held", "lib", "0"]
    (warning,) = verdict["warnings"]
    assert warning.startswith("removed before the start: shared memory that nobody used, 68.0 KiB (")
    removed = {each["path"]: each["removed"] for each in verdict["teardown"]["left"]}
    assert removed.pop("/dev/shm/psm_new") is True
    assert list(removed.values()) == [True]  # the job's own segment of System V


@pytest.mark.slow
def test_own() -> None:
    with Nest() as nest:
        found, left, verdict = ended(nest, "own")

    assert found == "['held', 'lib', 'psm_old', 'sem.old'] 1"
    assert left == ["held", "lib", "psm_old", "sem.old", "1"]
    assert verdict["warnings"] == []
    assert sorted(each["removed"] for each in verdict["teardown"]["left"]) == [True, True]


@pytest.mark.slow
def test_report() -> None:
    with Nest() as nest:
        _found, left, verdict = ended(nest, "report")

    assert left == ["held", "lib", "psm_new", "psm_old", "sem.old", "2"]
    assert sorted(each["removed"] for each in verdict["teardown"]["left"]) == [False, False]


@pytest.mark.slow
@needs_stranger
def test_all_as_a_stranger() -> None:
    """What belongs to another user stays: no lease is given on it."""
    with Nest() as nest:
        _found, left, verdict = ended(nest, "all", AS_STRANGER)

    assert left == ["held", "lib", "psm_old", "sem.old", "1"]
    assert verdict["culprit"]["cause"]["kind"] == "killed"


def test_all_as_pid_1() -> None:
    """With the namespace the look is over, too: the folder is a mount that outlives it."""
    with Nest() as nest:
        shm = Path(nest.top, "shm")
        shm.mkdir()
        (shm / "psm_old").write_bytes(b"x" * 65536)
        Path(nest.folder, "program.py").write_text(PROGRAM)
        run = ["run", "-n", "1", "--clean-shm", "all", "program.py"]
        nest.start([*container(f"mount --bind {shm} /dev/shm"), sys.executable, "-m", "rankguard", *run])
        status, said = nest.ended()

        assert status == 137, said
        assert "removed before the start: shared memory that nobody used, 64.0 KiB (/dev/shm/psm_old)" in said
        assert list(shm.iterdir()) == []
