"""Requests as bytes, whole, in pieces and hostile: what is doubtful is refused with a reason. And where to listen."""

import pytest

from rankguard.http.listen import address
from rankguard.http.request import MOST, Refused, Request, parse

HOST = b"Host: localhost\r\n"


def asked(data: bytes) -> tuple[Request, int] | None:
    return parse(bytearray(data))


def refused(data: bytes) -> int:
    with pytest.raises(Refused) as told:
        asked(data)
    return told.value.status


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n", Request(False, "/livez", True, "localhost")),
        (b"HEAD /livez?x=1 HTTP/1.1\r\n" + HOST + b"\r\n", Request(True, "/livez", True, "localhost", query="x=1")),
        (
            b"GET / HTTP/1.1\r\n" + HOST + b"Accept: text/html,*/*;q=0.8\r\n\r\n",
            Request(False, "/", True, "localhost", page=True),
        ),
        (b"GET / HTTP/1.0\r\n\r\n", Request(False, "/", False)),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Request(False, "/", True)),
        (b"GET / HTTP/1.1\r\n" + HOST + b"connection: x , CLOSE\r\n\r\n", Request(False, "/", False, "localhost")),
        (b"GET http://localhost:1/readyz HTTP/1.1\r\n" + HOST + b"\r\n", Request(False, "/readyz", True, "localhost")),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Last-Event-ID: 17\r\n\r\n", Request(False, "/", True, "localhost", 17)),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Last-Event-ID: -1\r\n\r\n", Request(False, "/", True, "localhost")),
        (b"\r\nGET / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n", Request(False, "/", True, "localhost")),
    ],
)
def test_what_is_understood(data: bytes, expected: Request) -> None:
    assert asked(data) == (expected, len(data))
    assert all(asked(data[:n]) is None for n in range(len(data)))
    assert asked(data + b"GET") == (expected, len(data))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / FTP/1.0\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET nowhere HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b" folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * MOST + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * (MOST + 10), 431),
    ],
)
def test_what_is_refused(data: bytes, status: int) -> None:
    assert refused(data) == status


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", "127.0.0.1:8080"),
        (":8080", "127.0.0.1:8080"),
        (":0", "127.0.0.1:0"),
        ("0.0.0.0:80", "0.0.0.0:80"),
        ("[::]:8080", "[::]:8080"),
        (" node-3.example:08080 ", "node-3.example:8080"),
    ],
)
def test_where_to_listen(text: str, expected: str) -> None:
    assert address(text) == expected


@pytest.mark.parametrize("text", ["", ":", "host", "::1:8080", ":65536", ":-1", "a b:80", "http://x:80", ":8080/", "٣"])
def test_where_nobody_can(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        address(text)
