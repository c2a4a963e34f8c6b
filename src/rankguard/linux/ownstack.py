"""A Python process tells its own stack: faulthandler, by a signal, into a file of the run. For where nobody may trace.

The bootstrap of a rank registers it and says so in the file's first line (`../inside/ownstack.py`). A signal that nobody
handles would end the process, and a descriptor that has been closed may be another file by now; so nothing is sent
unless the kernel says, right before, that the process handles this signal, that its main thread does not block it, and
that the descriptor is still our file. One that is stopped, traced or in an uninterruptible system call cannot answer;
one that waits for whatever signal comes (pause(2), sigsuspend(2)) would go on because of us.

What it costs: a system call in which the main thread sleeps is interrupted, and most are restarted (SA_RESTART);
signal(7) lists those that are not (poll, epoll_wait, nanosleep, a receive with a time-out …). Python repeats these; a C
library need not. That is why py-spy goes first. From Python 3.13 on a thread that runs may crash in the handler (seen in
4 of 4 runs of 20,000 dumps; with 3.11 and 3.12 never), so there only one that sleeps is asked.

The end of the answer is told by nobody, so it is looked for: while the handler works the signal is blocked in that
thread (no SA_NODEFER), before that it is pending. Read next: `stacks.py`.
"""

import contextlib
import os
import re
import signal
import stat
from collections.abc import Iterator

from rankguard.linux.files import read_text
from rankguard.linux.libc import tgkill
from rankguard.record import Record
from rankguard.stacks import Frame, Stack

SAFE_WHILE_RUNNING = 12
"""The last minor version of Python 3 whose handler may interrupt a thread that runs Python."""
_MOST, _FRAMES = 1 << 20, 200
_FOR_ANY_SIGNAL = re.compile("pause|sigsuspend")
"""Calls that return after any handler has run, which to their caller is what it has waited for; by the system call's
name or the kernel's function (`sigsuspend`, `__do_sys_pause`)."""
_FRAME = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')


class Offer(Record):
    """What a rank's bootstrap has registered. `begins`: the length of the first line."""

    path: str
    pid: int
    fd: int
    signal: int
    minor: int
    begins: int


def offer_of(path: str | None, pid: int) -> Offer | None:
    """What this process offers; null when it does not, or another one did under this name."""
    if path is None:
        return None
    with contextlib.suppress(OSError, ValueError), _opened(path) as fd:
        first = os.pread(fd, 100, 0).partition(b"\n")[0]
        told, number, which, minor = map(int, first.split())
        if told == pid and which in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
            return Offer(path, told, number, which, minor, len(first) + 1)
    return None


def refusal(offer: Offer, known: Stack) -> str | None:
    """Why this process must not be asked now; null when it may."""
    if known.tracer is not None or known.main.state not in "SR":
        return "it does not run"
    if known.main.state == "S" and (known.main.waits_in is None or _FOR_ANY_SIGNAL.search(known.main.waits_in)):
        return "its main thread may wait for any signal"
    if known.main.state == "R" and offer.minor > SAFE_WHILE_RUNNING:
        return f"its main thread runs, which Python 3.{offer.minor} need not survive"
    if not _mask(offer, "SigCgt"):
        return "it has no handler for this any more"
    if _mask(offer, "SigBlk") or _mask(offer, "SigPnd"):
        return "its main thread blocks the signal"
    try:
        here, there = os.stat(offer.path), os.stat(f"/proc/{offer.pid}/fd/{offer.fd}")
    except OSError:
        return "it has closed the file"
    return None if os.path.samestat(here, there) else "it has closed the file"


def ask(offer: Offer) -> None:
    """Send the signal to the main thread, after the file has been emptied. Raises `OSError`."""
    with _opened(offer.path) as fd:
        os.ftruncate(fd, offer.begins)
    tgkill(offer.pid, offer.pid, offer.signal)


def has_answered(offer: Offer) -> bool:
    """Whether the handler is through (or the process gone)."""
    return not _mask(offer, "SigPnd") and not _mask(offer, "SigBlk")


def answer(offer: Offer) -> tuple[Frame, ...]:
    """The frames of the main thread, innermost first; none when there is no answer that could be read."""
    with contextlib.suppress(OSError), _opened(offer.path) as fd:
        text = os.pread(fd, _MOST, offer.begins).decode(errors="replace")
        found = filter(None, map(_FRAME.fullmatch, text.splitlines()))
        return tuple(Frame(m[3], m[1], int(m[2]) if m[2].isdecimal() else None) for m in found)[:_FRAMES]
    return ()


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    """The file, and nothing else that somebody may have put there. Raises `OSError`."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "it is no file", path)
        yield fd
    finally:
        os.close(fd)


def _mask(offer: Offer, field: str) -> bool:
    """Whether the signal is in one of the masks of the main thread (proc_pid_status(5))."""
    for line in (read_text(f"/proc/{offer.pid}/task/{offer.pid}/status") or "").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return bool(int(value, 16) >> (offer.signal - 1) & 1)
    return False
