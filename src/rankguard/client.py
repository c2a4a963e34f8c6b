"""The front's end: start supervisor and warden, talk to them, and know when they are gone.

Runs in the caller's process (a command line, or any program that calls `rankguard.launch`): no thread, no signal
handler, no fork, nothing global changed. It has no say in time: supervisor and warden act without it.
Read next: `outset.py` (the start), `wire.py` (the messages), `warden.py`, `supervisor/main.py`; `job.py` and `cli/run.py` use this.
"""

import contextlib
import errno
import os
import select
import sys
import time
from collections.abc import Sequence
from socket import socket

from rankguard import outset
from rankguard.errors import SpawnFailed, UsageError
from rankguard.jobspec import JobSpec
from rankguard.linux.files import devnull
from rankguard.record import to_data
from rankguard.wire import Message, Wire

DAY = 86400.0
"""poll(2) takes no more than 24 days of milliseconds at once."""

GONE_S = 11.0
"""The warden's own bound for an empty tree is 10 s."""


class Client:
    """A launched supervisor. `receive` gives its messages; `closed` says that it is gone."""

    def __init__(
        self,
        spec: JobSpec,
        stdio: tuple[int, int, int] = (0, 1, 2),
        passed: Sequence[int] = (),
        front_is_ours: bool = False,
    ) -> None:
        """Start both processes and hand the job over. Raises `SpawnFailed` when they cannot be started, or the address of
        the page cannot be had (`http` is then where it is).

        `front_is_ours`: this process is rankguard's own command, which may be moved into a cgroup of ours.
        """
        if sys.platform != "linux":
            raise UsageError("launching ranks works on Linux only", "`wait_ready` and `guard` work here")
        self.run_id = spec.run_id
        self.asked: list[tuple[float, int, Message | None]] = []
        """Each request to end: when, which signal, who sent it to us."""
        self._owner = os.getpid()
        usable = [outset.is_open(fd) for fd in stdio]  # before anything of ours can land on a closed one's number
        begun, null = None, -1
        listening: list[socket] = []
        self.http: str | None = None
        try:
            if spec.http is not None:
                from rankguard.http.listen import address_of, listen  # only for those who asked for it

                listening.append(listen(spec.http))
                self.http = address_of(listening[0])
                spec = spec.replace(http=self.http)
            begun = outset.begun()
            self.wire, self.warden_pid, self.warden = Wire(begun.socket), begun.pid, begun.pidfd
            null = devnull()
            stdin, out, err = (fd if open_ else null for fd, open_ in zip(stdio, usable, strict=True))
            message: Message = {"do": "start", "spec": to_data(spec), "front_is_ours": front_is_ours}
            self.wire.send(message, [stdin, out, err, *(end.fileno() for end in listening), *passed])
        except SpawnFailed:
            raise
        except OSError as error:
            if begun is not None:
                self.close()
            few = error.errno in (errno.EMFILE, errno.EINVAL)  # EINVAL: F_DUPFD above the limit (fcntl(2))
            number = errno.EMFILE if few else error.errno or 0
            name = f"{error.filename}: " if error.filename else ""
            said = f"unable to start rankguard's own processes: {name}{os.strerror(number)}"
            raise SpawnFailed(said, number, hint="ulimit -n 1024" if few else None) from error
        finally:
            if null >= 0:
                os.close(null)
            for end in listening:
                end.close()
        self._reaped = False

    def fileno(self) -> int:
        """Readable when there is news."""
        return self.wire.fileno()

    @property
    def closed(self) -> bool:
        return self.wire.closed

    def send(self, message: Message) -> None:
        """Ask for something; nothing happens when the supervisor is gone or this is a forked child."""
        if os.getpid() == self._owner:
            self.wire.send(message)

    def stop(
        self,
        signal: int,
        *,
        grace: float | None = None,
        at_once: bool = False,
        by: str = "signal",
        sender: Message | None = None,
    ) -> None:
        """Ask to end the job."""
        self.asked.append((time.monotonic(), signal, sender))
        self.send({"do": "stop", "signal": signal, "grace": grace, "at_once": at_once, "by": by, "sender": sender})

    def receive(self, timeout: float | None = 0) -> list[tuple[Message, list[int]]]:
        """The next messages with their descriptors; waits at most `timeout` seconds (None: for ever).

        Raises `UsageError` in a forked child of the caller: it would take what is meant for its parent.
        """
        if os.getpid() != self._owner:
            raise UsageError("this job belongs to the process that launched it", "a forked child cannot wait for it")
        messages = self.wire.receive()
        until = None if timeout is None else time.monotonic() + timeout
        while not messages and not self.wire.closed:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                break
            poll = select.poll()
            poll.register(self.wire, select.POLLIN | (select.POLLOUT if self.wire.pending else 0))
            poll.poll(None if left is None else min(left, DAY) * 1000)
            self.wire.flush()
            messages = self.wire.receive()
        return messages

    def wait_gone(self, seconds: float = GONE_S) -> bool:
        """Wait until the warden, and so every process of the job, is gone. The proof that nothing is left."""
        if self._reaped:
            return True
        poll = select.poll()
        poll.register(self.warden, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        with contextlib.suppress(ChildProcessError):  # the host ignores SIGCHLD, or reaps everything itself
            os.waitpid(self.warden_pid, 0)
        self._reaped = True
        return True

    def close(self) -> None:
        """Let go. A job that still runs takes it as its front's end, and ends."""
        self.wire.close()
        with contextlib.suppress(OSError):
            os.close(self.warden)
        self.warden = -1
