"""The failure that rankguard began with: ranks fill a host cache one after another under a memory limit, rank 0 is
alive and still loading, and the kernel kills a later one.

The limit is a real one: a memory cgroup of our own (v1 or v2); else a scope from `systemd-run --user` or `sudo -n`;
else RLIMIT_AS, which ends in a MemoryError and shows neither the kernel's choice of a victim nor its proof.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from rankguard.linux.hierarchies import own_groups
from rankguard.testing.faults.stage import PREFIX, Stage

RANK_MIB = 96
OURS_MIB = 64
"""Interpreters of the ranks, supervisor, front and warden."""
SCOPES = (("systemd-run", "--user", "--scope"), ("sudo", "-n", "systemd-run", "--scope"))


@contextlib.contextmanager
def arranged(stage: Stage) -> Iterator[tuple[bool, str, Sequence[str], Sequence[str]]]:
    """(there is a real limit, how it is set, the words before the command, the program's words)."""
    size = RANK_MIB if stage.ranks > 3 else 2 * RANK_MIB  # few ranks: more each, or what is ours would not matter
    limit = OURS_MIB + stage.ranks * 14 + size * (stage.ranks - 1) * 2 // 3
    for rank in range(1, stage.ranks):
        stage.fifo(str(rank))
    program = str(Path(__file__).with_name("host_cache.py"))
    with _limited(limit) as (how, wrap):
        own = size // 2 if wrap is None else 0
        said = f"a memory limit of {limit} MiB ({how})" if wrap is not None else f"an RLIMIT_AS of {own} MiB each"
        said += f", {size} MiB of host cache each but for rank 0"
        yield wrap is not None, said, wrap or (), [program, stage.folder, str(size), str(own)]


def why_not() -> str | None:
    """What stands in the way of a real OOM kill; null when nothing does."""
    with _limited(1 << 20) as (_how, wrap):
        return None if wrap is not None else "no memory cgroup can be made; a rank meets RLIMIT_AS"


@contextlib.contextmanager
def _limited(limit_mib: int) -> Iterator[tuple[str, list[str] | None]]:
    """How the limit is set, and the words before the command that put it there (None: only RLIMIT_AS is left)."""
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


def _works(words: Sequence[str]) -> bool:
    try:
        ended = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


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
