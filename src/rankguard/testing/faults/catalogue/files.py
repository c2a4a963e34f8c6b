"""Disks, shared memory, descriptors and ports."""

import os

from rankguard.testing.faults.catalogue.expected import failed, raises
from rankguard.testing.faults.fault import Fault
from rankguard.testing.faults.parts.files import mount_small
from rankguard.testing.faults.surroundings import Surroundings


def _no_dev_full(_here: Surroundings) -> str | None:
    return None if os.path.exists("/dev/full") else "there is no /dev/full"


def _no_small_mount(_here: Surroundings) -> str | None:
    """Tried in a child, since the namespace stays with whoever makes it."""
    child = os.fork()
    if child == 0:
        try:
            mount_small("/dev/shm")  # noqa: S108  # the place itself is the subject
        except OSError as error:
            os._exit(error.errno or 1)
        except BaseException:  # noqa: BLE001  # a forked child must not go on
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if code == 0 else f"no small tmpfs can be mounted: {os.strerror(code) if code > 0 else 'killed'}"


FAULTS = (
    Fault(
        "disk-full", "writes to a full disk (/dev/full)", "files:disk_full",
        failed("disk-full", "machine", 1, "rank"), needs=_no_dev_full,
    ),
    Fault(
        "disk-full-tmpfs", "fills a file system of 1 MiB", "files:disk_full_tmpfs",
        failed("disk-full", "machine", 1, "rank"), needs=_no_small_mount,
    ),
    Fault(
        "shm-full", "fills a small /dev/shm: SIGBUS", "files:shm_full",
        failed("crash", "program", 135, "wait status", signal="SIGBUS"), needs=_no_small_mount,
    ),
    Fault(
        "descriptors-exhausted", "opens files until RLIMIT_NOFILE is reached", "files:descriptors_exhausted",
        raises("OSError"),
    ),
    Fault(
        "port-in-use", "binds a port on which another rank listens", "files:port_in_use",
        raises("OSError"),
        phases=("starting", "ready-early", "all-ready"),
    ),
)  # fmt: skip
