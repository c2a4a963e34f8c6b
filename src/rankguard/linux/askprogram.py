"""The program that asks once what may block (`farask.py`), and prints `[good, heard]` as JSON. Run by its path, without our
package: the standard library only. A certificate is not checked, as no probe of Kubernetes does: it is asked whether the
engine answers, not who it is. Redirects are not followed.
"""

import json
import os
import sys
from typing import Any

ASKED = "RANKGUARD_ASKED"
_TIMEOUT_S = 5.0


def asked(question: dict[str, Any]) -> tuple[bool, str]:
    """The answer to one question."""
    if "file" in question:
        return _file(question["file"], question.get("before"))
    if "tcp" in question:
        return _tcp(*question["tcp"])
    return _url(question)


def stamp(path: str) -> list[int] | None:
    """What a file is now, so that a change of it shows; null when there is none."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [found.st_dev, found.st_ino, found.st_ctime_ns]


def _file(path: str, before: list[int] | None) -> tuple[bool, str]:
    import time

    while True:  # it is killed by whoever asks
        try:
            now = stamp(path)
        except OSError as error:
            return False, str(error.strerror)
        if now is not None and now != before:
            return True, "is there"
        time.sleep(0.2)


def _tcp(host: str, port: int) -> tuple[bool, str]:
    import socket

    try:
        socket.create_connection((host, port), _TIMEOUT_S).close()
    except OSError as error:
        return False, _why(error)
    return True, "accepts connections"


def _url(question: dict[str, Any]) -> tuple[bool, str]:
    import http.client
    import ssl

    host, port, path, login = (question[name] for name in ("host", "port", "path", "login"))
    headers = {"User-Agent": "rankguard", "Accept": "*/*", "Connection": "close"}
    if login is not None:
        from base64 import b64encode
        from urllib.parse import unquote

        headers["Authorization"] = f"Basic {b64encode(unquote(login).encode()).decode()}"
    if question["scheme"] == "https":
        unchecked = ssl._create_unverified_context()  # noqa: S323, SLF001  # why: see above
        wire: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=_TIMEOUT_S, context=unchecked
        )
    else:
        wire = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        wire.request("GET", path, headers=headers)
        found = wire.getresponse()
        line = next((line for line in found.read(4096).decode(errors="replace").splitlines() if line.strip()), "")
    except (OSError, http.client.HTTPException) as error:
        return False, _why(error)
    good = 200 <= found.status < 400
    said = " ".join((line or found.reason).split())[:80]
    return good, f"answered {found.status}" + (f": {said}" if said and not good else "")


def _why(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return (text[:1].lower() + text[1:])[:120]


if __name__ == "__main__":
    json.dump(asked(json.loads(os.environ[ASKED])), sys.stdout)
