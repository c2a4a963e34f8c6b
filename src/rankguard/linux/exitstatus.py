"""How processes of anybody ended, from the kernel's statistics of their exits: for kernels that tell it of no stranger
otherwise (before Linux 6.15), and only where those statistics are sent to us (`exitorder.py` says where).

The kernel sends them when an exit begins, before anybody can be told of its end. Nothing wakes us for them: whoever asks
reads on. Those that are not asked for in time are lost when too many come, and then nothing is known, as without us.

Sources: `struct taskstats` in include/uapi/linux/taskstats.h (`ac_exitcode` is the status of wait(2)), kernel/exit.c and
kernel/tsacct.c. Read next: `foreign.py` (what is asked first), `roster.py`.
"""

import contextlib
import os
import socket
import struct

from rankguard.linux.child import from_status
from rankguard.linux.exitorder import listen, stats_in
from rankguard.model import Ending

_AC_EXITCODE = 4
_READ, _ROOM = 16 << 10, 1 << 20
_MOST = 4096
"""Messages that are read in one go, and exits that are remembered."""
_FRESH_S = 5.0
"""A main thread that left its process to others long before the end has said nothing about that end."""


class ExitStatuses:
    """Listens from now on, to the exits of all processes of the machine."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._told: dict[int, tuple[float, int]] = {}
        with contextlib.suppress(OSError, struct.error, KeyError):
            self._socket = listen(None)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)

    @property
    def listening(self) -> bool:
        """The kernel sends them to us."""
        return self._socket is not None

    def read(self, now: float) -> None:
        """Take what has come."""
        for _ in range(_MOST if self._socket is not None else 0):
            try:
                message = self._socket.recv(_READ)  # type: ignore[union-attr]  # nobody closes it meanwhile
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: some are lost
                continue
            if (found := stats_in(message)) is not None:
                pid, stats = found
                self._told.pop(pid, None)  # the number may have been another process's
                self._told[pid] = now, struct.unpack_from("=I", stats, _AC_EXITCODE)[0]
        while len(self._told) > _MOST:
            del self._told[next(iter(self._told))]

    def of(self, pid: int, now: float) -> Ending | None:
        """How a process ended whose pidfd has just become readable."""
        self.read(now)
        at, status = self._told.pop(pid, (float("-inf"), 0))
        return from_status(status) if now - at < _FRESH_S else None

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def wanted() -> bool:
    """The kernel has no PIDFD_GET_INFO that tells how a process ended (Linux 6.15)."""
    numbers = os.uname().release.split("-")[0].split(".")
    return [int(number) for number in numbers[:2] if number.isdecimal()] < [6, 15]
