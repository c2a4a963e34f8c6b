"""Path → answer. What is costly is made anew four times a second at most, whoever asks how often.

Nothing of a request is ever shown in an answer. Read next: `probes.py`, `metrics.py`, `server.py` (who sends it).
"""

import ipaddress
import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from rankguard.http import probes
from rankguard.http.followed import Followed
from rankguard.http.request import Request

EVENTS, METRICS = "/events", "/metrics"
PLAIN = "text/plain; charset=utf-8"
FRESH_S = 0.25

INDEX = """rankguard

/startupz  200 once all ranks are ready (or execute, where nobody reports readiness)
/readyz    200 while all ranks can do their work
/livez     200 while nothing has failed for good
/status    the run so far, in the verdict's shape (JSON); the verdict at its end
/metrics   for Prometheus
/events    the journal as it is written (server-sent events)
"""


class Answer(NamedTuple):
    """What is sent back."""

    status: int
    type: str
    body: bytes


class Routes:
    """`loopback`: only this machine reaches the server. `silent_s()`: for how long the supervisor has owed an answer;
    `metrics()` makes that page.
    """

    def __init__(
        self, run: Followed, silent_s: Callable[[], float], metrics: Callable[[], tuple[str, str]], *, loopback: bool
    ) -> None:
        self._run, self._loopback = run, loopback
        self._made: dict[str, tuple[float, Answer]] = {}
        self._paths: Mapping[str, Callable[[], Answer]] = {
            "/": lambda: Answer(200, PLAIN, INDEX.encode()),
            "/startupz": lambda: _probe(probes.started(run)),
            "/readyz": lambda: _probe(probes.ready(run, silent_s())),
            "/livez": lambda: _probe(probes.live(run, silent_s())),
            "/status": lambda: self._fresh("/status", self._status),
            METRICS: lambda: self._fresh(METRICS, lambda: _page(*metrics())),
        }

    def knows(self, path: str) -> bool:
        return path in self._paths or path == EVENTS

    def answer(self, request: Request) -> Answer:
        """Of everything but `/events`, which goes on."""
        made = self._paths.get(request.path)
        return plain(404, "there is no such page; / lists them") if made is None else made()

    def misdirected(self, request: Request) -> bool:
        """The request names a host that this server is not: a page of somebody else's in a browser of ours, whose name
        was made to point here (DNS rebinding). Where others are let in on purpose, names are their own affair.
        """
        return self._loopback and bool(request.host) and not _names_this_machine(request.host)

    def _fresh(self, path: str, make: Callable[[], Answer]) -> Answer:
        now = time.monotonic()
        if path in self._made and now - self._made[path][0] < FRESH_S:
            return self._made[path][1]
        answer = make()
        self._made[path] = time.monotonic(), answer
        return answer

    def _status(self) -> Answer:
        if self._run.job is None:
            return plain(503, "nothing has been started")
        known = self._run.verdict()
        if self._run.aside.get("final") is None:
            known = known.replace(outcome="running")
        return Answer(200, "application/json", json.dumps(known.to_dict()).encode() + b"\n")


def plain(status: int, why: str) -> Answer:
    """One line."""
    return Answer(status, PLAIN, f"{why}\n".encode())


def head_of(answer: Answer | None, status: int = 200, *, keep: bool = False) -> bytes:
    """The head of a response; of one that goes on if there is no answer."""
    status = status if answer is None else answer.status
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        f"Content-Type: {'text/event-stream' if answer is None else answer.type}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Content-Security-Policy: default-src 'none'",
    ]
    if answer is not None:
        lines.append(f"Content-Length: {len(answer.body)}")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    lines.append(f"Connection: {'keep-alive' if keep else 'close'}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _probe(answer: probes.Answer) -> Answer:
    return plain(200 if answer.yes else 503, answer.why)


def _page(type_: str, text: str) -> Answer:
    return Answer(200, type_, text.encode(errors="replace"))


def _names_this_machine(host: str) -> bool:
    """`localhost:8080`, or any address: a name is what can be made to point elsewhere."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower().rstrip(".") == "localhost" or name.lower().rstrip(".").endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
