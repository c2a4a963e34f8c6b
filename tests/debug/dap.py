"""A small client of the Debug Adapter Protocol, as an editor has one: requests with their answers, events in order.

https://microsoft.github.io/debug-adapter-protocol/specification (base protocol: `Content-Length` headers and JSON)
"""

import contextlib
import json
import os
import select
import socket
import time
from typing import Any, Self

from rankguard.linux import portuse, sockets, tree

PATIENCE = 240.0
"""Seconds for one answer: debugpy begins in two, and in twenty on a machine that is busy with much else."""


class Editor:
    """Connected to an adapter at `port` of this machine, once there is one."""

    def __init__(self, port: int) -> None:
        self._sequence, self._bytes = 0, b""
        self._messages: list[dict[str, Any]] = []
        until = time.monotonic() + PATIENCE
        while not _answers(port):  # nothing tells when a port of somebody else begins to listen
            assert time.monotonic() < until, f"no adapter listens at {port}"
            select.select([], [], [], 0.02)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()

    def attach(self, path: str, *lines: int, **more: Any) -> None:
        """The dance of an editor: initialize, attach, breakpoints in one file, configuration done."""
        self.ask("initialize", adapterID="test", clientID="test", linesStartAt1=True, pathFormat="path")
        attached = self.send("attach", justMyCode=False, **more)
        self.event("initialized")
        self.ask("setBreakpoints", source={"path": path}, breakpoints=[{"line": line} for line in lines])
        self.ask("configurationDone")
        self.answer(attached)

    def stopped(self) -> tuple[int, str, int]:
        """Wait until a thread stops: its id, and file and line of its innermost frame."""
        thread = self.event("stopped")["threadId"]
        frame = self.ask("stackTrace", threadId=thread)["stackFrames"][0]
        self.frame = frame["id"]
        return thread, frame["source"]["path"], frame["line"]

    def evaluate(self, expression: str) -> str:
        return str(self.ask("evaluate", expression=expression, frameId=self.frame, context="repl")["result"])

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return self.answer(self.send(command, **arguments))

    def send(self, command: str, **arguments: Any) -> int:
        self._sequence += 1
        body = {"seq": self._sequence, "type": "request", "command": command, "arguments": arguments}
        data = json.dumps(body).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        return self._sequence

    def answer(self, sequence: int) -> dict[str, Any]:
        told = self._wait(lambda m: m["type"] == "response" and m["request_seq"] == sequence)
        assert told["success"], told
        return dict(told.get("body") or {})

    def event(self, name: str) -> dict[str, Any]:
        """The next event of this name that no earlier call has taken."""
        return dict(self._wait(lambda m: m["type"] == "event" and m["event"] == name).get("body") or {})

    def _wait(self, wanted: Any) -> dict[str, Any]:
        while True:
            for message in self._messages:
                if wanted(message):
                    self._messages.remove(message)
                    return message
            self._messages.append(self._read())

    def _read(self) -> dict[str, Any]:
        while b"\r\n\r\n" not in self._bytes:
            self._more()
        head, _, rest = self._bytes.partition(b"\r\n\r\n")
        length = int(head.rpartition(b":")[2])
        while len(rest) < length:
            self._more()
            rest = self._bytes.partition(b"\r\n\r\n")[2]
        self._bytes = rest[length:]
        return dict(json.loads(rest[:length]))

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise AssertionError(f"the adapter is gone; it had said: {self._messages}")
        self._bytes += data


def _answers(port: int) -> bool:
    """An adapter listens for editors, and then for the processes that it is to follow.

    Who connects between the two may meet an adapter that does not know its own listener yet: the thread that accepts dies
    of an AttributeError, and no editor is ever answered (debugpy 1.8.22, `adapter/clients.py`, `serve`).
    """
    wanted = {f"socket:[{inode}]" for inode in portuse.sockets_on(port).listening}
    return any(
        len([file for file in files if sockets.named(pid, file).startswith("a TCP socket that listens")]) > 1
        for pid in (tree.descendants(os.getpid()) if wanted else ())
        if wanted & (files := _files(pid))
    )


def _files(pid: int) -> set[str]:
    """What its descriptors are; none of a process that has gone."""
    found = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found
