"""What front and warden hold so that the engine outlives this process: `--on-lost keep`.

Told before anything is started, so that no instant is left in which we may be killed and nobody could go on: the read
ends of the output (else the engine's next line would end it, SIGPIPE), and a file with a place for each process, in which
it writes its own pid first of all. docs/decisions/0013-fail-open.md. Read next: `../keep.py`, `../cli/front/keeper.py`.
"""

import os
import socket
from collections.abc import Callable, Sequence

from rankguard.keep import SLOT, Slots
from rankguard.model import Ending
from rankguard.wire import Wire

_CORE = 0x80
"""In a wait status: a core was written (wait(2), WCOREDUMP)."""


class Keeping:
    """Of one run. `tell` is the warden's socket; `missing` is told what could not be handed over. Raises `OSError`."""

    def __init__(
        self, wire: Wire, tell: int, consoles: Sequence[int], grace: float, missing: Callable[[str], None]
    ) -> None:
        self._wire, self._missing = wire, missing
        self._warden = socket.socket(fileno=os.dup(tell))
        self._warden.send(f"keep {grace}\n".encode())
        self.slots = os.memfd_create("rankguard-slots", os.MFD_CLOEXEC)
        self._slots = Slots(self.slots)
        self._consoles = [os.dup(fd) for fd in consoles]
        self._hand_over("slots", [self.slots])

    def note(self, line: str) -> None:
        """What is to be removed at the end, for a front that has no warden any more."""
        self._wire.send({"is": "note", "text": line})

    def at(self, rank: int) -> int:
        """The place of a rank in the file."""
        return rank * SLOT.size

    def hold(self, outputs: tuple[int, int]) -> None:
        """The read ends of a process that is about to be started."""
        self._hand_over("pipes", outputs)

    def ended(self, rank: int, pid: int, ending: Ending) -> None:
        """Before it is reaped: nobody else can learn how it ended."""
        status = (ending.number or 0) | (_CORE if ending.core_dumped else 0) | (ending.code or 0) << 8
        self._slots.ended(self.at(rank), pid, status)

    def _hand_over(self, what: str, fds: Sequence[int]) -> None:
        try:
            self._wire.send({"is": "kept", "what": what}, fds)
            more = self._consoles if what == "pipes" else ()
            socket.send_fds(self._warden, [f"{what}\n".encode()], [*fds, *more], socket.MSG_NOSIGNAL)
        except OSError as error:
            self._missing(f"if rankguard is killed, the engine may lose its output: {error.strerror or error}")
