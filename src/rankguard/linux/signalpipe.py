"""Signals as news in a process with threads that are not ours: one that a debugger runs (`python -m debugpy -m rankguard`).

Such a thread has nothing blocked, so it would be given what `signals.SignalQueue` waits for. Here every signal has a
handler instead, and CPython's own C handler, in whichever thread it runs, writes the number into a pipe
(`signal.set_wakeup_fd`). Who sent it is not known then: it counts as sent by the terminal's driver.
"""

import os
import signal
from collections.abc import Iterable, Iterator

from rankguard.linux.signals import SYNCHRONOUS, Received, SignalQueue
from rankguard.model import Sender


class SignalPipe:
    """As `SignalQueue`, with a handler for each of `numbers` from now on. Main thread only."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in frozenset(numbers) - SYNCHRONOUS - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, _noticed)

    def fileno(self) -> int:
        return self._read

    def drain(self) -> Iterator[Received]:
        """What has come since the last call."""
        try:
            data = os.read(self._read, 4096)
        except BlockingIOError:
            return
        yield from (Received(number, Sender()) for number in dict.fromkeys(data))

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)


def _noticed(number: int, frame: object) -> None:
    """The pipe has it."""


def signal_news(numbers: Iterable[int]) -> SignalQueue | SignalPipe:
    """The one that fits this process."""
    try:
        threads = len(os.listdir("/proc/self/task"))
    except OSError:
        threads = 1
    return SignalQueue(numbers) if threads == 1 else SignalPipe(numbers)
