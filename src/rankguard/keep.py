"""What the warden does under `--on-lost keep` when the supervisor is gone: what `tini` does.

Beforehand the supervisor hands over the read ends of the engine's output, and the file of `Slots`, in which each process
that was started has written its pid. Then the warden reaps, passes signals on, writes down how the engine ended, and ends
what that has left behind. The front, while there is one, shows the output and answers; else the warden pumps that, too.

Nothing of ours but the warden's own: this is loaded by the warden while all is well. Read next: `cli/front/keeper.py`.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import sys
import time

from rankguard.warden import FRONT, descendants, gone, wait

DRAIN_S = 2.0
SLOT = struct.Struct("iii")


class Slots:
    """A file with a place for each process that was started: its pid, whether it has ended, its wait status."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pids(self) -> dict[int, int]:
        """Place → pid of each that was started."""
        size = os.fstat(self._fd).st_size
        found = {at: self._get(at)[0] for at in range(0, size, SLOT.size)}
        return {at: pid for at, pid in found.items() if pid}

    def status(self, at: int) -> int | None:
        """The wait status of one that was reaped."""
        _pid, ended, status = self._get(at)
        return status if ended else None

    def ended(self, at: int, pid: int, status: int) -> None:
        os.pwrite(self._fd, SLOT.pack(pid, 1, status), at)

    def all_ended(self) -> bool:
        return all(self.status(at) is not None for at in self.pids())

    def _get(self, at: int) -> tuple[int, int, int]:
        raw = os.pread(self._fd, SLOT.size, at)
        pid, ended, status = SLOT.unpack(raw.ljust(SLOT.size, b"\0"))  # a pid alone, written by the process itself
        return pid, ended, status


class Kept:
    """What is held, from when the supervisor says so until it is gone. `grace`: seconds for what the engine leaves behind."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._slots: Slots | None = None
        self._pumps: tuple[Pump, ...] = ()

    def read(self, told: int) -> bytes:
        """One packet of the supervisor's: a note (returned), or what to hold. Empty at its end."""
        with socket.socket(fileno=os.dup(told)) as end:
            data, fds, _flags, _address = socket.recv_fds(end, 65536, 8)
        if data.startswith(b"slots") and fds:
            self._slots = Slots(fds[0])
        elif data.startswith(b"pipes") and len(fds) == 4:
            self._pumps += (Pump(fds[0], fds[2]), Pump(fds[1], fds[3]))
        return data

    def keep(self) -> None:
        """Until the engine has ended by itself, and what it left behind had its time to."""
        if self._slots is None or not self._begun():
            return
        libc, mask = ctypes.CDLL(None), (ctypes.c_ulong * 16)(~0)
        signals = libc.signalfd(-1, ctypes.byref(mask), os.O_NONBLOCK | os.O_CLOEXEC)
        poll = select.poll()
        poll.register(FRONT, select.POLLIN)
        if signals >= 0:
            poll.register(signals, select.POLLIN)
        alone: tuple[Pump, ...] = ()
        while not self._reap(self._slots):
            for each in alone:
                each.register(poll)
            ready = {fd for fd, _event in poll.poll(None if signals >= 0 else 100)}
            if FRONT in ready:
                poll.unregister(FRONT)
                alone = self._pumps
            if signals in ready:
                self._pass_on(signals)
            for each in alone:
                each.move()
        for each in self._pumps if gone(FRONT) else ():
            each.drain(DRAIN_S)
        ask_to_end(self._grace)

    def _begun(self) -> bool:
        """Whether there is anybody to keep. One that is being born writes its pid in a moment."""
        assert self._slots is not None
        for _ in range(100):
            if self._slots.pids():
                return True
            if not descendants(os.getpid()):
                break
            time.sleep(0.01)
        return False

    def _reap(self, slots: Slots) -> bool:
        """All that have ended. True when the engine has."""
        known = {pid: at for at, pid in slots.pids().items()}
        try:
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                pid, status = os.waitpid(ended.si_pid, os.WNOHANG)
                if pid in known:
                    slots.ended(known[pid], pid, status)
        except ChildProcessError:
            return True
        return slots.all_ended()

    def _pass_on(self, signals: int) -> None:
        """Signals that are sent to us are for the engine: nobody else is there to take them."""
        while True:
            try:
                number = int.from_bytes(os.read(signals, 128)[:4], sys.byteorder)
            except BlockingIOError:
                return
            if number not in (signal.SIGCHLD, signal.SIGPIPE) and self._slots is not None:
                for at, pid in self._slots.pids().items():
                    if self._slots.status(at) is None:
                        with contextlib.suppress(OSError):
                            os.kill(pid, number)


class Pump:
    """What a pipe holds, to where it is shown. A slow reader makes the engine wait, as it would without us."""

    def __init__(self, pipe: int, console: int) -> None:
        self.pipe, self._console = pipe, console
        self._data = b""
        self.open = True

    def register(self, poll: select.poll) -> None:
        """What to wait for next."""
        for fd in (self.pipe, self._console):
            with contextlib.suppress(KeyError):
                poll.unregister(fd)
        if self._data:
            poll.register(self._console, select.POLLOUT)
        elif self.open:
            poll.register(self.pipe, select.POLLIN)

    def move(self) -> None:
        """As much as there is room for: what poll(2) calls room is 4,096 bytes at least (pipe(7))."""
        try:
            if not self._data:
                self._data = os.read(self.pipe, 4096)
                self.open = bool(self._data)
            if self._data and wait(self._console, 0, select.POLLOUT):
                self._data = self._data[os.write(self._console, self._data) :]
        except BlockingIOError:
            return
        except OSError:  # its reader is gone
            self._data = b""

    def drain(self, seconds: float) -> None:
        """What is left, if its reader takes it in time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not self._data and not (self.open and wait(self.pipe, 0)):
                return
            if not self._data or wait(self._console, left, select.POLLOUT):
                self.move()


def ask_to_end(seconds: float) -> None:
    """SIGTERM to what the engine has left behind, and a while for it."""
    for pid in reversed(descendants(os.getpid())):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            signal.sigtimedwait({signal.SIGCHLD}, 0.02)
    except ChildProcessError:
        return
