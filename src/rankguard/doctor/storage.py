"""Checks of folders: shared memory, temporary files, where runs are kept, and what others have left there."""

import contextlib
import os
import tempfile
from pathlib import Path

from rankguard.doctor import leftovers
from rankguard.doctor.check import Answer, Check, Machine, gib, limited, missing, ok
from rankguard.linux.leftovers import SHM
from rankguard.linux.mounts import file_system, may_not_answer
from rankguard.private import private_parents
from rankguard.runs.folder import homes

_SMALL_SHM, _SMALL_DISK = 64 << 20, 256 << 20


def _shm(machine: Machine) -> Answer:
    cure = "docker run --shm-size=8g; Kubernetes: an emptyDir with medium: Memory at /dev/shm"
    cost = "torch's data loaders and NCCL end by SIGBUS or with `No space left on device`"
    try:
        held = os.statvfs(SHM)
    except OSError as error:
        return missing(f"{SHM}: {error.strerror}", cost, "mount -t tmpfs tmpfs /dev/shm")
    why = _cannot_write(SHM)
    if why is not None:
        return missing(why, cost, "mount -o remount,rw /dev/shm; its mode has to be 1777")
    size, free = held.f_blocks * held.f_frsize, held.f_bavail * held.f_frsize
    found = f"{gib(size)}, {gib(free)} of it free"
    if size and free < max(_SMALL_SHM + 1, machine.ranks * (16 << 20)):
        return limited(found, cost, cure, size_bytes=size, free_bytes=free)
    return ok(found, size_bytes=size, free_bytes=free)


def _stale_shm(_machine: Machine) -> Answer:
    stale = leftovers.stale_segments()
    if not stale:
        return ok("no segment is without a user")
    total = sum(size for _kind, _path, size in stale)
    named = ", ".join(path for _kind, path, _size in stale[:3]) + (", …" if len(stale) > 3 else "")
    return limited(
        f"{len(stale)} without a user, {gib(total)}: {named}",
        "they take memory until somebody removes them; the next start may end by SIGBUS",
        "rm them (ipcrm -m for a shmid), once it is sure that no other container shares /dev/shm",
        segments=[{"kind": kind, "path": path, "bytes": size} for kind, path, size in stale[:100]],
    )


def _tmp(_machine: Machine) -> Answer:
    folder = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  # the place itself is the subject
    why = _cannot_write(folder)
    if why is not None:
        return limited(
            why, "programs that need temporary files fail; rankguard itself goes on in the next folder",
            "TMPDIR=/a/folder/that/can/be/written",
        )  # fmt: skip
    held = os.statvfs(folder)
    free = held.f_bavail * held.f_frsize
    if held.f_flag & os.ST_NOEXEC:
        return limited(
            f"{folder} is mounted noexec",
            "what ranks compile or unpack there (Triton, torch.compile, NUMA wrappers) cannot be executed",
            f"TMPDIR=/another/folder, or mount -o remount,exec {folder}",
        )
    if free < _SMALL_DISK:
        return limited(f"{folder}: {gib(free)} free", "compilers and data loaders run out of space", f"free {folder}")
    return ok(f"{folder}: {gib(free)} free")


def _run_home(_machine: Machine) -> Answer:
    refused = []
    for home in homes():
        existing = next(each for each in (home, *home.absolute().parents) if each.exists())
        why = _cannot_write(str(existing))
        if why is not None:
            refused.append(why)
            continue
        held = os.statvfs(existing)
        free, kind = held.f_bavail * held.f_frsize, file_system(str(existing))
        found = f"{home} ({gib(free)} free)"
        if free < _SMALL_DISK:
            return limited(
                found, "logs and journals are cut off when it is full; a run goes on", f"free {existing}, or --run-dir"
            )
        if may_not_answer(kind):
            return limited(
                f"{found}, on {kind}", "a server that is gone makes rankguard wait for its journal",
                "RANKGUARD_HOME=/a/local/folder",
            )  # fmt: skip
        return ok(found, path=str(home))
    return limited(
        f"none of them can be written: {'; '.join(refused)}",
        "runs are kept in memory only: no logs, no `report` or `explain` afterwards", "--run-dir DIR, or RANKGUARD_HOME=DIR",
    )  # fmt: skip


def _private_dir(_machine: Machine) -> Answer:
    for folder in private_parents():
        if _cannot_write(folder) is None:
            return ok(f"sockets of ranks go to {folder}")
    return limited(
        "no folder with a short path can be written; abstract names are used",
        "any process in this network namespace can send to a rank's socket (it is then ignored by its pid)",
        "XDG_RUNTIME_DIR or TMPDIR: a short path that can be written",
    )


def _own_leftovers(_machine: Machine) -> Answer:
    dead = leftovers.of_dead_runs()
    if not dead:
        return ok("nothing is left of runs that were killed")
    named = ", ".join(each.path for each in dead[:3]) + (", …" if len(dead) > 3 else "")
    return limited(
        f"{len(dead)} of killed runs: {named}", "they cost nothing but order", "rankguard doctor --clean",
        left=[{"kind": each.kind, "path": each.path, "because": each.because} for each in dead[:100]],
    )  # fmt: skip


def _cannot_write(folder: str) -> str | None:
    """Why no file can be made there; null when one was (without a name, so that nothing can be left)."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno in (95, 21, 2) and Path(folder).is_dir():  # EOPNOTSUPP, EISDIR, ENOENT: no such files there
            return _cannot_write_named(folder)
        return f"{folder}: {error.strerror}"
    return None


def _cannot_write_named(folder: str) -> str | None:
    try:
        with contextlib.closing(tempfile.NamedTemporaryFile(dir=folder, prefix="rankguard-doctor-")):
            return None
    except OSError as error:
        return f"{folder}: {error.strerror}"


_G = "files"
CHECKS = (
    Check("dev-shm", _G, "write to /dev/shm; its size and what is free", _shm),
    Check("stale-shm", _G, "POSIX and System V segments that nobody uses", _stale_shm),
    Check("tmp", _G, "write to $TMPDIR; noexec; free space", _tmp),
    Check("run-home", _G, "write to the first folder that runs are kept in; free space; NFS", _run_home),
    Check("socket-folder", _G, "write to a folder whose path is short enough for sockets", _private_dir),
    Check("leftovers", _G, "groups and folders of runs and drills that were killed", _own_leftovers, limit_s=5.0),
)
