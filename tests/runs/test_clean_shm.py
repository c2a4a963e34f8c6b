"""`--clean-shm`: what is removed is the job's, or nobody's; real segments of every kind."""

import ctypes
import mmap
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from tests.run.command import Ended, Ranks
from tests.run.conftest import ranks  # noqa: F401  # a fixture

from rankguard.linux import leftovers
from rankguard.linux.leftovers import Leftovers
from rankguard.linux.shmowners import ShmOwners

TAG = f"rgclean-{os.getpid()}"
MAKES = """
import ctypes, mmap
from multiprocessing import resource_tracker, shared_memory
def make(name):
    fd = os.open("/dev/shm/" + name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.ftruncate(fd, 8192)
    return fd
def looked_at():
    '''Until the supervisor has looked at who holds what, 20 ms after the kernel told that something was made: it answers
    one ask after the other, so it has heard of that before the first answer, and looked before the last.'''
    from rankguard.runs.live import ask
    control = os.readlink(os.environ["RANKGUARD_RUN_DIR"] + "/control")
    for _ in range(3):
        ask(control, {"do": "progress"}, 60)
        time.sleep(0.05)
    ask(control, {"do": "progress"}, 60)
"""
HOLDS = "fd = make('{tag}'); looked_at(); os.kill(os.getpid(), 9)\n"


@pytest.fixture(autouse=True)
def _clean():
    yield
    for path in Path("/dev/shm").glob(f"{TAG}*"):
        path.unlink(missing_ok=True) if path.is_file() else path.rmdir()


def run(ranks: Ranks, text: str, mode: str, n: int = 1) -> Ended:  # noqa: F811  # the fixture's value
    return ranks.run(n, MAKES + text, "--clean-shm", mode)


def left(ended: Ended) -> list[tuple[str, bool]]:
    return [(thing["path"], thing["removed"]) for thing in ended.verdict["teardown"]["left"] if TAG in thing["path"]]


def test_report_removes_nothing(ranks) -> None:  # noqa: F811  # the fixture
    ended = run(ranks, HOLDS.format(tag=TAG), "report")

    assert left(ended) == [(f"/dev/shm/{TAG}", False)]
    assert Path(f"/dev/shm/{TAG}").exists()


def test_own_removes_what_a_rank_held(ranks) -> None:  # noqa: F811
    ended = run(ranks, HOLDS.format(tag=TAG), "own")

    assert left(ended) == [(f"/dev/shm/{TAG}", True)]
    assert not Path(f"/dev/shm/{TAG}").exists()
    assert f"shared memory /dev/shm/{TAG} (8.0 KiB), removed" in ended.stderr


def test_own_knows_a_mapping_whose_file_was_closed(ranks) -> None:  # noqa: F811
    ended = run(
        ranks,
        f"fd = make('{TAG}'); m = mmap.mmap(fd, 8192); os.close(fd); looked_at(); os.kill(os.getpid(), 9)",
        "own",
    )

    assert left(ended) == [(f"/dev/shm/{TAG}", True)]


def test_own_knows_what_a_child_of_a_rank_held(ranks) -> None:  # noqa: F811
    ended = run(ranks, f"if os.fork() == 0: fd = make('{TAG}')\nlooked_at(); os.kill(os.getpid(), 9)", "own")

    assert left(ended) == [(f"/dev/shm/{TAG}", True)]


def test_own_knows_multiprocessing_s_segments(ranks) -> None:  # noqa: F811
    text = """
made = shared_memory.SharedMemory(create=True, size=8192)
resource_tracker.unregister(made._name, "shared_memory")
print(made.name, flush=True)
looked_at(); os.kill(os.getpid(), 9)
"""
    ended = run(ranks, text, "own")

    (thing,) = [t for t in ended.verdict["teardown"]["left"] if t["path"] == f"/dev/shm/{ended.stdout.strip()}"]
    assert thing["removed"] is True
    assert not Path(thing["path"]).exists()


def test_own_leaves_what_came_from_elsewhere_meanwhile(ranks, tmp_path) -> None:  # noqa: F811
    """Made while the job ran, by this user, held by nobody any more: it looks like the job's, and is not."""
    text = f"open('{tmp_path}/go', 'w').write('x'); open('{tmp_path}/done').read(); time.sleep(0.3)"
    os.mkfifo(tmp_path / "go")
    os.mkfifo(tmp_path / "done")
    job = subprocess.Popen(
        ranks.command("-n", "1", "--clean-shm", "own", "--report", "json", ranks.program(text)),
        stdout=-1,
        stderr=-1,
        text=True,
    )
    (tmp_path / "go").read_text()
    Path(f"/dev/shm/{TAG}-foreign").write_bytes(b"x" * 100)
    (tmp_path / "done").write_text("x")
    out, _err = job.communicate()

    assert f'"path": "/dev/shm/{TAG}-foreign", "bytes": 100, "removed": false' in out
    assert Path(f"/dev/shm/{TAG}-foreign").exists()


def test_own_leaves_what_somebody_else_holds(ranks, tmp_path) -> None:  # noqa: F811
    """A process that is none of the job's has opened the job's segment: it may still use it."""
    os.mkfifo(tmp_path / "made")
    os.mkfifo(tmp_path / "held")
    text = MAKES + f"fd = make('{TAG}'); open('{tmp_path}/made', 'w').write('x'); open('{tmp_path}/held').read()"
    job = subprocess.Popen(ranks.command("-n", "1", "--clean-shm", "own", ranks.program(text)), stdout=-1, stderr=-1)
    (tmp_path / "made").read_text()
    with open(f"/dev/shm/{TAG}", "rb") as file, mmap.mmap(file.fileno(), 8192, prot=mmap.PROT_READ):
        (tmp_path / "held").write_text("x")
        job.communicate()

        assert Path(f"/dev/shm/{TAG}").exists()


def test_own_removes_system_v_segments_of_its_processes(ranks) -> None:  # noqa: F811
    libc = ctypes.CDLL(None)
    foreign = libc.shmget(0, 4096, 0o1600)
    try:
        ended = run(
            ranks, "print(ctypes.CDLL(None).shmget(0, 4096, 0o1600), flush=True); os.kill(os.getpid(), 9)", "own"
        )

        told = {thing["path"]: thing["removed"] for thing in ended.verdict["teardown"]["left"]}
        assert told.get(f"shmid {ended.stdout.strip()}") is True
        assert not _exists(int(ended.stdout))
        assert _exists(foreign)
    finally:
        libc.shmctl(foreign, 0, None)


def test_own_removes_a_library_s_folder_that_is_empty_then(ranks) -> None:  # noqa: F811
    text = f"os.mkdir('/dev/shm/{TAG}'); fd = make('{TAG}/inner')\n"
    ended = run(ranks, text + "looked_at(); os.kill(os.getpid(), 9)", "own")

    # The kernel tells of the folder, not of the file in it; the look that follows finds both.
    assert left(ended) == [(f"/dev/shm/{TAG}/inner", True)]
    assert not Path(f"/dev/shm/{TAG}").exists()


def test_nothing_is_called_removed_in_a_job_that_left_nothing(ranks) -> None:  # noqa: F811
    told = run(ranks, "pass", "own").verdict["teardown"]["left"]  # others on this machine may have left something

    assert [thing for thing in told if thing["removed"]] == []


# ── all: in a folder that stands for /dev/shm, since the real one is not ours alone ──────────────────────────────


@pytest.fixture
def segments(monkeypatch) -> list[int]:
    """System V segments of this machine are not ours to remove: what would be is kept here."""
    removed: list[int] = []
    monkeypatch.setattr(leftovers, "_remove_segment", lambda shmid: removed.append(shmid) or True)
    return removed


def test_all_removes_what_nobody_uses_and_only_that(tmp_path, segments) -> None:
    for name in ("unused", "open", "mapped", "sem.old"):
        (tmp_path / name).write_bytes(b"x" * 4096)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").write_bytes(b"x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    watch = Leftovers(0.0, os.getuid(), shm=str(tmp_path))

    with open(tmp_path / "open", "rb"), open(tmp_path / "mapped", "rb") as file:
        held = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
        file.close()
        told = watch.clean(set(), None)
        held.close()

    removed = sorted(thing.path for thing in told if thing.removed and thing.kind == "shm")
    assert removed == [f"{tmp_path}/folder/inner", f"{tmp_path}/sem.old", f"{tmp_path}/unused"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "folder", "link", "mapped", "open"]


def test_all_takes_every_segment_that_nobody_has_attached(tmp_path, segments) -> None:
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    loose, attached = libc.shmget(0, 4096, 0o1600), libc.shmget(0, 4096, 0o1600)
    where = libc.shmat(attached, None, 0)
    try:
        Leftovers(0.0, os.getuid(), shm=str(tmp_path)).clean(set(), None)
    finally:
        libc.shmdt(ctypes.c_void_p(where))
        for shmid in (loose, attached):
            libc.shmctl(shmid, 0, None)

    assert loose in segments
    assert attached not in segments


def test_all_leaves_what_another_process_holds(tmp_path, segments) -> None:
    (tmp_path / "theirs").write_bytes(b"x")
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import sys; f = open('{tmp_path}/theirs'); print('x', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "x\n"
    try:
        told = Leftovers(0.0, os.getuid(), shm=str(tmp_path)).clean(set(), None)
        assert [thing for thing in told if thing.path.startswith(str(tmp_path))] == []
        assert (tmp_path / "theirs").exists()
    finally:
        holder.communicate()


def test_the_kernel_tells_of_a_new_file(tmp_path) -> None:
    owners = ShmOwners(str(tmp_path))
    (tmp_path / "new").write_text("x")
    poll = select.poll()
    poll.register(owners, select.POLLIN)

    assert poll.poll(5000)
    owners.on_news(1.0)
    assert owners.next_wake() == pytest.approx(1.02)
    owners.close()


def test_a_name_that_holds_a_number_proves_nothing_but_torch_s(tmp_path) -> None:
    owners = ShmOwners(str(tmp_path))
    owners.pids = {12, 4711}

    names = ("torch_4711_99_0", "torch_99_4711_0", "psm_ab12cd", "cache-4711", "mytorch_4711_0")
    assert [owners.owns(f"{tmp_path}/{name}", 1) for name in names] == [True, False, False, False, False]
    owners.close()


def _exists(shmid: int) -> bool:
    return any(line.split()[1] == str(shmid) for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:])
