"""Path → answer. What is costly is made anew four times a second at most, whoever asks how often.

Nothing of a request is ever shown in an answer. Read next: `probes.py`, `metrics.py`, `server.py` (who sends it).
"""

import ipaddress
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from rankguard.http import probes
from rankguard.http.followed import Followed
from rankguard.http.request import Refused, Request

EVENTS, METRICS = "/events", "/metrics"
PLAIN, JSON = "text/plain; charset=utf-8", "application/json"
PAGE = frozenset({"/", "/view.json", "/memory.json", "/log.json"})
"""What a page is made of; whoever probes or scrapes does not ask for it."""
FRESH_S = 0.25
LAST_BYTES = 1 << 20

INDEX = """rankguard

/startupz  200 once all ranks are ready (or execute, where nobody reports readiness)
/readyz    200 while all ranks can do their work
/livez     200 while nothing has failed for good
/status    the run so far, in the verdict's shape (JSON); the verdict at its end
/metrics   for Prometheus
/events    the journal as it is written (server-sent events)

/          for browsers: a page that shows all of it; its parts:
/view.json                what the page shows (rankguard.page/1)
/memory.json?since=S      memory over the run; only what came S seconds after the launch or later
/log.json?rank=R          the last lines of a rank's output
"""
CLOSED = "default-src 'none'"
OPEN = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser may do with the page: nothing of others, and nothing that stands in the page itself."""
BUSY_S, OFTEN_S = 0.05, 0.25
"""Answers that depend on what is asked for may take so long, in so long a time, all together."""
_KEPT = 32


class Answer(NamedTuple):
    """What is sent back. `policy`: what a browser may do with it."""

    status: int
    type: str
    body: bytes
    policy: str = CLOSED


class Routes:
    """`loopback`: only this machine reaches the server. `silent_s()`: for how long the supervisor has owed an answer;
    `metrics()` makes that page.
    """

    def __init__(
        self, run: Followed, silent_s: Callable[[], float], metrics: Callable[[], tuple[str, str]], *, loopback: bool
    ) -> None:
        self._run, self._loopback, self._silent_s = run, loopback, silent_s
        self._made: dict[str, tuple[float, float, Answer]] = {}
        self._spent: deque[tuple[float, float]] = deque()
        self._files: Mapping[str, tuple[str, bytes]] | None = None
        self._paths: Mapping[str, Callable[[Request], Answer]] = {
            "/": self._index,
            "/startupz": lambda _asked: _probe(probes.started(run)),
            "/readyz": lambda _asked: _probe(probes.ready(run, silent_s())),
            "/livez": lambda _asked: _probe(probes.live(run, silent_s())),
            "/status": lambda _asked: self._fresh("/status", self._status),
            METRICS: lambda _asked: self._fresh(METRICS, lambda: _page(*metrics())),
            "/view.json": lambda _asked: self._fresh("/view.json", self._view),
            "/memory.json": self._memory,
            "/log.json": self._log,
        }

    def knows(self, path: str) -> bool:
        return path in self._paths or path == EVENTS

    def answer(self, request: Request) -> Answer:
        """Of everything but `/events`, which goes on. A fault of ours in what a page shows costs that answer, and no probe."""
        try:
            return self._answer(request)
        except Refused as refused:
            return plain(refused.status, refused.why)
        except Exception as error:
            if request.path not in PAGE and "." not in request.path:
                raise
            return plain(500, f"a fault of rankguard: {type(error).__name__}")

    def _answer(self, request: Request) -> Answer:
        made = self._paths.get(request.path)
        if made is not None:
            return made(request)
        found = self._static().get(request.path) if "." in request.path else None
        return plain(404, "there is no such page; / lists them") if found is None else Answer(200, *found, OPEN)

    def misdirected(self, request: Request) -> bool:
        """The request names a host that this server is not: a page of somebody else's in a browser of ours, whose name
        was made to point here (DNS rebinding). Where others are let in on purpose, names are their own affair.
        """
        return self._loopback and bool(request.host) and not _names_this_machine(request.host)

    def _fresh(self, key: str, make: Callable[[], Answer]) -> Answer:
        """Made four times a second at most, and a fifth of the time at most where that is longer."""
        now = time.monotonic()
        if key in self._made:
            at, cost, answer = self._made[key]
            if now - at < max(FRESH_S, 4 * cost):
                return answer
        answer = make()
        ended = time.monotonic()
        self._made.pop(key, None)
        self._made[key] = ended, ended - now, answer
        return answer

    def _seldom(self, key: str, make: Callable[[], Answer]) -> Answer:
        """The same of answers of which there is any number: what they take together is bounded, and so is what is kept."""
        now = time.monotonic()
        while self._spent and now - self._spent[0][0] > OFTEN_S:
            self._spent.popleft()
        if key not in self._made and sum(cost for _at, cost in self._spent) > BUSY_S:
            return plain(503, "asked for too often; once more in a second")
        answer = self._fresh(key, make)
        at, cost, _answer = self._made[key]
        if at >= now:
            self._spent.append((at, cost))
        while len(self._made) > _KEPT:
            del self._made[next(iter(self._made))]
        return answer

    def _index(self, asked: Request) -> Answer:
        """The page, for whoever shows pages; for others the list."""
        if asked.page:
            return Answer(200, *self._static()["/"], OPEN)
        return Answer(200, PLAIN, INDEX.encode())

    def _static(self) -> Mapping[str, tuple[str, bytes]]:
        if self._files is None:
            from rankguard.page.assemble import served  # no probe waits for it

            self._files = served()
        return self._files

    def _status(self) -> Answer:
        if self._run.job is None:
            return _nothing()
        known = self._run.verdict()
        if self._run.aside.get("final") is None:
            known = known.replace(outcome="running")
        return Answer(200, JSON, json.dumps(known.to_dict()).encode() + b"\n")

    def _view(self) -> Answer:
        if self._run.job is None or self._run.job.started_at is None:
            return _nothing()
        from rankguard.http import shown

        now = time.monotonic() if self._run.aside.get("final") is None else self._run.job.now
        return _json(shown.view_of(self._run, now, silent_s=self._silent_s()))

    def last(self) -> bytes:
        """The end of the run as one event, for a page that could not ask any more: what `report --html` holds, with the
        output of the culprit only; less where that is too much to be taken at once.
        """
        from rankguard.http import shown

        assert self._run.job is not None
        view, culprit = shown.view_of(self._run, self._run.job.now), self._run.verdict().culprit
        log = None if culprit is None or culprit.rank is None else shown.log_of(self._run, culprit.rank)
        told = {"view": view, "memory": shown.memory_of(self._run), "logs": [log] if log is not None else []}
        for part in (None, "logs", "memory"):
            told |= {part: None} if part is not None else {}
            data = json.dumps(told).encode()
            if len(data) < LAST_BYTES:
                break
        return b"event: over\ndata: %s\n\n" % data

    def _memory(self, asked: Request) -> Answer:
        since = asked.number("since", 1e10)
        if self._run.job is None:
            return _nothing()
        from rankguard.http import shown

        if since is None:
            return self._fresh("/memory.json", lambda: _json(shown.memory_of(self._run)))
        return self._seldom(f"memory {since}", lambda: _json(shown.memory_of(self._run, since)))

    def _log(self, asked: Request) -> Answer:
        rank = asked.number("rank", 1e6)
        if rank is None or rank != int(rank):
            return plain(400, "expected a rank: /log.json?rank=0")
        if self._run.job is None or not self._run.knows_secrets:
            return _nothing()
        if not rank < len(self._run.job.ranks):
            return plain(404, "there is no such rank")
        from rankguard.http import shown

        return self._seldom(f"log {int(rank)}", lambda: _json(shown.log_of(self._run, int(rank))))


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
        f"Content-Security-Policy: {CLOSED if answer is None else answer.policy}",
    ]
    if answer is not None:
        lines.append(f"Content-Length: {len(answer.body)}")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    lines.append(f"Connection: {'keep-alive' if keep else 'close'}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _nothing() -> Answer:
    return plain(503, "nothing has been started")


def _json(told: object) -> Answer:
    return Answer(200, JSON, json.dumps(told, separators=(",", ":")).encode() + b"\n")


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
