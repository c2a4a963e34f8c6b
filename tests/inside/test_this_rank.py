"""`this_rank()`: what goes over the wire, and that saying it never harms the one who says it."""

import ast
import fcntl
import json
import os
import pickle
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.inside.harness import SRC, Supervisor, environment, python

from rankguard.errors import UsageError
from rankguard.inside import this_rank as module
from rankguard.inside.this_rank import Rank, this_rank


@pytest.fixture
def make(monkeypatch, supervisor):
    """A rank of this very process, on a line of its own to `supervisor`."""
    made = []

    def one(**env):
        for name, value in environment(supervisor, **env).items():
            monkeypatch.setenv(name, value)
        made.append(Rank())
        return made[-1]

    yield one
    for rank in made:
        rank._line.close()


@pytest.fixture
def rank(make):
    return make()


def test_who_it_is(rank):
    assert (rank.rank, rank.local_rank, rank.world_size) == (3, 1, 8)
    assert repr(rank) == "<rank 3 of 8>"


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, (0, 0, 1)),
        ({"RANK": "5", "LOCAL_RANK": "2", "WORLD_SIZE": "16"}, (5, 2, 16)),
        ({"RANK": "x", "WORLD_SIZE": ""}, (0, 0, 1)),
    ],
)
def test_outside_rankguard_it_does_nothing(monkeypatch, env, expected):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "RANKGUARD_RUN_ID", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    rank = Rank()

    assert (rank.rank, rank.local_rank, rank.world_size) == expected
    rank.ready({1, 2})
    rank.ready()
    rank.status("text", 1, 2)
    rank.alive()
    rank.failed("text")


def test_under_systemd_it_does_nothing(make, supervisor):
    """NOTIFY_SOCKET is systemd's, and the service's own business."""
    os.environ["NOTIFY_SOCKET"] = supervisor.address
    os.environ.pop("RANKGUARD_RUN_ID", None)

    Rank().ready()

    assert supervisor.datagrams() == []
    del os.environ["NOTIFY_SOCKET"]


def test_ready(rank, supervisor):
    rank.ready()
    rank.ready({"port": 1, "é": [None, 1.5, True]})
    rank.ready([])
    rank.ready(0)

    first, second, third, fourth = supervisor.messages()
    assert first == {"READY": "1"}
    assert list(second) == ["READY", "X_RANKGUARD_PAYLOAD"]
    assert json.loads(second["X_RANKGUARD_PAYLOAD"]) == {"port": 1, "é": [None, 1.5, True]}
    assert third == {"READY": "1", "X_RANKGUARD_PAYLOAD": "[]"}
    assert fourth == {"READY": "1", "X_RANKGUARD_PAYLOAD": "0"}


@pytest.mark.parametrize("length", [32_740, 32_741, 1 << 20])
def test_a_large_payload_comes_in_a_sealed_memfd(rank, supervisor, length):
    text = "x" * (length - 2)
    rank.ready(text)

    [(data, fds)] = supervisor.datagrams()
    if length == 32_740:
        assert len(data) == 32 << 10
        assert fds == []
        assert data == b'READY=1\nX_RANKGUARD_PAYLOAD="' + text.encode() + b'"'
        return
    assert data == f"READY=1\nX_RANKGUARD_PAYLOAD_SIZE={length}".encode()
    [fd] = fds
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == 0xF
    assert os.pread(fd, length + 1, 0) == b'"' + text.encode() + b'"'
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"y", 0)
    os.close(fd)


def test_payloads_that_are_refused(rank, supervisor):
    import queue

    circle: list = []
    circle.append(circle)
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for payload, words in [
        ({"a": {1}}, "holds a set"),
        ([queue.Queue()], "holds a queue.Queue"),
        (float("nan"), "not JSON: Out of range float"),
        ({(1, 2): 3}, "keys must be str"),
        (circle, "Circular"),
        (deep, "not JSON"),
        ("x" * (64 << 20), "67,108,864 are allowed"),
    ]:
        with pytest.raises(UsageError, match=words):
            rank.ready(payload)
    assert supervisor.datagrams() == []


def test_status(rank, supervisor):
    rank.status("loading")
    rank.status("two\nlines\r\nREADY=1\u2028end", 3, 10)
    rank.status("é" * 9000, 0.5, 1.0)
    rank.status("\udc80", 7)
    rank.status(5, total=3)

    one, two, three, four, five = supervisor.messages()
    assert one == {"STATUS": "loading"}
    assert two == {"STATUS": "two lines READY=1 end", "X_RANKGUARD_PROGRESS": "3/10"}
    assert three == {"STATUS": "é" * 4096, "X_RANKGUARD_PROGRESS": "0.5/1.0"}
    assert four == {"STATUS": "?", "X_RANKGUARD_PROGRESS": "7"}
    assert five == {"STATUS": "5"}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=st.text(), done=st.none() | st.floats() | st.integers() | st.text(), total=st.none() | st.integers())
def test_any_status_is_one_message_of_two_lines_at_most(rank, supervisor, text, done, total):
    rank.status(text, done, total)

    [(data, _)] = supervisor.datagrams()
    lines = data.decode().split("\n")
    assert [line.partition("=")[0] for line in lines] == ["STATUS", "X_RANKGUARD_PROGRESS"][: 1 if done is None else 2]


def test_alive_and_failed(rank, supervisor):
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    rank.alive()
    rank.failed("lost the\nGPU é")

    alive, failed = supervisor.messages()
    assert alive == {"WATCHDOG": "1"}
    assert list(failed) == ["X_RANKGUARD_FAILED"]
    told = json.loads(failed["X_RANKGUARD_FAILED"])
    assert told["text"] == "lost the\nGPU é"
    assert before < told["raised_at"] < time.clock_gettime(time.CLOCK_MONOTONIC)


def fill(rank):
    while rank._line.send(b"STATUS=x") == "sent":
        pass


def test_a_full_socket_drops_what_is_not_important(rank, supervisor, monkeypatch):
    fill(rank)

    monkeypatch.setattr(select, "poll", lambda: pytest.fail("it waits"))
    for _ in range(1000):
        rank.status("x", 1, 2)
        rank.alive()

    queued = len(supervisor.datagrams())
    rank.status("again")
    assert supervisor.messages() == [{"STATUS": "again"}]
    assert 0 < queued < 1000


def test_ready_waits_until_there_is_room(rank, supervisor):
    fill(rank)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(rank.ready, {"a": 1})
        supervisor.socket.settimeout(60)
        while not (data := supervisor.socket.recv(1 << 20)).startswith(b"READY"):
            assert data == b"STATUS=x"
        done.result()
    assert data == b'READY=1\nX_RANKGUARD_PAYLOAD={"a": 1}'


def test_ready_and_failed_give_up(rank, supervisor, monkeypatch, capsys):
    fill(rank)
    monkeypatch.setattr(module, "WAIT_MOST", 0.1)

    with pytest.raises(TimeoutError, match="supervisor of rank 3"):
        rank.ready()
    with pytest.raises(TimeoutError):
        rank.ready("x" * 40_000)
    rank.failed("text")

    assert capsys.readouterr().err == "rankguard: unable to report the failure of rank 3: its supervisor is full\n"


def test_signals_do_not_prolong_the_wait(rank, monkeypatch):
    fill(rank)
    monkeypatch.setattr(module, "WAIT_MOST", 0.5)
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        with pytest.raises(TimeoutError):
            rank.ready()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_supervisor_that_is_gone_is_like_none(rank, supervisor, capsys):
    supervisor.socket.close()

    rank.ready("x")
    rank.ready("x" * 40_000)
    rank.status("x")
    rank.alive()
    rank.failed("x")

    assert capsys.readouterr().err == ""


def test_a_supervisor_that_opens_its_socket_again(monkeypatch):
    folder = tempfile.mkdtemp(dir="/tmp")  # a socket's path may have 107 bytes
    path = f"{folder}/sock"
    monkeypatch.setenv("RANKGUARD_RUN_ID", "x")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    early = Rank()
    early.ready()
    for _ in range(2):
        with Supervisor(path) as supervisor:
            early.status("here")
            assert supervisor.messages() == [{"STATUS": "here"}]
        os.unlink(path)
        early.status("nobody")
    early._line.close()
    os.rmdir(folder)


def test_from_threads_and_signal_handlers_at_once(make, supervisor):
    rank = make()
    before = signal.signal(signal.SIGALRM, lambda *_: rank.status("signal"))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    stop = threading.Event()
    seen = []

    def drain():
        supervisor.socket.settimeout(0.05)
        while not stop.is_set():
            try:
                seen.append(supervisor.socket.recv(1 << 16))
            except TimeoutError:
                pass

    reader = threading.Thread(target=drain)
    reader.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: rank.status("thread", n, 500), range(500)))
            list(pool.map(rank.ready, range(50)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        stop.set()
        reader.join()
    supervisor.socket.setblocking(False)
    seen += [data for data, _fds in supervisor.datagrams()]  # that came after the reader's last look
    assert sum(data.startswith(b"READY") for data in seen) == 50
    assert {data.split(b"\n")[0] for data in seen} <= {b"STATUS=thread", b"STATUS=signal", b"READY=1"}


def test_no_descriptor_left(make, supervisor):
    rank = make()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        while True:
            try:
                kept.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        late = Rank()
        rank.status("early")
        rank.ready(1)
        late.status("late")
        late.alive()
    finally:
        for fd in kept:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    late.status("now")
    late._line.close()

    assert supervisor.messages() == [{"STATUS": "early"}, {"READY": "1", "X_RANKGUARD_PAYLOAD": "1"}, {"STATUS": "now"}]


def test_one_object_per_process(make, supervisor, monkeypatch):
    make()
    monkeypatch.setattr(module, "_ranks", {})
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: this_rank(), range(100)))
    [rank] = found
    assert pickle.loads(pickle.dumps(rank)) is rank

    pid = os.fork()
    if pid == 0:
        other = this_rank()
        other.status("child")
        rank.status("old object in the child")
        os._exit(0 if other is not rank else 1)
    assert os.waitpid(pid, 0)[1] == 0
    rank.status("parent")
    rank._line.close()
    assert [m["STATUS"] for m in supervisor.messages()] == ["child", "old object in the child", "parent"]


def test_the_socket_closed_under_it(make, supervisor):
    rank = make()
    os.close(rank._line._fd)
    other = os.dup2(os.open("/dev/null", os.O_WRONLY), rank._line._fd)

    rank.status("again")

    assert supervisor.messages() == [{"STATUS": "again"}]
    assert os.fstat(other).st_rdev == os.stat("/dev/null").st_rdev
    os.close(other)


def test_an_existing_client_of_sd_notify_says_the_same(supervisor):
    """The shape that `sdnotify` and systemd's own `systemd-notify` send."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + supervisor.address[1:])
        sock.sendall(b"READY=1\nSTATUS=up\n")

    [(data, _)] = supervisor.datagrams()
    assert data.startswith(b"READY=1\n")


def test_its_import_is_light(tmp_path):
    script = "import sys, rankguard; before = set(sys.modules); import rankguard.inside.this_rank; print(set(sys.modules) - before)"
    done = python("-c", script, cwd=tmp_path, env=environment(PYTHONPATH=SRC))

    names = ("", ".inside", ".inside.line", ".inside.this_rank")
    assert ast.literal_eval(done.stdout) == {f"rankguard{name}" for name in names[1:]}


def test_in_a_real_rank(tmp_path, supervisor):
    script = (
        "from rankguard.inside.this_rank import this_rank\nr = this_rank(); r.ready({'rank': r.rank}); r.status('up')"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(supervisor, PYTHONPATH=SRC), check=True)

    assert supervisor.messages() == [{"READY": "1", "X_RANKGUARD_PAYLOAD": '{"rank": 3}'}, {"STATUS": "up"}]
