"""Where a run's last word goes (`--termination-log`): `/dev/termination-log` in a container that has it.

Not what is said there (`report/termination.py`). Nothing here is a reason not to start.
"""

import os
import stat

from rankguard.cli.terminal import Said
from rankguard.linux.files import read_text

PLACE = "/dev/termination-log"
"""Kubernetes' own default (`terminationMessagePath`); made by the kubelet, a file for each start of a container."""


def last_word_of(asked: str | None) -> tuple[str | None, list[Said]]:
    """The file, made if it was asked for and is not there; null for none, with a warning where one was asked for."""
    if asked == "none":
        return None, []
    if asked is None:
        return (PLACE if _can_be_written(PLACE) and not entered() else None), []
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
    return None, [(said, f"--termination-log {PLACE}, or none")]


def _can_be_written(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.W_OK)
    except OSError:
        return False


def entered() -> bool:
    """We came into the container from outside (`kubectl exec`): its last word is not ours.

    Such a process, or one above it, has no parent in this PID namespace and is not its first process. Where the PID
    namespace is the whole pod's (its first process is `pause`) that is so for every container's own process as well.
    """
    pid = str(os.getpid())
    for _ in range(1000):
        if pid == "1":
            return False
        status = (read_text(f"/proc/{pid}/status") or "").splitlines()
        parent = next((line.split()[1] for line in status if line.startswith("PPid:")), None)
        if parent is None:  # not for us to see
            return False
        if parent == "0":
            return (read_text("/proc/1/comm") or "").strip() != "pause"
        pid = parent
    return False
