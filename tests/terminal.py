"""A real terminal for tests: a pty of our own and, on it, a command that leads its session.

    with Terminal("bash", "--norc", "-i", env=os.environ | {"PS1": "$ "}) as term:
        term.expect("$ ")         # what is typed before the shell reads is echoed, and no more
        term.send("program\\n")
        term.expect("up")         # its own word; the echo of the line says nothing
        term.send(CTRL_Z)
        term.expect(re.compile(rb"\\[1\\]\\+ +Stopped"))
        term.hang_up()            # the kernel sends SIGHUP, as when the window is closed

`output` holds the bytes; `screen` is what stands on the screen after them, as a user sees it (pyte obeys the sequences).
What the command writes is read in `expect`, `read_until_closed` and `drain`; nothing else takes time. All of its session
ends with the block. Ranks lead sessions of their own: they end with rankguard.
"""

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import pyte

CTRL_C, CTRL_D, CTRL_Z, CTRL_BACKSLASH = b"\x03", b"\x04", b"\x1a", b"\x1c"
PATIENCE = 60.0
"""Seconds that `expect` waits: many times what a busy machine needs, so that only a failure takes as long."""


class Terminal:
    """A pty and the command on it. `output` is all that it has written so far, as it came (lines end in `\\r\\n`)."""

    def __init__(
        self,
        *command: str,
        rows: int = 24,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> None:
        self.fd, theirs = os.openpty()
        os.set_blocking(self.fd, False)
        self.output = b""
        self._seen = self._fed = 0
        self._open = True
        self._screen = pyte.HistoryScreen(columns, rows, history=100_000)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(rows, columns)
        env = {**(os.environ if env is None else env)}
        env.setdefault("TERM", "xterm-256color")

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        try:
            self.process = subprocess.Popen(
                command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=cwd,
                start_new_session=True, preexec_fn=take_terminal,  # noqa: PLW1509  # one ioctl
            )  # fmt: skip
        except BaseException:
            os.close(self.fd)
            raise
        finally:
            os.close(theirs)
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.hang_up()
        for pid in self.session():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # one that is stopped, too
        self.process.wait()

    # ── Typing ───────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, data: bytes | str) -> None:
        """Type. A line ends with `\\r` or `\\n`; the terminal echoes unless the command has turned that off."""
        data = data.encode() if isinstance(data, str) else data
        if data in (
            CTRL_C,
            CTRL_Z,
            CTRL_BACKSLASH,
        ):  # then the kernel throws away what waits behind 4 KiB that nobody has read
            while self._read(0):
                pass
        while data:
            select.select([], [self.fd], [], PATIENCE)
            data = data[os.write(self.fd, data) :]

    def resize(self, rows: int, columns: int) -> None:
        """Change the size; the kernel sends SIGWINCH to the foreground group. What was written before is shown before."""
        self._show()
        while self._read(0):
            self._show()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    def hang_up(self) -> None:
        """Close the window: the kernel sends SIGHUP and SIGCONT, and every read and write on the tty fails with EIO."""
        if self._open:
            self._open = False
            os.close(self.fd)

    # ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def expect(self, what: bytes | str | re.Pattern[bytes], timeout: float = PATIENCE) -> re.Match[bytes]:
        """Read until `what` comes after all that earlier calls have found. Fails with what came instead."""
        text = what.encode() if isinstance(what, str) else what
        pattern = text if isinstance(text, re.Pattern) else re.compile(re.escape(text))
        until = time.monotonic() + timeout
        while (found := pattern.search(self.output, self._seen)) is None:
            more = self._read(until - time.monotonic())
            if not more:
                why = "it was closed" if more is None else f"{timeout:g} s have passed"
                raise AssertionError(f"waited for {pattern.pattern!r}, and {why}:\n{self._unseen()}")
        self._seen = found.end()
        return found

    def drain(self, quiet: float = 0.0) -> bytes:
        """What has come already (and comes until nothing has for `quiet` seconds), which no `expect` has taken yet."""
        while self._read(quiet):
            pass
        fresh, self._seen = self.output[self._seen :], len(self.output)
        return fresh

    def read_until_closed(self, timeout: float = PATIENCE) -> bytes:
        """Read until nobody holds the terminal any more; all that was ever written."""
        until = time.monotonic() + timeout
        while (more := self._read(until - time.monotonic())) is not None:
            if more == b"" and time.monotonic() >= until:
                raise AssertionError(f"somebody still holds the terminal after {timeout:g} s:\n{self._unseen()}")
        return self.output

    def _read(self, timeout: float) -> bytes | None:
        """More output; empty when none came in time, None when nobody holds the other end."""
        until = time.monotonic() + timeout
        while select.select([self.fd], [], [], max(0.0, until - time.monotonic()))[0]:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:  # thrown away meanwhile
                continue
            except OSError:  # EIO: the last one has closed it
                return None
            self.output += data
            return data or None
        return b""

    def _unseen(self) -> str:
        return self.output[max(0, self._seen - 200) :].decode(errors="replace")

    # ── The screen ───────────────────────────────────────────────────────────────────────────────────────────────

    def screen(self) -> list[str]:
        """What stands on the screen now: its rows, without blanks at their ends and without empty ones at the end."""
        while self._read(0):
            pass
        self._show()
        return _trimmed(self._screen.display)

    def scrolled(self) -> list[str]:
        """All that can be read by scrolling back, the screen at the end."""
        screen = self.screen()
        above = self._screen.history.top
        return _trimmed(["".join(row[x].data for x in range(max(row, default=-1) + 1)) for row in above] + screen)

    def cursor(self) -> tuple[int, int]:
        """Its row and column, from 0."""
        self.screen()
        return self._screen.cursor.y, self._screen.cursor.x

    def expect_screen(self, shows: Callable[[list[str]], object], timeout: float = PATIENCE) -> list[str]:
        """Read until the screen is as `shows` wants it; that screen. Fails with what it was instead."""
        until = time.monotonic() + timeout
        while not shows(rows := self.screen()):
            left = until - time.monotonic()
            if left <= 0 or self._read(left) is None:
                shown = "\n".join(self.screen())
                raise AssertionError(f"the screen was not as expected, in the end:\n{shown}")
        return rows

    def _show(self) -> None:
        self._stream.feed(self.output[self._fed :])
        self._fed = len(self.output)

    # ── Processes ────────────────────────────────────────────────────────────────────────────────────────────────

    def wait(self, timeout: float = PATIENCE) -> int:
        """The command's exit status, as `subprocess` tells it; reads on meanwhile, so that nobody waits for us."""
        until = time.monotonic() + timeout
        pidfd = os.pidfd_open(self.pid) if self.process.poll() is None else None
        try:
            while self.process.poll() is None and time.monotonic() < until:
                watched = [pidfd, self.fd] if self._open else [pidfd]
                ready = select.select(watched, [], [], max(0.0, until - time.monotonic()))[0]
                if self.fd in ready and self._read(0) is None:
                    select.select([pidfd], [], [], max(0.0, until - time.monotonic()))
        finally:
            if pidfd is not None:
                os.close(pidfd)
        if self.process.poll() is None:
            raise AssertionError(f"process {self.pid} lives after {timeout:g} s:\n{self._unseen()}")
        while self._open and self._read(0):
            pass
        return self.process.returncode

    def session(self) -> list[int]:
        """Every process of the command's session that is alive."""
        return [pid for pid, (state, _group, session) in _processes().items() if session == self.pid and state != "Z"]

    def foreground(self) -> int:
        """The process group that the terminal's signals go to."""
        return int(os.tcgetpgrp(self.fd))


def _processes() -> dict[int, tuple[str, int, int]]:
    """pid → (state, process group, session)."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
                found[int(name)] = (fields[0], int(fields[2]), int(fields[3]))
    return found


def _trimmed(rows: list[str]) -> list[str]:
    kept = [row.rstrip() for row in rows]
    while kept and not kept[-1]:
        kept.pop()
    return kept
