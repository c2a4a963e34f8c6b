"""The page server's loop: the listening socket, the supervisor's feed, the connections. One thread, one `epoll`.

Nobody is waited for: a request has `REQUEST_S` seconds to arrive whole and an answer as long to be taken, what is held
for all clients together is bounded, and with no room left the one that has asked for nothing for the longest gives way.
It ends when the feed does, which is when the supervisor ends, however that ends; no client can hold that up.
Read next: `client.py`, `routes.py`, `followed.py`.
"""

import contextlib
import os
import resource
import select
import socket
import time
from collections import Counter, OrderedDict
from typing import BinaryIO

from rankguard.http import metrics
from rankguard.http.client import IN, Client
from rankguard.http.events import History, event
from rankguard.http.followed import Followed
from rankguard.http.request import Refused, Request, parse
from rankguard.http.routes import EVENTS, FRESH_S, METRICS, Answer, Routes, head_of, plain

REQUEST_S, IDLE_S, GOODBYE_S = 10.0, 75.0, 2.0
MOST_CLIENTS, MOST_STREAMS = 16384, 64
HELD_BYTES = 16 << 20
"""Of requests that are not complete, all together."""
STREAM_BYTES = 512 << 10
"""Events that a reader has not taken; the history that it began with comes on top."""
SENT_BYTES = 128 << 10
"""That the kernel keeps for one who does not read; by itself it would keep megabytes for each."""
ANSWER_S = 0.5
"""How long /metrics waits for the supervisor's last look at the ranks' memory."""
QUIET_S = 15.0
"""A comment for readers of events, so that nothing in between closes the connection."""
LAST_S = 0.2
_FEED = 1 << 18
_GONE = select.EPOLLHUP | select.EPOLLERR


class Server:
    """`run` until the feed ends. `listening` and `feed` are set not to block; `supervisor` is its pid."""

    def __init__(self, listening: socket.socket, feed: socket.socket, supervisor: int) -> None:
        self._listening, self._feed, self._supervisor = listening, feed, supervisor
        self._epoll = select.epoll()
        self._epoll.register(feed, IN)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_BYTES)  # those of its callers inherit it
        self._run = Followed()
        self._history = History()
        address = listening.getsockname()[0]
        loopback = address.startswith("127.") or address == "::1"
        self._routes = Routes(self._run, self.silent_s, self._metrics, loopback=loopback)
        self._most = _room()
        self._clients: OrderedDict[int, Client] = OrderedDict()  # who has asked last comes last
        self._streams: dict[int, Client] = {}
        self._asking: list[tuple[Client, Request]] = []
        self._rest = b""
        self._held = self._dropped = 0
        self._requests: Counter[tuple[str, int]] = Counter()
        self._asked_at = self._answered_at = self._memory_at = float("-inf")
        self._answers = 0
        self._swept_at = self._told_at = 0.0
        self._listens = False
        self._over = False

    def history(self, journal: BinaryIO, size: int) -> None:
        """The journal up to now, of a run that has begun before us."""
        while size > 0 and (line := journal.readline()):
            size -= len(line)
            self._take(line)

    def run(self) -> None:
        """Until the feed ends."""
        self._listen(True)
        while not self._over:
            calls = False
            for fd, events in self._epoll.poll(self._timeout()):
                if fd == self._feed.fileno():
                    self._on_feed()
                elif fd == self._listening.fileno():
                    calls = True
                elif fd in self._clients and events & _GONE:
                    self._drop(self._clients[fd])
                elif fd in self._clients:
                    self._on_client(self._clients[fd])
            if (
                calls
            ):  # last: a descriptor that was closed just now may be a caller's then, and news of it is not the caller's
                self._on_callers()
            self._answer_late()
            self._sweep()
        until = time.monotonic() + LAST_S
        while any(client.out for client in self._clients.values()) and time.monotonic() < until:
            for fd, _events in self._epoll.poll(LAST_S / 4):
                if fd in self._clients and not self._clients[fd].flush():
                    self._drop(self._clients[fd])

    def silent_s(self) -> float:
        """For how long the supervisor has owed an answer. To ask this asks it for one, once a second at most."""
        now = time.monotonic()
        owes = self._asked_at > self._answered_at
        silent = now - self._asked_at if owes else 0.0
        if not owes and now - self._asked_at >= 1.0:
            self._ask(b"?")
        return silent

    def _ask(self, what: bytes) -> None:
        if self._asked_at <= self._answered_at:
            self._asked_at = time.monotonic()
        with contextlib.suppress(OSError):
            self._feed.send(what)

    def _asks_for_memory(self) -> bool:
        """Ask what the ranks hold, unless that has just been asked; then the page is as new as it gets."""
        if time.monotonic() - self._memory_at < FRESH_S:
            return False
        self._memory_at = time.monotonic()
        self._ask(b"m")
        return True

    # ── The supervisor ───────────────────────────────────────────────────────────────────────────────────────────

    def _on_feed(self) -> None:
        try:
            data = self._feed.recv(_FEED)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._over = True
            return
        self._take(data)
        if self._run.answers != self._answers:
            self._answers, self._answered_at = self._run.answers, time.monotonic()

    def _take(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        told, began = [], self._run.aside.get("final") is None
        for line in whole:
            kind = self._run.take(line)
            if kind is not None:
                told.append(event(self._run.lines, kind, line))
                self._history.add(self._run.lines, told[-1])
        if began and self._run.aside.get("final") is not None and self._streams and self._run.job is not None:
            told.append(self._routes.last())  # nobody may come in time to ask for it
        if told and self._streams:
            self._tell(b"".join(told))

    def _tell(self, told: bytes) -> None:
        self._told_at = time.monotonic()
        for client in list(self._streams.values()):
            if client.pending > STREAM_BYTES:
                self._drop(client, slow=True)
                continue
            client.send(told)
            self._flush(client)

    # ── Connections ──────────────────────────────────────────────────────────────────────────────────────────────

    def _listen(self, yes: bool) -> None:
        if yes != self._listens:
            self._listens = yes
            (self._epoll.register(self._listening, IN) if yes else self._epoll.unregister(self._listening))

    def _on_callers(self) -> None:
        for _ in range(64):  # then the feed gets its turn
            if len(self._clients) >= self._most:
                self._give_way()
            try:
                end, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor, no memory: until a connection ends, or for a second
                if not self._give_way():
                    self._listen(False)
                return
            end.setblocking(False)
            client = Client(end, time.monotonic() + REQUEST_S)
            self._clients[client.fd] = client
            self._epoll.register(client.fd, IN)

    def _give_way(self) -> bool:
        """The one that has asked for nothing for the longest is dropped."""
        client = next((client for client in self._clients.values() if not client.stream), None)
        if client is not None:
            self._drop(client, slow=True)
        return client is not None

    def _on_client(self, client: Client) -> None:
        if client.wanted == IN:
            held = len(client.inbox)
            if not client.receive():
                self._drop(client)
                return
            self._held += len(client.inbox) - held
            if not held and client.inbox:
                client.deadline = min(client.deadline, time.monotonic() + REQUEST_S)
        self._flush(client)
        while self._held > HELD_BYTES and self._give_way():
            pass

    def _flush(self, client: Client) -> None:
        """Send what is to be sent, answer what has been asked, and wait for what comes next."""
        while True:
            if not client.flush():
                self._drop(client)
                return
            if client.last and not client.out and not client.closing:
                client.say_goodbye()
                client.deadline = time.monotonic() + GOODBYE_S
            if client.out or client.stream or client.asked or client.last or not self._next(client):
                break
        if client.ended and not client.out and not client.asked and not client.closing:
            self._drop(client)  # half closed, and nothing is owed any more
            return
        wanted = client.wanted
        if wanted != client.watched:
            client.watched = wanted
            self._epoll.modify(client.fd, wanted)

    def _next(self, client: Client) -> bool:
        """Answer the next request of those that have come; false when there is none."""
        if client.fd not in self._clients:
            return False
        try:
            found = parse(client.inbox)
        except Refused as refused:
            self._respond(client, plain(refused.status, refused.why), None)
            return True
        if found is None:
            return False
        request, size = found
        del client.inbox[:size]
        self._held -= size
        self._clients.move_to_end(client.fd)
        if self._routes.misdirected(request):
            self._respond(client, plain(421, "expected the Host header to be localhost or an address"), None)
        elif request.path == EVENTS and not request.head:
            self._stream(client, request)
        elif request.path == METRICS and not request.head and self._asks_for_memory():
            client.asked = True
            client.deadline = time.monotonic() + IDLE_S
            self._asking.append((client, request))
        elif request.path == EVENTS:
            self._respond(client, Answer(200, "text/event-stream", b""), request)
        else:
            self._respond(client, self._routes.answer(request), request)
        return True

    def _respond(self, client: Client, answer: Answer, request: Request | None) -> None:
        """`request` null: it was none, and the connection ends."""
        path = request.path if request is not None and self._routes.knows(request.path) else "other"
        self._requests[path, answer.status] += 1
        keep = request is not None and request.keep and not client.ended
        client.send(head_of(answer, keep=keep), b"" if request is not None and request.head else answer.body)
        client.deadline = time.monotonic() + (IDLE_S if keep else REQUEST_S)
        if not keep:
            self._held -= len(client.inbox)
            client.inbox.clear()
            client.last = True

    def _stream(self, client: Client, request: Request) -> None:
        if len(self._streams) >= MOST_STREAMS:
            self._respond(client, plain(503, f"{MOST_STREAMS} others read the events already"), None)
            return
        self._requests[EVENTS, 200] += 1
        client.send(head_of(None), b"retry: 1000\n\n", b"".join(self._history.since(request.seen)))
        client.pending = 0  # what it began with does not count as being slow
        client.stream, client.deadline = True, float("inf")
        self._streams[client.fd] = client

    def _drop(self, client: Client, *, slow: bool = False) -> None:
        if self._clients.pop(client.fd, None) is None:
            return
        self._streams.pop(client.fd, None)
        self._held -= len(client.inbox)
        self._dropped += slow
        client.socket.close()  # which takes it out of the epoll set
        self._listen(True)

    # ── Time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _timeout(self) -> float | None:
        if self._asking:
            return 0.05
        return 1.0 if self._clients or not self._listens else None

    def _answer_late(self) -> None:
        """Those who wait for the supervisor's answer, once it is there or has taken too long."""
        owes = self._asked_at > self._answered_at
        if self._asking and (not owes or time.monotonic() - self._asked_at > ANSWER_S):
            asking, self._asking = self._asking, []
            for client, request in asking:
                client.asked = False
                if self._clients.get(client.fd) is client:
                    self._respond(client, self._routes.answer(request), request)
                    self._flush(client)

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept_at < 1.0:
            return
        self._swept_at = now
        self._listen(True)
        for client in [client for client in self._clients.values() if client.deadline < now]:
            self._drop(client, slow=not client.closing)
        if self._streams and now - self._told_at > QUIET_S:
            self._tell(b":\n\n")

    def _metrics(self) -> tuple[str, str]:
        processes = {"supervisor": self._supervisor, "http": os.getpid()}
        used = {name: _cost(pid) for name, pid in processes.items()}
        own = metrics.Own(
            cpu={name: cost[0] for name, cost in used.items() if cost is not None},
            resident={name: cost[1] for name, cost in used.items() if cost is not None},
            connections=len(self._clients),
            dropped=self._dropped,
            requests=self._requests,
        )
        return metrics.TYPE, metrics.text(self._run, own)


def _room() -> int:
    """How many connections there is room for; our limit on open files is raised for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CLIENTS + 64
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return max(1, min(soft, wanted) - 32)


def _cost(pid: int) -> tuple[float, int] | None:
    """CPU seconds and resident bytes of a process (`/proc/PID/stat`, proc(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")
