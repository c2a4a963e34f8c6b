"""From the datagrams of a rank to facts about it.

A rank that floods its socket must cost nobody anything: statuses and extensions are merged and told at most ten times
a second, readiness and leaving once, garbage three times.
"""

import os
from typing import Any

from rankguard.collective import Entry, Recorded
from rankguard.facts import (
    Extended,
    Fact,
    FailureReported,
    LeavingTold,
    ProtocolBroken,
    Ready,
    StatusTold,
    Warned,
)
from rankguard.launchers.contract import PeerDeath
from rankguard.linux.notify import Garbage, Message
from rankguard.model import ExceptionInfo, Report

STATUS_EVERY = 0.1
_GARBAGE_SAID = 3
_TEXT = 16 << 10
_GROUPS, _ENTRIES = 16, 8


class Mailbox:
    """What one rank has said. `payloads` of its readiness are handed on as they came."""

    __slots__ = (
        "_extension",
        "_garbage",
        "_leaving",
        "_pending",
        "_ready",
        "_told_at",
        "payload",
        "payload_fd",
        "rank",
    )

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.payload: bytes | None = None
        self.payload_fd: int | None = None
        self._pending: StatusTold | None = None
        self._told_at = 0.0
        self._extension: Extended | None = None
        self._garbage = 0
        self._ready = self._leaving = False

    def take(self, message: Message | Garbage, now: float, peer_death: PeerDeath) -> list[Fact]:
        """The facts of one datagram, in the order in which they matter."""
        if isinstance(message, Garbage):
            self._garbage += 1
            if self._garbage > _GARBAGE_SAID:
                return []
            more = "; more of them are not told" if self._garbage == _GARBAGE_SAID else ""
            return [Warned(now, f"ignored a datagram to rank {self.rank}'s notify socket: {message.why}{more}")]
        facts: list[Fact] = []
        self._merge_status(message, now)
        if message.extend_s is not None:
            self._extension = Extended(now, self.rank, message.extend_s)
            if now - self._told_at >= STATUS_EVERY:
                facts += self.flush(now)
        if message.failed is not None or message.exception is not None or message.errno:
            facts += self.flush(now)
            report = _report(self.rank, message)
            if report is None:
                facts.append(ProtocolBroken(now, self.rank, "it reported a failure in a form that is none"))
            else:
                facts.append(FailureReported(now, self.rank, report, peer_death(_said(report))))
        if message.broken is not None:
            facts.append(ProtocolBroken(now, self.rank, message.broken))
        elif message.ready and self._ready:
            if message.payload_fd is not None:
                os.close(message.payload_fd)
        elif message.ready:
            self._ready = True
            facts += self.flush(now)
            self.payload, self.payload_fd = message.payload, message.payload_fd
            facts.append(Ready(now, self.rank, message.payload_size or len(message.payload or b"")))
        if message.stopping and not self._leaving:
            self._leaving = True
            facts.append(LeavingTold(now, self.rank))
        return facts

    def _merge_status(self, message: Message, now: float) -> None:
        if message.status is None and message.progress is None and not message.alive:
            return
        before = self._pending
        text = message.status if message.status is not None else before.text if before is not None else None
        if message.progress is not None:
            done, total, unit = message.progress
            self._pending = StatusTold(now, self.rank, text, done, total, unit)
        elif before is not None and before.text in (None, text):
            self._pending = before.replace(at=now, text=text)
        else:
            self._pending = StatusTold(now, self.rank, text)

    def due_at(self) -> float | None:
        """When the status that waits is to be told."""
        return None if self._pending is None and self._extension is None else self._told_at + STATUS_EVERY

    def flush(self, now: float) -> list[Fact]:
        """What waits to be told: before a fact that a reader would want to see it with."""
        waiting: list[Fact] = [fact for fact in (self._extension, self._pending) if fact is not None]
        self._pending = self._extension = None
        self._told_at = now
        return waiting


def _report(rank: int, message: Message) -> Report | None:
    if message.exception is not None:
        info = _exception(message.exception)
        if info is None:
            return None
        text = f"{info.type}: {info.message}" if info.message else info.type
        code = _integer(message.exception.get("code"))
        if info.type == "SystemExit" and code is not None and code & 0xFF:
            return Report("exit", text, info, _number(message.exception.get("raised_at")), code=code & 0xFF)
        return Report(
            "exception",
            text,
            info,
            _number(message.exception.get("raised_at")),
            _integer(message.exception.get("errno")),
            _recorded(rank, message.exception.get("collectives")),
        )
    if isinstance(message.failed, dict):
        text = str(message.failed.get("text", ""))[:_TEXT]
        return Report("failed", text, None, _number(message.failed.get("raised_at")), message.errno)
    if message.failed is not None:
        return None
    assert message.errno is not None
    said = f": {message.status}" if message.status else ""
    return Report("errno", f"{os.strerror(message.errno)} (errno {message.errno}){said}", None, None, message.errno)


def _exception(data: Any) -> ExceptionInfo | None:
    """What the bootstrap sent; a program may send anything."""
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        return None

    def texts(key: str) -> tuple[str, ...]:
        value = data.get(key)
        return tuple(str(item)[:1000] for item in value[:64]) if isinstance(value, list) else ()

    def text(key: str) -> str | None:
        value = data.get(key)
        return value[:_TEXT] if isinstance(value, str) else None

    return ExceptionInfo(
        data["type"][:200], text("message") or "", text("module"), text("traceback"), texts("frames"), texts("chain")
    )


def _recorded(rank: int, data: Any) -> tuple[Recorded, ...]:
    """What the flight recorder in a rank told (`inside/recorder.py`), as far as it has that shape."""
    found = []
    for told in data[:_GROUPS] if isinstance(data, list) else ():
        try:
            group, enqueued, completed, entries = told
            made = tuple(Entry(int(seq), str(op)[:60], str(state)[:20]) for seq, op, state in entries[:_ENTRIES])
            found.append(Recorded(rank, str(group)[:200], _integer(enqueued), _integer(completed), made))
        except (TypeError, ValueError):
            continue
    return tuple(found)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _said(report: Report) -> str:
    return report.text
