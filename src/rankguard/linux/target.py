"""Where a probe of readiness asks: `http://127.0.0.1:8000/health`, `localhost:8000`. Pure: text → what is meant.

Not the asking itself (`nearask.py`, `farask.py`). The command line reads its options with it, so that what has no meaning
is known before anything is started.
"""

import re
import socket

from rankguard.record import Record

_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_ASCII = re.compile(r"[!-~]*")
URL = "http://HOST:PORT/PATH, such as http://127.0.0.1:8000/health"
ENDPOINT = "HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000"


class Target(Record):
    """`scheme`: `tcp`, `http` or `https`. `path` is what is asked for, its query included; empty for `tcp`."""

    scheme: str
    host: str
    port: int
    path: str = ""
    login: str | None = None
    """`user:password`, as it stood in the URL."""

    @property
    def name(self) -> str:
        """As it may be told: without login, and without the query, which may hold a key."""
        where = f"{_bracketed(self.host)}:{self.port}"
        if self.scheme == "tcp":
            return where
        path, query, _rest = self.path.partition("?")
        return f"{self.scheme}://{where}{path}{query and '?…'}"

    @property
    def authority(self) -> str:
        """For the header `Host`: the port is left out where it is the scheme's own (RFC 9110, 7.2)."""
        host = _bracketed(self.host)
        return host if _PORTS.get(self.scheme) == self.port else f"{host}:{self.port}"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Numeric addresses, where no name server has to be asked for them; empty where one has."""
        if self.host.casefold() == "localhost":
            return ("127.0.0.1", "::1")
        return (self.host,) if _is_numeric(self.host) else ()

    @property
    def is_loopback(self) -> bool:
        """It is this machine, in our network namespace."""
        return any(each.startswith("127.") or each in ("::1", "0.0.0.0", "::") for each in self.addresses)  # noqa: S104  # asked, not bound


def url(text: str) -> Target:
    """A URL of http or https. Raises `ValueError` with what was expected."""
    from urllib.parse import urlsplit  # 3 ms, for those who ask by URL

    if not _ASCII.fullmatch(text):
        raise ValueError(f"{URL}, without blanks")
    try:
        parts = urlsplit(text)
        port = parts.port
        host = parts.hostname or ""
    except ValueError:
        raise ValueError(URL) from None
    if parts.scheme not in _PORTS or port == 0:
        raise ValueError(URL)
    login = parts.netloc.rpartition("@")[0] or None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, _host(host, URL), port or _PORTS[parts.scheme], path, login)


def endpoint(text: str) -> Target:
    """`HOST:PORT`, `[IPv6]:PORT`. Raises `ValueError` with what was expected."""
    host, colon, port = text.strip().rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (
        not colon
        or not port.isdecimal()
        or len(port) > 5
        or not 0 < int(port) < 65536
        or (":" in bare and bare == host)
    ):
        raise ValueError(ENDPOINT)
    return Target("tcp", _host(bare, ENDPOINT), int(port))


def _host(text: str, expected: str) -> str:
    if not _is_numeric(text) and not _NAME.fullmatch(text):
        raise ValueError(expected)
    return text


def _is_numeric(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
