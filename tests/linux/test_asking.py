"""Probes of readiness against servers that answer, that do not, and that mean harm: real sockets, time that is moved.

The server is the test itself: it accepts and sends by hand, so that what comes when is known.
"""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from selectors import EpollSelector

import pytest

from rankguard.linux import http, target
from rankguard.linux.asking import BOUND_S, Asking
from rankguard.linux.farask import FarAsk
from rankguard.linux.filelook import FileLook
from rankguard.linux.nearask import WORDS_S, NearAsk, _is_itself

FD = "/proc/self/fd"


@pytest.fixture
def selector() -> Iterator[EpollSelector]:
    """As it was, when the test is over: no news, no descriptor. (What others have left may be collected meanwhile.)"""
    with EpollSelector() as made:
        before = set(os.listdir(FD))
        yield made
        assert not made.get_map()
        assert set(os.listdir(FD)) - before == set()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(60)
        yield made


def asking(selector: EpollSelector, where: target.Target) -> Asking:
    return Asking(where.name, lambda _now, done: NearAsk(where, selector, 4, done))


def health(server: socket.socket) -> target.Target:
    return target.url(f"http://127.0.0.1:{server.getsockname()[1]}/health")


def turn(selector: EpollSelector, now: float, timeout: float = 10.0) -> bool:
    """One of the driver's."""
    news = selector.select(timeout)
    for key, _events in news:
        key.data[1](now)
    return bool(news)


def heard(selector: EpollSelector, server: socket.socket, data: bytes, *, ends: bool = True) -> tuple[bool, str | None]:
    """What a probe hears from a server that sends `data`, and then ends or keeps silent."""
    asked = asking(selector, health(server))
    asked.wake(0.0)
    turn(selector, 0.0)
    end, _address = server.accept()
    with end:
        end.settimeout(10)
        assert end.recv(4096).startswith(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:")
        end.sendall(data)
        if ends:
            end.shutdown(socket.SHUT_WR)
            while asked._ask is not None:
                turn(selector, 0.0)
        else:
            turn(selector, 0.0, 10.0 if data else 0.0)
            asked.wake(BOUND_S)
    asked.close()
    return asked.good, asked.heard


ANSWERS = {
    "ok": (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", (True, "answered 200")),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", (True, "answered 302")),
    "loading": (b"HTTP/1.1 503 Service Unavailable\r\n\r\nloading\nmore\n", (False, "answered 503: loading")),
    "no body": (b"HTTP/1.0 404 Not Found\r\n\r\n", (False, "answered 404: Not Found")),
    "chunked": (b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n7\r\nloading\r\n0\r\n\r\n", (False, "answered 503: loading")),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", (True, "answered 200")),
    "only continue": (b"HTTP/1.1 100 Continue\r\n\r\n", (False, http.GARBAGE)),
    "nothing": (b"", (False, "closed the connection without an answer")),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\xff\xfe 200 OK\n", (False, http.GARBAGE)),
    "half": (b"HTTP/1.1 20", (False, http.GARBAGE)),
    "endless status": (b"HTTP/1.1 200 " + b"x" * 5000, (False, http.GARBAGE)),
    "endless headers": (b"HTTP/1.1 500 Oh\r\n" + b"X: y\r\n" * 9000, (False, "answered 500: Oh")),
    "escapes": (b"HTTP/1.1 500 \x1b[2J\xff\r\n\r\n", (False, "answered 500: \x1b[2J�")),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_server_says(selector: EpollSelector, server: socket.socket, name: str) -> None:
    data, expected = ANSWERS[name]

    assert heard(selector, server, data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (False, "accepts connections, and has not answered")),
        (b"HTTP/1.1 200 OK\r\n", (True, "answered 200")),
        (b"HTTP/1.1 503 No\r\n\r\nload", (False, "answered 503: load")),
        (b"HT", (False, "accepts connections, and has not answered")),
    ],
)
def test_one_that_stops_in_the_middle(
    selector: EpollSelector, server: socket.socket, data: bytes, expected: tuple[bool, str]
) -> None:
    assert heard(selector, server, data, ends=False) == expected


def test_one_that_sends_without_end_is_cut_off(selector: EpollSelector, server: socket.socket) -> None:
    asked = asking(selector, health(server))
    asked.wake(0.0)
    turn(selector, 0.0)
    end, _address = server.accept()
    sent = 0
    with end:
        end.settimeout(10)
        end.sendall(b"HTTP/1.1 103 Early Hints\r\n")
        while asked._ask is not None:
            end.sendall(b"Link: </x>\r\n" * 100)
            sent += 1200
            turn(selector, 0.0)

    assert (asked.good, asked.heard, sent < 1 << 20) == (False, http.GARBAGE, True)
    asked.close()


def test_a_status_decides_and_its_words_are_not_waited_for_long(selector: EpollSelector, server: socket.socket) -> None:
    asked = asking(selector, health(server))
    asked.wake(0.0)
    turn(selector, 0.0)
    end, _address = server.accept()
    with end:
        end.sendall(b"HTTP/1.1 200 OK\r\n")
        while asked.next_wake() == BOUND_S:
            turn(selector, 0.0)
        assert (asked.good, asked.next_wake()) == (False, WORDS_S)
        asked.wake(WORDS_S)

    assert (asked.good, asked.heard, asked.next_wake()) == (True, "answered 200", None)


def test_nobody_listens_then_somebody_does_and_the_pauses_grow(selector: EpollSelector) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    asked = asking(selector, target.endpoint(f"127.0.0.1:{port}"))
    pauses, now = [], 0.0
    for _ in range(6):
        asked.wake(now)
        turn(selector, now)
        assert (asked.good, asked.heard) == (False, "connection refused")
        due = asked.next_wake()
        assert due is not None
        pauses.append(round(due - now, 3))
        asked.wake(now)  # not yet
        assert not selector.get_map()
        now = due
    with socket.create_server(("127.0.0.1", port)):
        asked.wake(now)
        turn(selector, now)

    assert (asked.good, asked.heard, pauses) == (True, "accepts connections", [0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_one_question_at_a_time(selector: EpollSelector, server: socket.socket) -> None:
    asked = asking(selector, health(server))
    for now in (0.0, 0.1, 1.0, 4.9):
        asked.wake(now)
        turn(selector, now, 0)
        assert len(selector.get_map()) == 1
    assert asked.next_wake() == BOUND_S
    asked.wake(BOUND_S)  # it has accepted, and never answers
    server.accept()[0].close()
    server.setblocking(False)

    with pytest.raises(BlockingIOError):
        server.accept()
    assert (asked.heard, not selector.get_map()) == ("accepts connections, and has not answered", True)


def test_localhost_is_both_families(selector: EpollSelector) -> None:
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with listening:
        asked = asking(selector, target.endpoint(f"localhost:{listening.getsockname()[1]}"))
        asked.wake(0.0)
        while asked._ask is not None:
            turn(selector, 0.0)

    assert asked.good


def test_a_socket_that_has_connected_to_itself_is_nobody() -> None:
    with socket.socket() as alone, socket.create_server(("127.0.0.1", 0)) as server:
        alone.bind(("127.0.0.1", 0))
        alone.connect(alone.getsockname())
        with socket.create_connection(server.getsockname()) as other:
            assert (_is_itself(alone), _is_itself(other)) == (True, False)


def test_without_descriptors_it_is_told_and_tried_again(selector: EpollSelector, server: socket.socket) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked = asking(selector, health(server))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        asked.wake(0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert (asked.heard, asked.next_wake()) == ("unable to ask: Too many open files", 0.1)


# ── By a program of its own ──────────────────────────────────────────────────────────────────────────────────────────


def far(selector: EpollSelector, asked: dict[str, object]) -> tuple[bool, str | None]:
    made = Asking("it", lambda _now, done: FarAsk(asked, selector, 4, done))
    made.wake(0.0)
    turn(selector, 0.0, 30.0)
    made.close()
    return made.good, made.heard


def test_a_name_is_looked_up_elsewhere(selector: EpollSelector, server: socket.socket) -> None:
    port = server.getsockname()[1]
    assert target.endpoint(f"some-host:{port}").addresses == ()

    assert far(selector, {"tcp": ["127.1", port]}) == (True, "accepts connections")
    assert far(selector, {"tcp": ["no-such-host.invalid", port]})[0] is False


def test_tls(selector: EpollSelector, server: socket.socket, tmp_path: Path) -> None:
    """The certificate is nobody's, as that of most engines inside a cluster."""
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x",
         "-keyout", tmp_path / "key", "-out", tmp_path / "cert"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        pytest.skip("no openssl to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    asked = {"scheme": "https", "host": "127.0.0.1", "port": server.getsockname()[1], "path": "/h", "login": "u:p%40"}
    made_of = Asking("it", lambda _now, done: FarAsk(asked, selector, 4, done))
    made_of.wake(0.0)
    end, _address = server.accept()
    with context.wrap_socket(end, server_side=True) as tls:
        got = tls.recv(4096)
        tls.sendall(b"HTTP/1.1 503 No\r\nConnection: close\r\n\r\nloading")
    turn(selector, 0.0, 30.0)

    assert (made_of.good, made_of.heard) == (False, "answered 503: loading")
    assert b"Authorization: Basic dTpwQA==" in got


def test_one_that_takes_too_long_is_ended(selector: EpollSelector, server: socket.socket) -> None:
    asked = {"scheme": "http", "host": "127.0.0.1", "port": server.getsockname()[1], "path": "/", "login": None}
    made = Asking("it", lambda _now, done: FarAsk(asked, selector, 4, done))
    made.wake(0.0)
    server.accept()[0].close()
    made.wake(BOUND_S)

    assert made.good is False
    made.close()


def test_a_file_by_the_program(selector: EpollSelector, tmp_path: Path) -> None:
    (tmp_path / "there").touch()

    assert far(selector, {"file": str(tmp_path / "there")}) == (True, "is there")


def test_what_it_asks_is_not_on_a_command_line(selector: EpollSelector, server: socket.socket) -> None:
    asked = {
        "scheme": "http",
        "host": "127.0.0.1",
        "port": server.getsockname()[1],
        "path": "/?k=secret",
        "login": None,
    }
    made = FarAsk(asked, selector, 4, lambda _answer, _now: None)
    pid = made._helper.pid
    with server.accept()[0]:  # it waits for an answer meanwhile; one that has ended has no command line
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    made.close()

    assert (b"askprogram" in line, b"secret" in line) == (True, False)
    assert sys.executable


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_kernel_tells_of_a_file(selector: EpollSelector, tmp_path: Path) -> None:
    look = FileLook(str(tmp_path / "ready"), selector, 4)
    look.wake(0.0)
    assert (look.good, look.heard) == (False, "is not there")
    (tmp_path / "ready").touch()
    assert turn(selector, 0.001)
    due = look.next_wake()
    assert due is not None
    look.wake(due)
    look.close()

    assert (look.good, due < 0.05) == (True, True)


def test_a_file_of_before_counts_once_it_has_changed(selector: EpollSelector, tmp_path: Path) -> None:
    path = tmp_path / "ready"
    path.touch()
    look, attached = (FileLook(str(path), selector, 4, fresh=fresh) for fresh in (True, False))
    look.wake(0.0)
    attached.wake(0.0)
    assert (look.good, look.heard, attached.good) == (False, "is as it was before the start", True)
    path.write_text("ready")
    look.wake(10.0)
    look.close()
    attached.close()

    assert look.good


def test_a_folder_that_is_made_later(selector: EpollSelector, tmp_path: Path) -> None:
    look = FileLook(str(tmp_path / "run" / "ready"), selector, 4)
    look.wake(0.0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ready").touch()
    look.wake(1.0)
    look.close()

    assert look.good


# ── What is meant ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "name", "authority"),
    [
        ("http://127.0.0.1:8000/health", "http://127.0.0.1:8000/health", "127.0.0.1:8000"),
        ("http://localhost", "http://localhost:80/", "localhost"),
        ("https://u:p@host:443/a?key=x#f", "https://host:443/a?…", "host"),
        ("http://[::1]:9/x", "http://[::1]:9/x", "[::1]:9"),
        ("http://sglang_router-0.svc:9", "http://sglang_router-0.svc:9/", "sglang_router-0.svc:9"),
    ],
)
def test_urls(text: str, name: str, authority: str) -> None:
    found = target.url(text)

    assert (found.name, found.authority) == (name, authority)


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1:8000", "ftp://x/", "http://", "http:///x", "http://x:0/", "http://x:99999/", "http://x:y/", "http://a b/",
     "http://x/\r\nHost: y", "http://x/é", "http://[::1", "http://-x/", "file:///etc/passwd", "http://x\t/"],
)  # fmt: skip
def test_no_urls(text: str) -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT/PATH"):
        target.url(text)


@pytest.mark.parametrize(
    "text", ["", "8000", ":8000", "host:", "host:0", "host:65536", "::1:80", "a b:1", "host:1:2", "[x:80"]
)
def test_no_endpoints(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        target.endpoint(text)


def test_endpoints() -> None:
    assert [target.endpoint(t).name for t in ("127.0.0.1:80", "[::1]:80", "host:1")] == [
        "127.0.0.1:80",
        "[::1]:80",
        "host:1",
    ]
