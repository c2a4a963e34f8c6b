"""A quick glance at a process that has not ended yet: is it about to, and what memory does it hold?

One file, read once, since others are dying while we look. Any process that we may see will do, a child of ours or not.
Read next: `child.py` and `foreign.py` (how one has ended), `memory.py` (the limit that all of them share).
"""

import os
import signal

from rankguard.linux.files import listed, read_text
from rankguard.model import Memory

_SIZE = 8192
_PAGE = os.sysconf("SC_PAGE_SIZE")


def glance(pid: int) -> tuple[str | None, Memory]:
    """What shows that a process is on its way out (None: nothing does), and its resident memory now and at its most,
    and as much of it as is its own (`held_bytes`; its children are not looked at).

    `zombie` (or gone), `exiting`, `dumping` (its core), `killed` (SIGKILL is pending), from `/proc/PID/status` (proc(5)).
    The kernel sums memory lazily from per-CPU counters (from 6.2 on): it may be off by some hundred KiB.

    The flag PF_EXITING is not there. A process that is exiting gives up its memory within microseconds of that flag,
    before the memory is unmapped (`exit_mm`, kernel/exit.c), and then its status has no lines about memory any more.
    """
    try:
        fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.read(fd, _SIZE)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return ("zombie" if os.path.exists("/proc/self/status") else None), Memory()
    except OSError:  # too many open files: it may well be there, and that is all we know
        return None, Memory()
    if _field(status, b"State:")[:1] in b"ZX":
        return (None if _lives_on(pid, _field(status, b"Threads:")) else "zombie"), Memory()
    memory = Memory(
        rss_bytes=_kib(_field(status, b"VmRSS:")),
        peak_bytes=_kib(_field(status, b"VmHWM:")),
        held_bytes=_kib(_field(status, b"RssAnon:")),
    )
    pending = int(_field(status, b"SigPnd:") or b"0", 16) | int(_field(status, b"ShdPnd:") or b"0", 16)
    how = None
    if _field(status, b"CoreDumping:") == b"1":
        how = "dumping"
    elif memory.rss_bytes is None:
        how = "exiting"
    elif pending >> (signal.SIGKILL - 1) & 1:
        how = "killed"
    return how, memory


def resident(pid: int | None) -> int | None:
    """Resident bytes, from `/proc/PID/statm` (proc(5)): cheaper than `status`, and no less exact for one who watches."""
    if pid is None:
        return None
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            pages = int(file.read(128).split()[1])
    except (OSError, IndexError):
        return None
    return pages * _PAGE or None


def _lives_on(pid: int, threads: bytes) -> bool:
    """A main thread may end by itself (pthread_exit(3)) and leave the process to the others. In the exit of a whole
    process each other thread has SIGKILL pending, or no memory any more.
    """
    if threads in (b"", b"1"):
        return False
    for tid in listed(f"/proc/{pid}/task"):
        status = (read_text(f"/proc/{pid}/task/{tid}/status") or "").encode()
        pending = int(_field(status, b"SigPnd:") or b"0", 16) >> (signal.SIGKILL - 1) & 1
        if _field(status, b"State:")[:1] in (b"S", b"R", b"D") and _field(status, b"VmRSS:") and not pending:
            return True
    return False


def _field(status: bytes, key: bytes) -> bytes:
    """The text after `key` at the beginning of a line; empty when there is no such line."""
    at = status.find(b"\n" + key)
    if at < 0:
        return b""
    start = at + 1 + len(key)
    return status[start : status.find(b"\n", start)].strip()


def _kib(text: bytes) -> int | None:
    return int(text.partition(b" ")[0]) * 1024 if text else None
