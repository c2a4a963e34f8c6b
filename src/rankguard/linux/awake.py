"""How long this thread has been running or waiting for a processor: time in which nobody had stopped it.

On a machine that is overloaded a turn of work may take seconds; so may one in which the process was stopped or frozen.
Only the latter is time in which no deadline may run, and the scheduler tells them apart: a stopped process waits for no
processor. Read next: `driver.py`.
"""

import os


class Awake:
    """Seconds since the thread began, from `/proc/thread-self/schedstat` (Documentation/scheduler/sched-stats.rst)."""

    def __init__(self) -> None:
        try:
            self._fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel without CONFIG_SCHED_INFO
            self._fd = -1

    def __call__(self) -> float:
        """On a processor and waiting for one; always 0 where the kernel does not count."""
        if self._fd < 0:
            return 0.0
        ran, waited, _slices = os.pread(self._fd, 128, 0).split()
        return (int(ran) + int(waited)) * 1e-9
