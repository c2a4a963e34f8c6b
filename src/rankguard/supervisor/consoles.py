"""Where the ranks' lines go, stdout and stderr: the two consoles of a job, which may be one, and what they could not show.

Read next: `../linux/console.py` (one of them), `onscreen.py` (the terminal that it may be).
"""

import fcntl
import os
import stat
import struct

from rankguard.jobspec import JobSpec
from rankguard.linux.console import Console
from rankguard.linux.console import missing as text_missing
from rankguard.report.jsonlines import missing as json_missing

_TIOCGDEV = 0x80045432
"""The terminal's own device number, also of one that was opened as `/dev/tty` (asm-generic/ioctls.h)."""


def consoles(spec: JobSpec, out: int, err: int) -> tuple[Console | None, Console | None]:
    """Where stdout and stderr lines go. One terminal or pipe is one console: two queues to it would mix what they hold."""
    if spec.console == "none":
        return None, None
    missing = json_missing if spec.log_format == "json" else text_missing
    error = Console(err, missing)
    return (error, error) if spec.console == "stderr" or _same(out, err) else (Console(out, missing), error)


def losses(both: tuple[Console | None, Console | None]) -> list[str]:
    """What could not be shown, for people: lines, bytes, where and why."""
    out, error = both
    names = [(out, "stdout"), (error, "stderr")] if out is not error else [(out, "stdout and stderr")]
    return [said for console, name in names if console is not None for said in console.losses(name)]


def terminal_of(fd: int) -> int | None:
    """Which terminal this is; None for anything else."""
    try:
        if not os.isatty(fd):
            return None
        return int(struct.unpack("I", fcntl.ioctl(fd, _TIOCGDEV, bytes(4)))[0])
    except OSError:  # before Linux 2.6.36, or in a sandbox's kernel: good enough unless it was opened as /dev/tty
        return os.fstat(fd).st_rdev


def _same(out: int, err: int) -> bool:
    terminal = terminal_of(out)
    if terminal is not None:
        return terminal == terminal_of(err)
    one, other = os.fstat(out), os.fstat(err)
    through = stat.S_ISFIFO(one.st_mode) or stat.S_ISSOCK(one.st_mode)
    return through and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
