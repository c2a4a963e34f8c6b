"""The terminal while a rank of this job may use it (`--debug`, `--stdin`), as the front sees it.

The debug rank has the front's own descriptors (`launchers/terminal.py`); the front keeps what belongs to the controlling
terminal: Ctrl-C, which it passes to that rank (`core/jobs.py`), and the modes, which it puts back before its report.
Not which rank that is: `../terminal.py`.
"""

import os
from typing import Any

from rankguard.jobspec import JobSpec
from rankguard.linux.modes import Modes, in_background


class Hand:
    """The terminal while a rank of this job may use it; of no effect when none does."""

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        holds = spec.debug_rank is not None or spec.stdin_rank is not None
        self._modes = Modes((0, 1, 2), os.getpid()) if holds else None
        self._theirs: dict[int, list[Any]] = {}
        self._in_use = spec.debug_rank is not None

    def first_line(self) -> str | None:
        """What to say at the start: who has the terminal, and where the others are to be read."""
        rank, folder = self._spec.debug_rank, self._spec.run_dir
        if rank is None:
            return None
        if self._spec.nprocs == 1:
            return f"rank {rank} has the terminal, and Ctrl-C is for it"
        kept = folder is not None and self._spec.log_max > 0
        if kept:
            from rankguard.report.wording import from_home

            others = f"the others: {from_home(f'{folder}/rank-*/attempt-0', os.environ.get('HOME'))}"
        else:
            others = "what the others print is not kept"
        return f"rank {rank} has the terminal, and Ctrl-C is for it\nrankguard: {others}"

    def told(self, what: str) -> None:
        """What the supervisor told."""
        self._in_use = self._in_use and what != "let-go"

    def step_aside(self) -> None:
        """The job is suspended: the terminal is somebody else's, with the modes of before."""
        if self._modes is not None:
            self._theirs = self._modes.step_aside()

    def stays(self) -> bool:
        """Whether a job that was told to go on in the background has to stand still there."""
        return self._in_use and in_background(0)

    def come_back(self) -> None:
        """The job goes on, and its rank finds the modes that it had set."""
        if self._modes is not None:
            self._modes.come_back(self._theirs)

    def take_back(self) -> bytes:
        """Before the last words: the modes are as they were. What to write first, so that they begin on a fresh line."""
        if self._modes is None:
            return b""
        self._modes.restore()
        if self._spec.debug_rank is None:
            return b""
        try:
            columns = os.get_terminal_size(2).columns
        except OSError:
            return b""
        if os.environ.get("TERM") in (None, "", "dumb") or columns < 2:
            return b"\n"
        # Plain colours, a visible cursor, no bracketed paste: what a rank that was killed may have left. Then a line of
        # blanks and back: in the first column that changes nothing, elsewhere it goes on in the next line.
        return b"\x1b[0m\x1b[?25h\x1b[?2004l" + b" " * (columns - 1) + b"\r"
