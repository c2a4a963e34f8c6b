"""Writing to real pipes, terminals, sockets, files and full disks: never blocked, nothing torn, every loss counted."""

import fcntl
import os
import pty
import resource
import select
import socket
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankguard.linux import console as module
from rankguard.linux.console import GONE, LIMIT, PAUSE_AT, RESUME_AT, SLOW, Console

LINE = b"x" * 99 + b"\n"
MISSING = "[rankguard: {} lines ({} bytes) are missing here]\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            pass


def drained(console: Console, read: int, at_most: int = 1 << 30) -> bytes:
    """What a reader gets, who reads on while there is something."""
    got = b""
    os.set_blocking(read, False)
    while len(got) < at_most:
        try:
            data = os.read(read, 65536)
        except BlockingIOError:
            data = b""
        if not data and not console.pending:
            return got
        got += data
        console.flush()
    return got


def test_a_pipe_that_is_full_blocks_nobody_and_gets_everything_in_order(pipe: tuple[int, int]) -> None:
    console = Console(pipe[1])
    lines = [b"%07d\n" % n for n in range(200_000)]

    for start in range(0, len(lines), 1_000):
        console.write(b"".join(lines[start : start + 1_000]))

    assert console.pending
    assert drained(console, pipe[0]) == b"".join(lines)
    assert (console.dropped, console.losses("stdout")) == (0, [])
    assert fcntl.fcntl(pipe[1], fcntl.F_GETFL) & os.O_NONBLOCK == 0  # our caller's descriptor is as it was
    console.close()


def test_who_produces_is_asked_to_pause_until_most_is_taken(pipe: tuple[int, int]) -> None:
    console = Console(pipe[1])
    while not console.wants_pause(0.0):
        console.write(LINE * 1000)

    assert PAUSE_AT <= console._size < PAUSE_AT + 200_000
    drained(console, pipe[0], PAUSE_AT // 2)
    assert console.wants_pause(0.0)
    drained(console, pipe[0])
    assert not console.wants_pause(0.0)
    console.close()


def test_a_reader_that_stands_still_holds_nobody_up_and_the_loss_is_said_where_it_is(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    console = Console(pipe[1])
    while console._size <= LIMIT - len(LINE) * 1000:
        console.write(LINE * 1000)
    assert console.wants_pause(now + 4.9)
    assert not console.wants_pause(now + 5.1)

    console.write(LINE * 1000)
    console.write(LINE * 100)
    console.write(LINE)  # there would be room, but what comes in between would look whole

    assert console.losses("stdout") == [f"1101 lines of output (110100 bytes) were not shown on stdout: {SLOW}"]
    drained(console, pipe[0], LIMIT - RESUME_AT + 200_000)
    console.write(b"after\n")
    rest = drained(console, pipe[0])
    assert rest.endswith(LINE + MISSING.format(1101, 110_100).encode() + b"after\n")
    assert len(console.losses("stdout")) == 1
    console.close()


def test_a_reader_that_takes_less_than_a_page_stands_still(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads a byte each four seconds holds up nobody for ever."""
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    ours, theirs = socket.socketpair()  # frees room for less than a page
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    console = Console(ours.fileno())
    console.write(b"x" * (3 << 20) + b"\n")
    assert console.wants_pause(now)
    for _ in range(10):
        now += 4.0
        theirs.recv(100)
        console.flush()

    assert not console.wants_pause(now)
    console.close()
    ours.close()
    theirs.close()


def test_a_reader_that_is_gone(pipe: tuple[int, int]) -> None:
    console = Console(pipe[1])
    console.write(LINE)
    os.close(pipe[0])

    console.write(LINE * 3)
    console.write(LINE * 2)

    assert console.gone
    assert not console.pending
    assert console.losses("stdout") == [f"5 lines of output (500 bytes) were not shown on stdout: {GONE}"]
    console.close()


def test_a_full_disk_is_tried_again_and_the_loss_is_counted_once() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        console = Console(full.fileno())
        for _ in range(5):
            console.write(LINE)

    assert not console.gone
    assert console.losses("stdout") == [
        "5 lines of output (500 bytes) were not shown on stdout: No space left on device"
    ]
    console.close()


def test_a_file_that_may_not_grow_gets_the_rest_once_it_may(tmp_path: Path) -> None:
    """RLIMIT_FSIZE, the nearest thing to a disk that fills up and is freed. In a process of its own."""
    text = f"""
import os, resource, signal, sys
from rankguard.linux.console import Console
LINE = {LINE!r}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (250, resource.RLIM_INFINITY))
fd = os.open({str(tmp_path / "file")!r}, os.O_CREAT | os.O_WRONLY)
console = Console(fd)
console.write(LINE)
console.write(LINE * 3)
console.flush()
console.write(LINE)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
console.write(LINE)
print(console.losses("stdout"))
"""
    told = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)

    kept = (tmp_path / "file").read_bytes()
    assert kept == LINE * 2 + b"x" * 50 + b"\n" + MISSING.format(3, 250).encode() + LINE
    assert told.stdout == "['3 lines of output (250 bytes) were not shown on stdout: File too large']\n"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_terminal_that_was_stopped() -> None:
    """Ctrl-S: nothing is taken until Ctrl-Q, and nothing of ours waits for it."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    console = Console(theirs)
    termios.tcflow(theirs, termios.TCOOFF)

    for _ in range(100):
        console.write(LINE * 100)

    assert console.pending
    assert not select.select([ours], [], [], 0)[0]
    termios.tcflow(theirs, termios.TCOON)
    console.flush()
    got = drained(console, ours)
    assert got == LINE * 10_000
    assert console.dropped == 0
    console.close()
    os.close(ours)
    os.close(theirs)


def test_a_terminal_that_is_hung_up() -> None:
    ours, theirs = pty.openpty()
    console = Console(theirs)
    os.close(ours)

    console.write(LINE)

    assert console.gone
    assert console.dropped == 1
    console.close()
    os.close(theirs)


def test_how_wide_it_is() -> None:
    ours, theirs = pty.openpty()
    console = Console(theirs)
    assert console.columns() == 80  # a terminal that does not say
    termios.tcsetwinsize(theirs, (24, 132))
    assert console.columns() == 132
    console.close()
    with open(os.devnull, "wb") as null:
        assert Console(null.fileno()).columns() == 0
    os.close(ours)
    os.close(theirs)


def test_the_last_flush_waits_for_who_reads_and_not_for_who_does_not(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(pipe[1])
    console.write(LINE * 10_000)
    reader = subprocess.Popen([sys.executable, "-c", "import sys; print(len(sys.stdin.buffer.read()))"],
                              stdin=pipe[0], stdout=subprocess.PIPE)  # fmt: skip

    console.flush_within(30)

    console.close()
    os.close(pipe[1])
    assert reader.communicate()[0] == b"1000000\n"
    read, write = os.pipe()
    late = Console(write)
    late.write(LINE * 30_000)
    late.flush_within(0.05)
    assert not late.pending
    assert late.dropped == 30_000 - fcntl.fcntl(write, fcntl.F_GETPIPE_SZ) // 100
    late.close()
    os.close(read)
    os.close(write)
