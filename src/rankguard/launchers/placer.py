"""The child of a coordinator that brings agents: this machine's own agent, or the program that has all of them placed.

It is told what is wanted by one line of JSON on its stdin, which stays open for as long as we live: its end is ours. What
it has to say comes as lines of JSON on its stdout. Read next: `fleet.py`, `../cli/agent.py`, `../nodes/rayplace.py`.
"""

import contextlib
import json
import os
import select
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Any

from rankguard.errors import SpawnFailed
from rankguard.jobspec import JobSpec
from rankguard.linux import spawn
from rankguard.linux.helper import AT_WORK

URGENT = 0
_SAID = 64 << 10
"""Bytes of a line, and of its last words."""
_END_S = 2.0
"""To end by itself, with a verdict in hand."""


class Placer:
    """One such child. `told` gets each line, and null when it has ended. Raises `SpawnFailed`."""

    def __init__(
        self,
        argv: tuple[str, ...],
        spec: JobSpec,
        asked: bytes,
        selector: BaseSelector,
        told: Callable[[dict[str, Any] | None, float], None],
    ) -> None:
        self._selector, self._told = selector, told
        self._buffer = b""
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
            ours.callback(os.close, self._stdin)
            theirs.callback(os.close, stdin)
            self._out, out = os.pipe2(os.O_CLOEXEC)
            ours.callback(os.close, self._out)
            theirs.callback(os.close, out)
            self._err = os.memfd_create("rankguard-err", os.MFD_CLOEXEC)
            ours.callback(os.close, self._err)
            command = spawn.Command(argv=argv, env=spec.env, cwd=spec.cwd, stdio=(stdin, out, self._err), like_us=True)
            try:
                started = spawn.spawn(command)
            except OSError as error:
                raise SpawnFailed(f"unable to start an agent: {error.strerror or error}", error.errno or 0) from error
            ours.pop_all()
        os.close(started.news)
        self.pid, self._pidfd = started.pid, started.pidfd
        AT_WORK.add(self.pid)
        for fd in (self._out, self._stdin):
            os.set_blocking(fd, False)
        self._unsent = asked
        selector.register(self._stdin, EVENT_WRITE, (URGENT, self._on_stdin))
        selector.register(self._out, EVENT_READ, (URGENT, self._on_said))
        selector.register(self._pidfd, EVENT_READ, (URGENT, self._on_end))

    def _on_stdin(self, _now: float) -> None:
        try:
            self._unsent = self._unsent[os.write(self._stdin, self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._unsent = b""
        if not self._unsent:
            self._selector.unregister(self._stdin)

    def _on_said(self, now: float) -> None:
        try:
            data = os.read(self._out, _SAID)
        except OSError:
            return
        if not data:
            with contextlib.suppress(KeyError):  # its last words were taken with the news of its end
                self._selector.unregister(self._out)
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._buffer = self._buffer[-_SAID:]
        for line in lines:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict):
                    self._told(said, now)

    def _on_end(self, now: float) -> None:
        self._selector.unregister(self._pidfd)
        self._on_said(now)
        self._told(None, now)

    def last_words(self) -> str:
        """Of its stderr."""
        size = os.fstat(self._err).st_size
        text = os.pread(self._err, _SAID, max(0, size - _SAID)).decode(errors="replace").strip()
        lines = text.splitlines() or [""]
        # A library in C++ that aborts (Ray's, on a cluster of another user) says why first, then a page of frames.
        fatal = next((line for line in lines if "what(): " in line or "Check failed" in line), lines[-1])
        return fatal.rpartition("what(): ")[2][:300]

    def close(self) -> None:
        """Its stdin ends, and it is waited for, at most `_END_S` seconds; what then still lives is the warden's."""
        for fd in (self._stdin, self._out, self._pidfd):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(fd)
        os.close(self._stdin)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if poll.poll(_END_S * 1000):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        AT_WORK.discard(self.pid)
        for fd in (self._out, self._pidfd, self._err):
            os.close(fd)
