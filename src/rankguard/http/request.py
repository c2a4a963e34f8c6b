"""One HTTP request from the bytes of a connection. Pure, and strict: what is doubtful is refused, never guessed at.

HTTP/1.0 and 1.1 (RFC 9112), GET and HEAD, no bodies: a probe, a scraper, a browser and `curl` need no more.
"""

import re
from typing import NamedTuple

MOST = 8192
"""Bytes of a request line and all headers."""
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?")
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Request(NamedTuple):
    """What is asked. `keep`: the connection may be used again; `seen`: the last event that the client has; `query`: what
    follows a `?`, as it came; `page`: the client shows pages (its Accept names text/html).
    """

    head: bool
    path: str
    keep: bool
    host: str = ""
    seen: int | None = None
    query: str = ""
    page: bool = False

    def number(self, name: str, most: float) -> float | None:
        """The value of `name` in the query, at most `most`; null where there is none. Raises `Refused` for one that is no number."""
        values = [value for key, _, value in (part.partition("=") for part in self.query.split("&")) if key == name]
        if not values:
            return None
        if len(values) > 1 or not _NUMBER.fullmatch(values[0]) or float(values[0]) > most:
            raise Refused(400, f"expected one number for {name}")
        return float(values[0])


class Refused(Exception):  # an answer, not a fault
    """A request that has no other answer than `status`; the connection ends with it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


def parse(data: bytearray) -> tuple[Request, int] | None:
    """The first request in `data` and how many bytes it took; null when it is not complete. Raises `Refused`."""
    skipped = 0
    while data[skipped : skipped + 2] == b"\r\n":  # an empty line before a request is to be passed over (RFC 9112, 2.2)
        skipped += 2
    end = data.find(b"\r\n\r\n", skipped)
    if end < 0:
        if len(data) - skipped > MOST:
            raise Refused(431, f"the request is longer than {MOST} bytes")
        return None
    if end - skipped > MOST:
        raise Refused(431, f"the request is longer than {MOST} bytes")
    first, *rest = bytes(data[skipped:end]).split(b"\r\n")
    head, path, query, version = _request_line(first)
    headers = dict(_header(line) for line in rest)
    if (
        any(name in headers for name in (b"transfer-encoding", b"upgrade"))
        or headers.get(b"content-length", b"0") != b"0"
    ):
        raise Refused(400, "nothing can be sent to this server")
    if version == 1 and sum(line[:5].lower() == b"host:" for line in rest) != 1:
        raise Refused(400, "expected one Host header")
    wishes = {wish.strip() for wish in headers.get(b"connection", b"").lower().split(b",")}
    keep = b"close" not in wishes if version == 1 else b"keep-alive" in wishes
    seen = headers.get(b"last-event-id", b"")
    return (
        Request(
            head,
            path,
            keep,
            headers.get(b"host", b"").decode("latin-1"),
            int(seen) if seen.isdigit() and len(seen) < 16 else None,
            query,
            b"text/html" in headers.get(b"accept", b"").lower(),
        ),
        end + 4,
    )


def _request_line(line: bytes) -> tuple[bool, str, str, int]:
    """Whether it is a HEAD, the path, its query, the minor version."""
    words = line.split(b" ")
    if len(words) != 3 or not words[0] or not _TOKEN.issuperset(words[0]):
        raise Refused(400, "expected `GET /path HTTP/1.1`")
    method, target, version = words
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        if version.startswith(b"HTTP/"):
            raise Refused(505, "expected HTTP/1.0 or HTTP/1.1")
        raise Refused(400, "expected `GET /path HTTP/1.1`")
    if method not in (b"GET", b"HEAD"):
        raise Refused(405, "expected GET or HEAD")
    if target.startswith(b"http://"):  # the absolute form, of proxies
        target = b"/" + target[7:].partition(b"/")[2]
    if not target.startswith(b"/") or any(byte < 0x21 or byte > 0x7E for byte in target):
        raise Refused(400, "expected a path")
    path, _, query = target.decode("ascii").partition("?")
    return method == b"HEAD", path, query, int(version[-1:])


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    # A name that ends with a blank, a line that goes on, a bare CR or NUL: how requests are smuggled past a proxy.
    if not colon or not name or not _TOKEN.issuperset(name) or b"\r" in value or b"\n" in value or b"\0" in value:
        raise Refused(400, "a header is not one")
    return name.lower(), value.strip(b" \t")
