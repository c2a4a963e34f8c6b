"""What outlives a process: real shared memory, real sockets."""

import ctypes
import json
import multiprocessing.shared_memory
import os
import signal
import socket
import time
from multiprocessing import resource_tracker

import pytest
from tests.linux._evidence_helpers import dying

from rankguard.linux import leftovers
from rankguard.linux.leftovers import Leftovers
from rankguard.model import Left

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
NAME = f"rgtest-{os.getpid()}"
SOMEBODY = 1_000_000 + os.getpid()
"""A user id that nobody else has on this machine: nobody's own (65534) is what other tests and services take."""


@pytest.fixture
def watch():
    return Leftovers(time.time(), os.getuid())


@pytest.fixture
def maker():
    """Runs a function in a process that stays, holding what it made, until told to end; yields (start, end)."""
    running = {}

    def start(work):
        ready_r, ready_w = os.pipe()
        pid = os.fork()
        if pid == 0:
            with dying():
                kept = work()
                os.write(ready_w, b"x")
                signal.pause()
                del kept
        running[pid] = ready_r
        os.close(ready_w)
        assert os.read(ready_r, 1) == b"x"
        return pid

    def end(pid):
        os.close(running.pop(pid))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    yield start, end
    for pid in list(running):
        end(pid)


@pytest.fixture
def shm_name():
    yield NAME
    for path in (f"/dev/shm/{NAME}", f"/dev/shm/sem.{NAME}", f"/dev/shm/{NAME}.d/inner"):
        if os.path.exists(path):
            os.unlink(path)
    if os.path.isdir(f"/dev/shm/{NAME}.d"):
        os.rmdir(f"/dev/shm/{NAME}.d")


def ours(found):
    """Other tests may run beside this one, and leave things of their own for a moment."""
    return [left for left in found if NAME in left.path]


def make_shared_memory(monkeypatch, name):
    monkeypatch.setattr(resource_tracker, "register", lambda *_: None)  # it would clean up behind the killed process
    memory = multiprocessing.shared_memory.SharedMemory(name, create=True, size=10_000)
    os.close(memory._fd)  # only mapped from here on
    memory._fd = -1
    return memory


def test_shared_memory_is_left_when_nobody_uses_it(watch, maker, shm_name, monkeypatch):
    start, end = maker
    pid = start(lambda: make_shared_memory(monkeypatch, shm_name))
    held = ours(watch.find({pid}))
    end(pid)
    assert held == []
    assert ours(watch.find({pid})) == [Left(kind="shm", path=f"/dev/shm/{shm_name}", bytes=10_000)]


def test_a_file_that_is_open_and_not_mapped_is_in_use(watch, shm_name):
    with open(f"/dev/shm/{shm_name}", "wb") as file:
        file.write(b"abc")
        assert ours(watch.find(set())) == []
    assert ours(watch.find(set())) == [Left(kind="shm", path=f"/dev/shm/{shm_name}", bytes=3)]


def test_asking_leaves_no_lease_behind(watch, shm_name):
    with open(f"/dev/shm/{shm_name}", "wb"):
        pass
    assert ours(watch.find(set()))
    with open(f"/dev/shm/{shm_name}", "wb") as file:  # would wait for a lease to be broken
        file.write(b"abc")


def test_what_was_there_before_is_not_ours(shm_name):
    with open(f"/dev/shm/{shm_name}", "wb"):
        pass
    watch = Leftovers(time.time(), os.getuid())
    assert ours(watch.find(set())) == []
    os.unlink(f"/dev/shm/{shm_name}")
    with open(f"/dev/shm/{shm_name}", "wb"):  # the same name, another file
        pass
    assert len(ours(watch.find(set()))) == 1


def test_a_semaphore_and_a_file_in_a_folder_count(watch, maker, shm_name):
    start, end = maker

    def work():
        libc.sem_open.restype = ctypes.c_void_p
        assert libc.sem_open(f"/{shm_name}".encode(), os.O_CREAT, 0o600, 1)
        os.mkdir(f"/dev/shm/{shm_name}.d")
        with open(f"/dev/shm/{shm_name}.d/inner", "wb") as file:
            file.write(b"12345")

    pid = start(work)
    assert [left.path for left in ours(watch.find({pid}))] == [f"/dev/shm/{shm_name}.d/inner"]
    end(pid)
    assert ours(watch.find({pid})) == [
        Left(kind="shm", path=f"/dev/shm/{shm_name}.d/inner", bytes=5),
        Left(kind="shm", path=f"/dev/shm/sem.{shm_name}", bytes=32),
    ]


def test_another_user_s_file_is_not_reported(watch, shm_name):
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    with open(f"/dev/shm/{shm_name}", "wb"):
        pass
    os.chown(f"/dev/shm/{shm_name}", 65534, 65534)
    assert ours(watch.find(set())) == []


@pytest.mark.parametrize(
    ("other", "expected"),
    [("nobody", [False, True]), ("hidden", [False, False]), ("slow", [False, False])],
)
def test_where_the_kernel_does_not_say_processes_are_looked_into(shm_name, maker, monkeypatch, other, expected):
    """In doubt nothing is left: a program of the same user that cannot be looked into may be the one that uses it."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    monkeypatch.setattr(leftovers, "in_use", lambda path: None)
    monkeypatch.setattr(leftovers, "_SCAN_LIMIT", 0.0 if other == "slow" else 60.0)
    start, end = maker
    reader, writer = os.pipe()

    def hidden():
        os.setuid(SOMEBODY)
        libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE

    def work():
        os.setuid(SOMEBODY)
        watch = Leftovers(time.time(), SOMEBODY)
        memory = make_shared_memory(monkeypatch, shm_name)
        seen = [bool(ours(watch.find(set())))]
        memory.close()
        os.write(writer, json.dumps([*seen, bool(ours(watch.find(set())))]).encode())

    others = [start(hidden)] if other == "hidden" else []
    pid = start(work)
    assert json.loads(os.read(reader, 100)) == expected
    for process in (pid, *others):
        end(process)
    os.close(reader)
    os.close(writer)


def test_a_segment_of_system_v_is_left_when_nobody_has_it_attached(watch, maker):
    start, end = maker
    reader, writer = os.pipe()

    def work():
        shmid = libc.shmget(0, 20_000, 0o600 | 0o1000)
        assert libc.shmat(shmid, None, 0)
        os.write(writer, str(shmid).encode())

    pid = start(work)
    shmid = int(os.read(reader, 20))
    os.close(reader)
    os.close(writer)
    try:
        expected = Left(kind="sysv-shm", path=f"shmid {shmid}", bytes=20_000)
        assert expected not in watch.find({pid})
        end(pid)
        assert expected in watch.find({pid})
        assert expected in watch.find(set())
        assert expected not in Leftovers(time.time(), os.getuid()).find({pid})
        assert expected not in Leftovers(time.time(), 12345).find({pid})
    finally:
        libc.shmctl(shmid, 0, None)


def test_a_socket_is_left_when_its_process_is_gone(watch, maker, tmp_path):
    path = f"{tmp_path}/{NAME}.sock"
    start, end = maker

    def work():
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        return listener

    pid = start(work)
    watch.note()
    bound = ours(watch.find({pid}))
    end(pid)
    gone = ours(watch.find({pid}))
    os.unlink(path)
    removed = ours(watch.find({pid}))

    assert bound == []
    assert gone == [Left(kind="socket", path=path, bytes=None)]
    assert removed == []


def test_a_socket_from_before_is_not_ours(maker, tmp_path):
    path = f"{tmp_path}/{NAME}.sock"
    start, end = maker

    def work():
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        bound.bind(path)
        return bound

    pid = start(work)
    watch = Leftovers(time.time(), os.getuid())
    watch.note()
    end(pid)
    assert ours(watch.find({pid})) == []


def test_a_look_in_passing_is_cheap(watch, monkeypatch):
    """It reads one file, and looks into no folder and no process."""
    read, asked = leftovers.read_text, []
    monkeypatch.setattr(leftovers, "read_text", lambda path: (asked.append(path), read(path))[1])
    for name in ("entries", "lstat", "in_use", "sysv_segments", "_folders", "_files_of"):
        monkeypatch.setattr(leftovers, name, lambda *of: pytest.fail(f"looks at {of}"))
    watch.note()

    assert asked == ["/proc/net/unix"]
