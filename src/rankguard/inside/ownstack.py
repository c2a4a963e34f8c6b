"""Lets the supervisor ask where this process is, when nobody may look into it from outside: faulthandler on one signal.

The answer goes into a file beside the notify socket, in the run's private folder. Its first line is the offer: this
process, the descriptor, the signal, the version of Python. Whether the offer still holds is for the supervisor to see
before it sends anything (`linux/ownstack.py`); a program that takes the signal, closes the descriptor or executes another
program takes it back, and need not know.

Only the thread that gets the signal writes its stack. To walk those of other threads while they run ends a Python sooner
or later: with `all_threads` every version from 3.11 to 3.13 crashed within 20 dumps of a program that starts threads.
"""

import os
import sys

SIGNAL = 50
"""SIGRTMAX-14: in the middle, since libraries that take real-time signals count from one of the two ends."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def offer(address: str, out_of_the_way: "Callable[[int], int]") -> None:
    """Makes the file and registers the handler, unless somebody has the signal. Never raises."""
    if not address.startswith("/") or "RANKGUARD_RUN_ID" not in os.environ:
        return
    try:
        import _signal  # type: ignore[import-not-found]  # `signal` without its enums, which cost 3 ms
        import faulthandler

        if _signal.getsignal(SIGNAL) != _signal.SIG_DFL:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        made = os.open(f"{address}.stack", flags, 0o600)
        fd = out_of_the_way(made)
        if fd != made:
            os.close(made)
        os.write(fd, f"{os.getpid()} {fd} {SIGNAL} {sys.version_info[1]}\n".encode())
        faulthandler.register(SIGNAL, fd, all_threads=False, chain=False)
    except (ImportError, AttributeError, RuntimeError, ValueError, OSError):
        pass  # it is one means of several
