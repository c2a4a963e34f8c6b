"""The modes of a terminal that a rank may change (raw, no echo): kept while they are good, put back when it is gone.

A rank that is killed inside a line editor, a password prompt or a full-screen program leaves them as it had them.
Front and supervisor keep one of these each, since either may be the one that is left.

Only where nobody else has the terminal by now: while the front's process group is the terminal's foreground group, no
shell has taken it back. That group is read from the session's leader (`tpgid`, proc(5)), since TIOCGPGRP works for
processes of that session only; a process whose controlling terminal is another one, or none, may set modes without
being asked by job control (`__tty_check_change`, drivers/tty/tty_jobctrl.c).
"""

import os
import termios
from typing import Any


class Modes:
    """Of the terminals among `fds`, which stay open as long as this is used. `front`: the pid of who runs the job."""

    def __init__(self, fds: tuple[int, ...], front: int) -> None:
        self._saved: dict[int, tuple[int, list[Any]]] = {}
        """Device → a descriptor of it, and its modes."""
        for fd in fds:
            try:
                if os.isatty(fd):
                    self._saved.setdefault(os.fstat(fd).st_rdev, (fd, termios.tcgetattr(fd)))
            except (OSError, termios.error):
                continue
        try:
            self._group, self._session = os.getpgid(front), os.getsid(front)
        except ProcessLookupError:
            self._group = self._session = -1

    def step_aside(self) -> dict[int, list[Any]]:
        """Put the saved modes back for a while; what was there instead, by device, for `come_back`."""
        found: dict[int, list[Any]] = {}
        for device, (fd, _modes) in self._saved.items():
            try:
                found[device] = termios.tcgetattr(fd)
            except (OSError, termios.error):
                continue
        self.restore()
        return found

    def come_back(self, found: dict[int, list[Any]]) -> None:
        """Set what `step_aside` found, unless somebody else has the terminal now."""
        for device, modes in found.items():
            try:
                if self._may(device):
                    termios.tcsetattr(self._saved[device][0], termios.TCSANOW, modes)
            except (OSError, termios.error):
                continue

    def restore(self) -> bool:
        """Put back what has changed; whether something had."""
        changed = False
        for device, (fd, modes) in self._saved.items():
            try:
                if termios.tcgetattr(fd) != modes and self._may(device):
                    termios.tcsetattr(fd, termios.TCSANOW, modes)
                    changed = True
            except (OSError, termios.error):  # hung up: it has no modes any more
                continue
        return changed

    def _may(self, device: int) -> bool:
        """Nobody else has the terminal. One that is not the session's controlling terminal is nobody's to take."""
        try:
            with open(f"/proc/{self._session}/stat", "rb") as file:
                text = file.read()
        except OSError:
            return True  # the session's leader is gone, and nobody waits at this terminal
        fields = text[text.rindex(b")") + 2 :].split()
        return _device(int(fields[4])) != device or int(fields[5]) == self._group


def _device(number: int) -> int:
    """`tty_nr` of proc(5), as `st_rdev` has it: the minor's low byte, twelve bits of major, the rest of the minor."""
    return os.makedev(number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00)


def in_background(fd: int) -> bool:
    """Whether we run in the background of the terminal `fd`: a shell reads what is typed there."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:  # closed, or a terminal that is not our session's
        return False
