r"""As much of HTTP/1.1 as a probe of readiness needs: one GET, and what its answer is worth. Pure: bytes → an answer.

200 to 399 is ready, as for Kubernetes' probes (`httpGet`); a redirect is not followed. Whatever else comes, endless headers
and garbage included, is an answer that is not good: `MOST` bytes are looked at. Sources: RFC 9112 (2 to 6), RFC 9110 (15).
Read next: `nearask.py`.
"""

import re

from rankguard.linux.asking import Answer
from rankguard.linux.target import Target

MOST = 16 << 10
"""Bytes of an answer that are read."""
GOOD = range(200, 400)
_STATUS = re.compile(rb"HTTP/\d\.\d (\d{3})(?: ([^\r\n]*))?\r?\n")
_LONGEST_STATUS = 1024
_TOLD = 80
GARBAGE = "answered with something that is no HTTP"


def request(target: Target) -> bytes:
    """A GET that asks the server to close the connection when it has answered."""
    lines = [f"GET {target.path} HTTP/1.1", f"Host: {target.authority}", "User-Agent: rankguard", "Accept: */*"]
    if target.login is not None:
        from base64 import b64encode
        from urllib.parse import unquote

        lines.append(f"Authorization: Basic {b64encode(unquote(target.login).encode()).decode()}")
    return "\r\n".join((*lines, "Connection: close", "", "")).encode()


def answer(data: bytes, *, ended: bool) -> Answer | None:
    """What `data` says so far; null when that is not known yet. `ended`: nothing more comes.

    `good` is final as soon as the status is there. What comes after it is for the words alone.
    """
    while True:
        found = _STATUS.match(data)
        if found is None:
            begins = b"HTTP/".startswith(data[:5]) and len(data) < _LONGEST_STATUS and b"\n" not in data
            if begins and not ended:
                return None
            return Answer(False, GARBAGE if data else "closed the connection without an answer")
        status = int(found[1])
        if status >= 200:
            return told(status, found[2] or b"", data[found.end() :])
        head, _end, data = data.partition(b"\r\n\r\n")  # 100 and 103 come before the answer
        if not data:
            return Answer(False, GARBAGE) if ended or len(head) >= MOST else None


def told(status: int, reason: bytes, rest: bytes) -> Answer:
    """`answered 503: loading`: the first line of the body, else the reason that the status line gives."""
    headers, _end, body = (b"\r\n" + rest).partition(b"\r\n\r\n")  # there may be no header
    lines = [line for line in body.splitlines() if line.strip()]
    if b"transfer-encoding" in headers.lower():
        lines = lines[1:]  # the first one is the size of a chunk
    line = lines[0] if lines else b""
    said = " ".join((line or reason)[: 4 * _TOLD].decode(errors="replace").split())[:_TOLD]
    return Answer(status in GOOD, f"answered {status}" + (f": {said}" if said and status not in GOOD else ""))
