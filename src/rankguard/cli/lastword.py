"""Where a run's last word goes (`--termination-log`): `/dev/termination-log` in a container that has it.

Not what is said there (`report/termination.py`). Nothing here is a reason not to start.
"""

import os
import stat

from rankguard.cli.terminal import Said
from rankguard.linux.container import TERMINATION_LOG, entered


def last_word_of(asked: str | None) -> tuple[str | None, list[Said]]:
    """The file, made if it was asked for and is not there; null for none, with a warning where one was asked for."""
    if asked == "none":
        return None, []
    if asked is None:
        return (TERMINATION_LOG if _can_be_written(TERMINATION_LOG) and not entered() else None), []
    path = os.path.abspath(asked)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o644)
    except OSError as error:
        reason = error.strerror
    else:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        os.close(fd)
        if regular:
            return path, []
        reason = "it is no regular file"
    said = f"no last word is left for the container: unable to write `{asked}`: {reason}"
    return None, [(said, f"--termination-log {TERMINATION_LOG}, or none")]


def _can_be_written(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.W_OK)
    except OSError:
        return False
