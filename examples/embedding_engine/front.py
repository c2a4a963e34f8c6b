"""The front of the engine: HTTP on one side, rank 0 on the other. Texts become tokens here; torch is not needed.

    POST /embed   ["a text", "another"]   ->  {"vectors": [[…], […]]}
    GET  /health                          ->  200 {"status": "serving", …}, else 503 {"status": …, "reason": …}

Requests that come while the ranks compute wait in a queue, and go to the ranks together. Nobody waits for ever: whoever
is in a batch when a rank dies is told so at once, and every answer has a time-out.
"""

import json
import queue
import socket
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer

MAX_TOKENS = 256
TEXTS_MOST, BYTES_MOST, WAITING_MOST = 64, 1 << 20, 256
"""Texts of one batch; bytes of one request; requests that wait."""
ANSWER_S, HEALTH_S = 30.0, 5.0


class Front:
    """Told by `serve.py` what the ranks do: `heard`, `open`, `shut`. Serves from the beginning: 503 is an answer, too."""

    def __init__(self, port: int, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        self._asked: queue.Queue[tuple[list[list[int]], Future]] = queue.Queue(WAITING_MOST)
        self._said: dict[int, str] = {}
        self._state = ("starting", "the ranks are started")
        """What the engine does, and why it does not serve."""
        self._line: tuple[socket.socket, Any] | None = None
        """To rank 0, while the ranks serve: where to write, where to read lines."""
        self._http = Server(("127.0.0.1", port), type("Handler", (Handler,), {"front": self}))
        self.port = self._http.server_port
        for work in (self._http.serve_forever, self._dispatch):
            threading.Thread(target=work, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Whoever has asked is answered, and nobody else."""
        if self._line is not None:
            self.shut("stopping", "somebody has asked the engine to end")
        self._http.shutdown()
        self._http.server_close()

    # ── What the ranks do ────────────────────────────────────────────────────────────────────────────────────────

    def heard(self, name: str, fact: dict[str, Any]) -> None:
        """Every fact of the job; what a rank says of its loading is the reason why nothing is served yet."""
        if name == "StatusTold" and fact["text"] is not None:
            far = f" {fact['done'] / fact['total']:.0%}" if fact["total"] else ""
            self._said[fact["rank"]] = f"rank {fact['rank']}: {fact['text']}{far}"

    def open(self, payloads: list[dict[str, Any]]) -> None:
        """All ranks are ready."""
        try:
            line = socket.create_connection(("127.0.0.1", payloads[0]["port"]))
        except OSError:
            return  # rank 0 is gone already; `shut` will say why
        self._line = line, line.makefile("rb")
        self._state = ("serving", "")

    def shut(self, state: str, reason: str) -> None:
        """The ranks have ended, for the time being or for good."""
        self._said.clear()
        self._state = (state, reason)  # first, for whoever finds that there is no line
        self._line = None

    # ── Questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def embed(self, texts: list[str]) -> tuple[int, dict[str, Any]]:
        """The vectors of texts, and the HTTP status that tells how that went."""
        legible = [text.encode(errors="replace").decode() for text in texts]  # JSON can say half a character
        tokens = [encoded.ids for encoded in self._tokenizer.encode_batch(legible)]
        status, answer = self._ask(tokens, ANSWER_S)
        return status, {"vectors": answer["vectors"]} if status == 200 else answer

    def health(self) -> tuple[int, dict[str, Any]]:
        """200 only if every rank has answered now: the question is a batch without a text."""
        status, answer = self._ask([], HEALTH_S)
        return status, {"status": "serving", **answer["facts"]} if status == 200 else answer

    def _ask(self, tokens: list[list[int]], seconds: float) -> tuple[int, dict[str, Any]]:
        answer: Future = Future()
        try:
            if self._line is not None:
                self._asked.put_nowait((tokens, answer))
                return 200, answer.result(seconds)
        except ConnectionError:
            pass
        except queue.Full:
            return 503, {"status": "busy", "reason": f"{WAITING_MOST} requests wait already"}
        except TooLate:
            return 504, {"status": "silent", "reason": f"the ranks have not answered within {seconds:g} s"}
        status, reason = self._state
        if status == "serving":  # it did; what has happened is about to be told
            return 503, {"status": "failing", "reason": "the ranks ended before they had answered"}
        return 503, {"status": status, "reason": "; ".join([reason, *self._said.values()])}

    def _dispatch(self) -> None:
        """The one thread that talks to rank 0: a batch, its answer, the next batch."""
        while True:
            batch = self._next_batch()
            try:
                answered = self._converse([tokens for question, _ in batch for tokens in question])
            except (OSError, ValueError) as error:  # rank 0 is gone; in mid-line, perhaps
                for _, answer in batch:
                    answer.set_exception(ConnectionError(str(error)))
                continue
            vectors = iter(answered["vectors"])
            for question, answer in batch:
                answer.set_result({"vectors": [next(vectors) for _ in question], "facts": answered["facts"]})

    def _next_batch(self) -> list[tuple[list[list[int]], Future]]:
        """What waits, as far as it goes into one batch; at least one."""
        batch = [self._asked.get()]
        while sum(len(question) for question, _ in batch) < TEXTS_MOST:
            try:
                batch.append(self._asked.get_nowait())
            except queue.Empty:
                break
        return batch

    def _converse(self, batch: list[list[int]]) -> dict[str, Any]:
        known = self._line  # read once: `shut` is another thread's
        if known is None:
            raise ConnectionError("no rank serves")
        line, lines = known
        line.sendall(json.dumps(batch).encode() + b"\n")
        return json.loads(lines.readline())


class Server(ThreadingHTTPServer):
    """One thread for each connection, which `server_close` waits for."""

    daemon_threads = False


class Handler(BaseHTTPRequestHandler):
    """HTTP. `front` is the one that it belongs to."""

    front: Front
    timeout = 5.0  # of a client that says nothing

    def do_GET(self) -> None:  # the base class's name
        self._send(*(self.front.health() if self.path == "/health" else (404, {"reason": "GET /health, POST /embed"})))

    def do_POST(self) -> None:  # as above
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BYTES_MOST:
            self.close_connection = True  # what follows is not read
            return self._send(413, {"reason": f"expected Content-Length, at most {BYTES_MOST}"})
        body = self.rfile.read(int(length))
        if self.path != "/embed":
            return self._send(404, {"reason": "GET /health, POST /embed"})
        try:
            texts = json.loads(body)
        except ValueError:
            texts = None
        if (
            not isinstance(texts, list)
            or not 0 < len(texts) <= TEXTS_MOST
            or not all(isinstance(t, str) for t in texts)
        ):
            return self._send(400, {"reason": f"expected a JSON list of 1 to {TEXTS_MOST} texts"})
        return self._send(*self.front.embed(texts))

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode() + b"\n"
        with suppress(ConnectionError):  # whoever asked has gone away
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Not a line for each request."""
