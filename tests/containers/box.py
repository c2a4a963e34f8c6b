"""A container as far as the kernel makes one: PID, mount and IPC namespaces of their own, with rankguard as PID 1.

What a pod takes away is taken away by a shell in the mount namespace before it becomes the command; nothing of it is
seen outside, and it is gone with the last process. Root only.
"""

import functools
import os
import subprocess
from collections.abc import Sequence

import pytest
from tests.others import why_no_stranger

NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--ipc")

READ_ONLY_CGROUPS = (
    "for m in $(awk '$3 ~ /cgroup/ {print $2}' /proc/mounts); do mount -o remount,ro,bind $m || exit 96; done"
)
NO_KERNEL_LOG = "mount --bind /dev/null /dev/kmsg"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def bare_dev(scratch: object) -> str:
    """As a container's own /dev: no kernel log, and no /dev/shm either. `scratch`: an empty folder."""
    made = "; ".join(f": >/dev/{name}; mount --bind {scratch}/{name} /dev/{name}" for name in DEVICES)
    return f"mount --rbind /dev {scratch}; mount -t tmpfs -o mode=755 none /dev; {made}; mkdir /dev/pts"


def container(*setup: str, then: Sequence[str] = ()) -> list[str]:
    """The words before a command that make it PID 1 of a container in which each of `setup` has been done."""
    script = " && ".join(f"{{ {each}; }}" for each in setup) or ":"
    return [*NAMESPACES, "sh", "-c", f'{script} || exit 97; exec "$@"', "sh", *then]


@functools.cache
def why_not() -> str | None:
    """Why no container can be made here; null when one can."""
    if os.getuid() != 0:
        return "needs root for namespaces"
    try:
        ended = subprocess.run(container("mount -t tmpfs none /mnt", then=("true",)), capture_output=True, check=False)
    except OSError as error:
        return f"namespaces cannot be made: {error}"
    return (
        None if ended.returncode == 0 else f"namespaces cannot be made: {ended.stderr.decode(errors='replace').strip()}"
    )


needs_container = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
needs_stranger = pytest.mark.skipif(
    why_not() is not None or why_no_stranger() is not None, reason=why_not() or why_no_stranger() or ""
)


def open_to_all(*folders: str) -> None:
    """A volume that any user may write."""
    for folder in folders:
        os.chmod(folder, 0o777)
