"""Signals as news: blocked, then read from a signalfd with the sender that the kernel names.

A blocked signal is kept for a process even when its disposition is to ignore it, and even for PID 1, whose default
dispositions the kernel otherwise ignores (signal(7), pid_namespaces(7)).
"""

import os
import signal
import struct
from collections.abc import Iterable, Iterator

from rankguard.linux.libc import signalfd
from rankguard.model import Sender
from rankguard.record import Record

_SIGNALFD_SIGINFO = struct.Struct("IiiII")  # ssi_signo, ssi_errno, ssi_code, ssi_pid, ssi_uid; 128 bytes in all
_SIZE = 128
_SI_KERNEL = 0x80
_TURNS = 8

# Raised by the kernel for a fault of the very instruction: blocking them would hide our own crash.
SYNCHRONOUS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS})


class Received(Record):
    """A signal that came, and who sent it."""

    signal: int
    sender: Sender
    from_kernel: bool = False
    """Not by kill(2): the terminal's driver (Ctrl-C), a timer, a child that ended."""


class SignalQueue:
    """All `numbers` blocked in this thread from now on and read as news. Needs a process with one thread."""

    def __init__(self, numbers: Iterable[int]) -> None:
        wanted = frozenset(numbers) - SYNCHRONOUS - {signal.SIGKILL, signal.SIGSTOP}
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        self._fd = signalfd(wanted)

    def fileno(self) -> int:
        return self._fd

    def drain(self) -> Iterator[Received]:
        """What has come since the last call, and no more than fits into a turn: the rest is news again. Equal pending
        signals are one (signal(7)).
        """
        for _ in range(_TURNS):  # who sends without end must not keep us from everybody else's news
            try:
                data = os.read(self._fd, _SIZE * 16)
            except BlockingIOError:
                return
            for start in range(0, len(data), _SIZE):
                number, _errno, code, pid, uid = _SIGNALFD_SIGINFO.unpack_from(data, start)
                from_kernel = code > 0
                # Of a child's end nobody asks for its name, and of a thousand at once each would cost a look.
                comm = None if number == signal.SIGCHLD else _comm(pid)
                sender = Sender() if code == _SI_KERNEL else Sender(pid or None, uid, comm)
                yield Received(number, sender, from_kernel)

    def close(self) -> None:
        os.close(self._fd)


def name(number: int) -> str:
    """`SIGTERM` for 15; real-time signals as `SIGRTMIN+n`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else f"signal {number}"


def _comm(pid: int) -> str | None:
    if pid <= 0:
        return None
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode(errors="replace").strip()
    except OSError:
        return None
