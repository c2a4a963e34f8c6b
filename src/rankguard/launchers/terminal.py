"""The terminal (or whatever the front's standard streams are) in the hand of one rank: `--debug RANK`, `--stdin RANK`.

The debug rank gets the front's own descriptors, not a pipe and not a pty of ours: line editing, window size and
`isatty` are real, and nobody stands between. It leads a session of its own, so job control does not ask whether it
may read (`linux/modes.py`). What such a rank lacks is `/dev/tty` and the keys that send signals: the front has those.
"""

import os

from rankguard.jobspec import JobSpec
from rankguard.linux.modes import Modes


class Terminal:
    """Of one job. `stdio` are the front's descriptors, `front` its pid."""

    def __init__(self, spec: JobSpec, stdio: tuple[int, int, int], front: int) -> None:
        self._debug = spec.debug_rank
        self._holders = {spec.debug_rank, spec.stdin_rank} - {None}
        self.stdin, out, err = stdio
        self._streams: tuple[int, int] | None = None
        self._modes: Modes | None = None
        if self._debug is not None:
            self._streams = os.dup(err if spec.console == "stderr" else out), os.dup(err)
        if self._holders:
            self._modes = Modes((self.stdin, *(self._streams or ())), front)

    def streams(self, rank: int) -> tuple[int, int] | None:
        """What this rank's stdout and stderr are, if they are no pipes of ours."""
        return self._streams if rank == self._debug else None

    def ended(self, rank: int) -> None:
        """A rank is gone: the terminal that it had works as before."""
        if self._modes is not None and rank in self._holders:
            self._modes.restore()
