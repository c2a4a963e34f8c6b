"""The page server's keeper, in the supervisor: starts it, feeds it the journal, notices its end, ends it.

Nothing here waits for it. What it does not take is kept, up to a bound; one that is beyond that, or has not read for
`STUCK_S`, is ended and started again, with the same listening socket and the journal from its beginning. It is no part of
the job: what ends that spares it. If we are killed it ends by itself: its feed ends, and so does its parent.
Read next: `../http/server.py` (the other end), `../linux/helper.py`.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Any, TypeVar, cast

from rankguard.core import story
from rankguard.linux.helper import Helper
from rankguard.report.files import RunFiles
from rankguard.wire import Message

PRIORITY = 6
"""Behind everything that concerns the job."""
KEPT = 8 << 20
"""Bytes that it may be behind; where no files are kept, also those that a new one begins with."""
STUCK_S = 30.0
STEADY_S = 60.0
PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 60.0)
"""Before each time that it is started again, in a row of those that did not last `STEADY_S`; so it goes on: whoever
restarts containers that do not answer would take its absence for the job's.
"""
LAST_S = 0.5
_TURN = 1 << 16
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


_F = TypeVar("_F", bound=Callable[..., None])


def _harmless(method: _F) -> _F:
    """A fault of ours here costs the page, never the job."""

    def call(page: "Page", *args: object, **named: object) -> None:
        try:
            method(page, *args, **named)
        except Exception as error:  # noqa: BLE001  # whatever it is
            page.give_up("", f"of a fault of rankguard: {type(error).__name__}: {error}")

    return cast(_F, call)


class Page:
    """Of one run. `listening`: the socket that the front has made, ours from now on; `address`: as people write it.

    `warn` is told of one that is started again, `gone` that there is none any more; `sampled`, once there is an attempt, gives the last look at the ranks' memory.
    """

    def __init__(self, listening: int, address: str, files: RunFiles, selector: BaseSelector) -> None:
        self._listening, self._address, self._files, self._selector = listening, address, files, selector
        self.warn: Callable[[str], None] = self.note
        self.gone: Callable[[str], None] = self.note
        self.sampled: Callable[[], Message] = dict
        self._waiting = bytearray()
        self._begun = bytearray() if files.folder is None else None
        """The journal so far, where no file holds it."""
        self._aside: dict[str, Any] = {}
        self._feed: socket.socket | None = None
        self._helper: Helper | None = None
        self._blocked = False
        self._asked = b""
        self._unread_since: float | None = None
        self._started_at = 0.0
        self._failed = 0
        self._again_at: float | None = None
        self._over = False
        files.readers.append(self._append)
        self._start(time.monotonic())

    @property
    def pids(self) -> frozenset[int]:
        """It, as long as it is a child of ours: nobody else signals or reaps it."""
        return frozenset() if self._helper is None else frozenset({self._helper.pid})

    def note(self, statement: str) -> None:
        """While there is no attempt that could be warned."""
        self._files.append(story.note(statement))

    # ── What it is told ──────────────────────────────────────────────────────────────────────────────────────────

    @_harmless
    def aside(self, **told: Any) -> None:
        """What no line of the journal holds (`../http/followed.py`); the newest holds."""
        self._aside |= told
        self._send_aside(told)

    @_harmless
    def look(self, line: bytes) -> None:
        """A look at the ranks' memory, as it is in `memory.jsonl`: sent with what comes next, and in a second at the latest."""
        self._keep(b'{"page":{"look":' + line.rstrip() + b"}}\n")

    @_harmless
    def _append(self, text: str) -> None:
        """Lines of the journal, from before they are acted on: they are sent when there is time (`wake`)."""
        data = text.encode(errors="replace")
        if self._begun is not None and len(self._begun) <= KEPT:
            self._begun += data
        self._keep(data)

    def _send_aside(self, told: dict[str, Any]) -> None:
        self._keep(json.dumps({"page": told}).encode() + b"\n")

    def _keep(self, data: bytes) -> None:
        if self._feed is not None:
            self._waiting += data

    def next_wake(self) -> float | None:
        """When it is to be started again; what is to be sent is sent in the turn that it came in."""
        return self._again_at

    @_harmless
    def wake(self, now: float) -> None:
        """Send what it takes, answer what it asked, start it again if it is time."""
        if self._again_at is not None and now >= self._again_at:
            self._start(now)
        if self._asked:
            self._send_aside({"answers": 1} | ({"samples": self.sampled()} if b"m" in self._asked else {}))
            self._asked = b""
        if self._over or self._feed is None or not self._waiting:
            return
        if self._is_stuck(now):
            self._end(now, "it reads nothing")
            return
        self._flush()
        if len(self._waiting) > KEPT:
            self._end(now, f"it is {len(self._waiting) >> 20} MiB behind")

    def _flush(self) -> None:
        assert self._feed is not None
        blocked = False
        try:
            while self._waiting:
                del self._waiting[: self._feed.send(self._waiting[:_TURN], socket.MSG_NOSIGNAL)]
        except (BlockingIOError, InterruptedError):
            blocked = True
        except OSError:  # it has ended, which its pidfd tells
            self._waiting.clear()
        if blocked != self._blocked:
            self._blocked = blocked
            self._selector.modify(self._feed, EVENT_READ | (EVENT_WRITE if blocked else 0), (PRIORITY, self._on_news))

    def _is_stuck(self, now: float) -> bool:
        """What was sent long ago is still unread (SIOCOUTQ, unix(7)). Asked when there is more to send: it costs no timer."""
        assert self._feed is not None
        unread = struct.unpack("i", fcntl.ioctl(self._feed, termios.TIOCOUTQ, bytes(4)))[0]
        if not unread:
            self._unread_since = None
            return False
        self._unread_since = self._unread_since or now
        return now - self._unread_since > STUCK_S

    @_harmless
    def _on_news(self, now: float) -> None:
        """It asks something, or takes more, both of which `wake` does before we sleep; or it has ended."""
        if self._feed is None:
            return
        try:
            asked = self._feed.recv(64)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            asked = b""
        self._asked += asked
        if not asked:
            self._end(now, None)

    # ── Its life ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, now: float) -> None:
        self._again_at = None
        journal = -1
        try:
            size = 0
            if self._failed and self._files.folder is not None:
                journal = os.open(f"{self._files.folder}/events.jsonl", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                size = os.fstat(journal).st_size
            ours, theirs = socket.socketpair(
                socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )
            try:
                program = f"{_PACKAGE}/http/serve.py"
                argv = (sys.executable, "-I", "-S", program, os.path.dirname(_PACKAGE), str(os.getpid()), str(size))
                passed = (self._listening, theirs.fileno(), *((journal,) if size else ()))
                # No variable of the job's: some are secrets. It ends when we do, and not when somebody signals everybody.
                env = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
                ignore = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
                self._helper = Helper(self._selector, PRIORITY, argv, env, self._on_end, ignore=ignore, passed=passed)
            except OSError:
                ours.close()
                raise
            finally:
                theirs.close()
        except OSError as error:
            self._failed += 1
            self._plan(now, f": unable to start it: {error.strerror or error}")
            return
        finally:
            if journal >= 0:
                os.close(journal)
        self._feed, self._started_at, self._unread_since, self._blocked = ours, now, None, False
        self._selector.register(ours, EVENT_READ, (PRIORITY, self._on_news))
        if self._failed and self._begun is not None:
            self._keep(bytes(self._begun))
        if self._aside:
            self._send_aside(self._aside)

    @_harmless
    def _on_end(self, now: float) -> None:
        self._end(now, None)

    def _end(self, now: float, because: str | None) -> None:
        """It has ended, or is ended since it does not do its work. `because` null: it says why, if anybody does."""
        told = self._close()
        if self._over:
            return
        if now - self._started_at > STEADY_S:
            self._failed = 0
        self._failed += 1
        because = because or told
        self._plan(now, f": {because}" if because else "")

    def _close(self) -> str:
        """The last line of what it wrote to stderr."""
        if self._feed is not None:
            self._selector.unregister(self._feed)
            self._feed.close()
        self._feed, self._asked = None, b""
        self._waiting.clear()
        if self._helper is None:
            return ""
        said = self._helper.close().err.decode(errors="replace").strip()
        self._helper = None
        return said.rpartition("\n")[2]

    def _plan(self, now: float, because: str) -> None:
        """Start it again after a while, or give it up."""
        why_not = None
        if self._files.folder is not None and not self._files.whole:
            why_not = "the journal is not complete"
        elif self._begun is not None and len(self._begun) > KEPT:
            why_not = "no file holds the journal"
        if why_not is None:
            pause = PAUSES[min(self._failed, len(PAUSES)) - 1]
            self._again_at = now + pause
            tell = self.warn if self._failed <= len(PAUSES) else self.note
            when = f"in {pause:g} s" if pause else "now"
            tell(f"the page server has ended{because}; it is started again {when}")
        else:
            self.give_up(because, why_not)

    def give_up(self, ended: str, because: str) -> None:
        """There is no page any more; whoever asks is refused."""
        if self._over:
            return
        self._over, self._again_at = True, None
        with contextlib.suppress(Exception):
            self._close()
        with contextlib.suppress(OSError):
            os.close(self._listening)
        with contextlib.suppress(ValueError):
            self._files.readers.remove(self._append)
        self.gone(f"the page server has ended{ended}; http://{self._address}/ is gone, because {because}")

    def finish(self, final: dict[str, Any]) -> None:
        """The verdict is out: it is shown for as long as we live."""
        self.aside(final=final)
        self.wake(time.monotonic())

    @_harmless
    def close(self) -> None:
        """End it, and wait until it is gone, which takes a millisecond, or longer while readers take the last events."""
        if self._over:
            return
        self._again_at = None
        if self._feed is not None and self._helper is not None:
            until = time.monotonic() + LAST_S
            self._flush()
            while self._waiting and time.monotonic() < until and not self._helper.ends_within(0.002):
                self._flush()
            with contextlib.suppress(OSError):
                self._feed.shutdown(socket.SHUT_WR)
            self._helper.ends_within(LAST_S)
        self._over = True
        self._close()
        os.close(self._listening)
