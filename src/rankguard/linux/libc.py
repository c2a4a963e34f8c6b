"""The five C library calls that Python's standard library does not offer, and their constants.

`ctypes` and six numbers instead of a package: none of the wrappers is kept (docs/dependencies.md).
Sources: prctl(2), signalfd(2), tgkill(2), `linux/prctl.h`.
"""

import ctypes
import errno
import os
import signal
from collections.abc import Iterable

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_PTRACER = 0x59616D61

_SFD_NONBLOCK = 0o4000
_SFD_CLOEXEC = 0o2000000

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def prctl(option: int, value: int) -> None:
    """prctl(2) with one integer argument. Raises `OSError`."""
    if _prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), f"prctl({option})")


def become_subreaper() -> None:
    """Orphans among our descendants are given to us instead of to init (Linux 3.4)."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """The name that `ps -o comm` shows; the kernel keeps 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def signalfd(signals: Iterable[int]) -> int:
    """A file descriptor that becomes readable when one of `signals` is pending. They must be blocked already.

    Unlike Python's wake-up fd it tells who sent the signal, and no Python handler has to run.
    """
    mask = 0
    for number in signals:
        mask |= 1 << (number - 1)
    raw = (ctypes.c_ulong * 16)(mask)  # sigset_t is 1,024 bits; the kernel's 64 are the first
    fd: int = _libc.signalfd(-1, ctypes.byref(raw), _SFD_NONBLOCK | _SFD_CLOEXEC)
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "signalfd")
    return fd


def tgkill(pid: int, tid: int, number: int) -> None:
    """Signal one thread of a process. Raises `OSError`; where the C library has no name for the call, `ENOSYS`."""
    call = getattr(_libc, "tgkill", None)  # glibc 2.30
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "tgkill")
    if call(pid, tid, number) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "tgkill")


ALL_SIGNALS = frozenset(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
