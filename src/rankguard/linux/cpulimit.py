"""A bound on the processor time of a piece of Python that cannot be trusted with it: a regular expression of a user's.

`re` looks for signals while it matches (Modules/_sre: `MAYBE_CHECK_SIGNALS`), so a timer of this process's own CPU time
(setitimer(2), ITIMER_VIRTUAL) ends it. One thread only, which has the signal blocked at all other times.
"""

import contextlib
import signal
import time
from collections.abc import Iterator

_NUMBER = signal.SIGVTALRM


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raises `TimeoutError` in the block when it has used so many seconds of CPU time."""
    until = time.thread_time() + seconds

    def over(_number: int, _frame: object) -> None:
        if time.thread_time() >= until:  # else it is somebody's, sent to us
            raise TimeoutError

    before = signal.signal(_NUMBER, over)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {_NUMBER})
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, seconds / 4)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(_NUMBER, before)
