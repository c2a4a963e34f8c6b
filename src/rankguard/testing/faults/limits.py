"""A real memory limit for a whole job: a memory cgroup of our own (v1 or v2), else a scope from `systemd-run --user` or
`sudo -n systemd-run`. What a limit is used for is the business of drills and faults.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rankguard.linux.hierarchies import own_groups
from rankguard.testing.faults.stage import PREFIX

OURS_MIB, RANK_MIB = 64, 14
"""Interpreters: front, warden and supervisor; each rank."""
SCOPES = (("systemd-run", "--user", "--scope"), ("sudo", "-n", "systemd-run", "--scope"))

PLAYER_MIB = 24
"""Whoever plays the fault, where it is in the same group as the ranks."""

set_ours: Callable[[int | None], None] | None = None
"""Sets the limit of the group that we are in, in bytes, or lifts it. For whoever plays faults where no group can be made,
and holds a way to do that from outside: a container's limit is set by others, too."""


@contextlib.contextmanager
def limited(limit_mib: int) -> Iterator[tuple[str, list[str] | None]]:
    """How the limit is set, and the words before the command that put it there; null where no limit can be made."""
    if set_ours is not None:
        try:
            set_ours(limit_mib + PLAYER_MIB << 20)
            yield "the limit of the group that we are in", []
        finally:
            set_ours(None)
        return
    group = _make_group(limit_mib)
    if group is not None:
        try:
            join = 'echo 0 > "$0"/cgroup.procs && exec "$@"'
            yield f"cgroup {group}", ["/bin/sh", "-c", join, group]
        finally:
            with contextlib.suppress(OSError):
                os.rmdir(group)
        return
    for words in SCOPES:
        asked = [*words, "--quiet", "--collect", "-p", f"MemoryMax={limit_mib}M", "-p", "MemorySwapMax=0"]
        if shutil.which(words[0]) and _works([*asked, "true"]):
            yield " ".join(words), asked
            return
    yield "", None


def why_not() -> str | None:
    """Why no limit can be made; null when one can. A real group is made, and removed."""
    with limited(1 << 20) as (_how, wrap):
        return None if wrap is not None else "no memory cgroup can be made"


def unseen(shut_log: bool) -> tuple[str, ...]:
    """Words before a command that make all control groups read-only for it, and the kernel log unreadable if asked.

    As in a container. Root only: a mount namespace.
    """
    shut = "mount --bind /dev/null /dev/kmsg; " if shut_log else ""
    tops = "awk '$3 ~ /cgroup/ {print $2}' /proc/mounts"
    script = f'for m in $({tops}); do mount -o remount,ro,bind "$m" || exit 96; done; {shut}exec "$@"'
    return ("unshare", "--mount", "/bin/sh", "-c", script, "sh")


def _works(words: Sequence[str]) -> bool:
    try:
        ended = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


def why_nothing_unseen() -> str | None:
    """Why `unseen` does not work here; null when it does."""
    if shutil.which("unshare") is None:
        return "there is no unshare(1)"
    return None if _works([*unseen(shut_log=True), "true"]) else "a mount namespace cannot be made"


def _make_group(limit_mib: int) -> str | None:
    """A memory cgroup with that limit below our own group; None where none can be made."""
    for group in own_groups().values():
        path = Path(group.path, f"{PREFIX}{os.getpid()}")
        try:
            path.mkdir()
        except OSError:
            continue
        limits = [path / name for name in ("memory.limit_in_bytes", "memory.max") if (path / name).exists()]
        try:
            limits[0].write_text(str(limit_mib << 20))
            for swap in ("memory.swap.max", "memory.swappiness"):
                if (path / swap).exists():
                    (path / swap).write_text("0")
        except (OSError, IndexError):
            path.rmdir()
            continue
        return str(path)
    return None
