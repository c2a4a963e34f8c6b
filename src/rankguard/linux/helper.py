"""A program of ours that nobody waits for: its end is news of its pidfd, its output lies in memory.

For what must not happen in a process that forks ranks or has deadlines to keep: a library that starts threads, a file
that may not answer. The program dies with us (PR_SET_PDEATHSIG); its bound in time is its owner's, who calls `close`.
No pipe: whoever is slow to read would hold it up. Read next: `spawn.py`; its owners are `gpus.py`, `stacks.py`,
`../supervisor/records.py`, `../supervisor/page.py`.
"""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Mapping
from selectors import EVENT_READ, BaseSelector
from typing import NamedTuple

from rankguard.linux import spawn
from rankguard.linux.files import devnull

OUTPUT = 16 << 20
"""Bytes of each stream that are read."""
_KILLED_S = 0.05
"""For the kernel to end what was killed. What does not end by then is in a system call; whoever reaps strays gets it."""


AT_WORK: set[int] = set()
"""Pids of those of this process that are at work: children of ours that are no part of a job."""


class Said(NamedTuple):
    """What the program has written."""

    out: bytes
    err: bytes


class Helper:
    """One program at work, from its start to `close`."""

    def __init__(
        self,
        selector: BaseSelector,
        priority: int,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        on_end: Callable[[float], None],
        *,
        ignore: tuple[int, ...] = (),
        passed: tuple[int, ...] = (),
    ) -> None:
        """Start it. `on_end(now)` is called by the selector's news, never after `close`; `priority` is that of the news in
        the driver's loop. `ignore`: signals that do not end it; `passed`: descriptors that it gets as 3, 4, …

        Raises `OSError` when it cannot be started; nothing is open then. One that cannot be executed ends with 127.
        """
        self._selector, self._on_end, self._open = selector, on_end, True
        with contextlib.ExitStack() as opened, contextlib.ExitStack() as kept:
            null = devnull()
            opened.callback(os.close, null)
            files = []
            for name in ("out", "err"):
                files.append(os.memfd_create(f"rankguard-{name}", os.MFD_CLOEXEC))
                kept.callback(os.close, files[-1])
            self._out, self._err = files
            stdio = (null, self._out, self._err)
            started = spawn.spawn(spawn.Command(argv=argv, env=env, cwd="/", stdio=stdio, passed=passed, ignore=ignore))
            kept.pop_all()
        os.close(started.news)
        self.pid, self._pidfd = started.pid, started.pidfd
        AT_WORK.add(self.pid)
        selector.register(self._pidfd, EVENT_READ, (priority, self._on_news))

    def _on_news(self, now: float) -> None:
        if self._open:  # it may have been closed by an earlier news of the same turn
            self._on_end(now)

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end, at most so long."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> Said:
        """It has ended, or its time is over and it is killed. What it has written by now counts."""
        self._open = False
        AT_WORK.discard(self.pid)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._pidfd)
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.ends_within(_KILLED_S)
        with contextlib.suppress(ChildProcessError):  # whoever reaps strays may have come first
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        said = Said(os.pread(self._out, OUTPUT, 0), os.pread(self._err, OUTPUT, 0))
        for fd in (self._pidfd, self._out, self._err):
            os.close(fd)
        return said
