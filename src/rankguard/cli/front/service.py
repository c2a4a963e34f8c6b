"""What systemd is told of a job, where it is a service of `Type=notify` (sd_notify(3), sd_watchdog_enabled(3)).

READY when all ranks are, STATUS in a line, WATCHDOG while the supervisor answers and nothing has failed for good,
STOPPING, and EXTEND_TIMEOUT_USEC while ranks still show progress, or a clock of ours runs. The main process stays the
front. Whoever listens can be gone or full: it never holds up the job. Ranks have sockets of their own, and neither they
nor anything else that we start inherits these variables. Read next: docs/systemd.md, `main.py`.
"""

import errno
import os
import socket
from collections.abc import Callable, MutableMapping
from typing import Any

from rankguard.jobspec import JobSpec
from rankguard.report.wording import printable

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
LOOK_S, EXTENSION_S = 10.0, 60.0
"""While ranks start: how often it is asked whether they get on, and how much time each such look is worth."""
SILENT_S = 30.0
"""A rank that starts and has said nothing for so long is not waited for by us; systemd's own clock decides."""
STATUS_S, AGAIN_S = 0.25, 0.2
_STATUS_CHARS = 300

Ask = Callable[[dict[str, Any]], None]


class Service:
    """Of one front. `heard` takes what the supervisor says, `tick` does what is due."""

    def __init__(self, spec: JobSpec, address: str, watchdog_s: float | None, now: float) -> None:
        self._spec, self._address = spec, address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._beat_s = None if watchdog_s is None else watchdog_s / 2
        self._beat_at = now if self._beat_s is not None else None
        self._look_at: float | None = now + LOOK_S
        self._extended_at = now - LOOK_S
        self._expects = spec.expect_ready or spec.ready_timeout is not None
        self._ready: set[int] = set()
        self._said_ready = self._stopping = self._failed = False
        self._owed: list[str] = []
        self._status, self._shown, self._shown_at = self._starting(), "", now - STATUS_S
        self._again_at: float | None = None

    @property
    def due(self) -> float | None:
        """When `tick` has something to do."""
        status = self._shown_at + STATUS_S if self._status != self._shown else None
        times = (self._beat_at, self._look_at, self._again_at, status)
        return min((at for at in times if at is not None), default=None)

    def tick(self, now: float, ask: Ask) -> None:
        """Ask the supervisor whether it is there, say what has changed, and again what could not be said."""
        if self._beat_at is not None and now >= self._beat_at:
            self._beat_at = now + (self._beat_s or 0.0)
            ask({"do": "alive"})
        if self._look_at is not None and now >= self._look_at:
            self._look_at = now + LOOK_S
            ask({"do": "alive"})
        if self._again_at is not None and now >= self._again_at:
            owed, self._owed, self._again_at = self._owed, [], None
            for message in owed:
                self._say(message, now)
        if self._status != self._shown and now >= self._shown_at + STATUS_S:
            self._shown_at = now
            if self._say(f"STATUS={self._status}", now, owe=False):
                self._shown = self._status  # else the latest, when there is room

    def heard(self, message: dict[str, Any], now: float) -> None:
        """News of the supervisor's."""
        match message["is"]:
            case "payload":
                self._expects = True
                self._ready.add(message["rank"])
                self._status = self._starting()
            case "alive":
                self._alive(message, now)
            case "told":
                self._told(message["what"], message, now)
            case "finished":
                self._end(message["verdict"]["statement"], now)
            case "spawn-failed":
                self._end(message["statement"], now)

    def _alive(self, message: dict[str, Any], now: float) -> None:
        if self._failed:
            return
        if self._beat_s is not None:
            self._say("WATCHDOG=1", now, owe=False)
        starts = not (self._said_ready or self._stopping) and now >= self._extended_at + LOOK_S
        silent = message["silent_s"]
        if starts and (self._spec.ready_timeout is not None or (silent is not None and silent < SILENT_S)):
            self._extended_at = now
            self._extend(EXTENSION_S, now)

    def _told(self, what: str, message: dict[str, Any], now: float) -> None:
        match what:
            case "readiness-expected":
                self._expects = True
            case "spawned" if not self._expects:
                self._is_ready(f"running: {self._all()}", now)
            case "all-ready":
                self._is_ready(f"ready: {self._all()}", now)
            case "stopping":
                self._stop("stopping", self._spec.shutdown_timeout, now)
            case "failed":  # told before anything else; there is no further attempt
                self._failed = True
                self._stop("failed: a rank failed", self._spec.grace, now)
            case "judged":
                self._failed = True
                self._stop(f"failed: {message['verdict']['statement']}", self._spec.grace, now)
            case "attempt-failed" | "restarting":
                self._ready.clear()
                self._status = _line(f"restarting: {message['text']}")

    def _is_ready(self, status: str, now: float) -> None:
        self._status = _line(status)
        if self._said_ready:  # of an earlier attempt: systemd knows of one start only
            return
        self._said_ready, self._look_at = True, None
        self._shown, self._shown_at = self._status, now
        self._say(f"READY=1\nSTATUS={self._status}", now)

    def _stop(self, status: str, within: float, now: float) -> None:
        """The job ends by itself or because it was asked to: systemd's patience has to last for ours."""
        self._status = _line(status)
        if self._stopping:
            return
        self._stopping, self._look_at = True, None
        self._shown, self._shown_at = self._status, now
        self._say(f"STOPPING=1\nSTATUS={self._status}", now)
        if within:
            self._extend(within + self._spec.grace + EXTENSION_S / 2, now)

    def _end(self, statement: str, now: float) -> None:
        self._status = _line(statement)
        self._failed = True
        self._beat_at = self._look_at = None
        self._shown = self._status
        self._say(("" if self._stopping else "STOPPING=1\n") + f"STATUS={self._status}", now)

    def _extend(self, seconds: float, now: float) -> None:
        self._say(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", now)

    def _starting(self) -> str:
        ranks = self._spec.nprocs
        if not self._expects or self._spec.watch is not None:
            return "starting"
        return f"starting: {len(self._ready)} of {ranks} {'rank' if ranks == 1 else 'ranks'} ready"

    def _all(self) -> str:
        if self._spec.watch is not None:
            return "the engine"
        return f"all {self._spec.nprocs} ranks" if self._spec.nprocs > 1 else "the only rank"

    def _say(self, message: str, now: float, *, owe: bool = True) -> bool:
        """Whether there was room for it. `owe`: it has to be said again when the other end is full."""
        try:
            self._socket.sendto(message.encode(errors="replace"), socket.MSG_NOSIGNAL, self._address)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                if owe:
                    self._owed.append(message)
                    self._again_at = now + AGAIN_S
                return False
        return True


def service(spec: JobSpec, env: MutableMapping[str, str], now: float) -> Service | None:
    """What to tell and whom, as the variables say; they are taken out of `env`, for they are meant for us alone."""
    address, usec, pid = (env.pop(name, "") for name in VARIABLES)
    if not address.startswith(("/", "@")) or len(address) < 2:  # sd_notify(3): others are not for us
        return None
    period = int(usec) / 1e6 if usec.isdigit() and len(usec) < 18 and pid in ("", str(os.getpid())) else 0.0
    try:
        return Service(spec, "\0" + address[1:] if address.startswith("@") else address, period or None, now)
    except OSError:  # no descriptor is left
        return None


def _line(text: str) -> str:
    return printable(text, _STATUS_CHARS)
