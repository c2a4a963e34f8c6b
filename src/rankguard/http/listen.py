"""The socket that the page server listens on, made by the front: an address that cannot be had is an error before
anything starts, and a page server that is started again has the same socket.
"""

import errno
import os
import re
import socket

from rankguard.errors import SpawnFailed

BACKLOG = 1024
_ADDRESS = re.compile(r"(?:(\[[0-9A-Fa-f:.]+\]|[\w.-]*):)?([0-9]{1,5})")


def address(text: str) -> str:
    """`HOST:PORT` of what somebody asks for: `:8080` and `8080` are this machine alone, port 0 is a free one.

    Raises `ValueError` with what was expected.
    """
    found = _ADDRESS.fullmatch(text.strip())
    if found is None or int(found[2]) > 65535:
        raise ValueError("HOST:PORT, such as :8080 or 0.0.0.0:8080")
    return f"{found[1] or '127.0.0.1'}:{int(found[2])}"


def listen(where: str) -> socket.socket:
    """A socket that listens on an `address`. Raises `SpawnFailed`."""
    host, _colon, port = where.rpartition(":")
    host = host.strip("[]")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _type, _proto, _name, place = found[0]
        end = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise _refused(where, error) from error
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what an earlier run's clients left waits a minute
        end.bind(place)
        end.listen(BACKLOG)
    except OSError as error:
        end.close()
        raise _refused(where, error) from error
    return end


def address_of(end: socket.socket) -> str:
    """`127.0.0.1:41233`, `[::1]:8080`: where it listens."""
    host, port = end.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refused(where: str, error: OSError) -> SpawnFailed:
    host, _colon, port = where.rpartition(":")
    number = error.errno if not isinstance(error, socket.gaierror) else None
    hint = None
    if number == errno.EADDRINUSE:
        hint = f"--http {host}:0 takes a free port; `ss -ltnp sport = {port}` shows who has this one"
    elif number == errno.EACCES:
        hint = f"--http {host}:8080; ports below 1024 are root's"
    elif number in (errno.EADDRNOTAVAIL, None):
        hint = f"--http :{port} listens on this machine alone, --http 0.0.0.0:{port} on all its addresses"
    reason = os.strerror(number) if number else error.strerror
    return SpawnFailed(f"unable to listen on `{where}`: {reason}", number, hint=hint)
