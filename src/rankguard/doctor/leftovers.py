"""What killed runs and drills of ours have left: empty control groups, private folders, folders of drills, segments.

A thing is named only when its owner is provably gone: every socket in a private folder refuses (connect(2): nobody has
it open, in whatever container), the pid in the name of a drill's or doctor's thing has no process, a group has no
process below it and its run no living private folder. In doubt it is not named, and what is not named is not removed.
"""

import contextlib
import errno
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator

from rankguard.linux.files import listed, lstat, read_text
from rankguard.linux.hierarchies import below, own_groups, processes, remove_group
from rankguard.linux.kmsg import in_init_pid_namespace
from rankguard.linux.leftovers import SHM, entries, in_use, sysv_segments
from rankguard.private import private_folders
from rankguard.record import Record

_YOUNG_S = 60.0
"""Younger than this may belong to a run that is just being started."""
_PIDS = ("rankguard-drill-", "rankguard-doctor-")
_SEARCH_S = 2.0


class Dead(Record):
    """Something to remove. `kind`: `cgroup`, `folder` or `shm`; `because`: the proof."""

    kind: str
    path: str
    because: str


def of_dead_runs() -> list[Dead]:
    """Everything of ours that can be removed without harm to anybody."""
    return [*_private_folders(), *_of_pids(), *_groups()]


def remove(dead: Dead) -> str | None:
    """Remove it; why it could not be. What has come to life meanwhile refuses by itself, or is looked at again."""
    try:
        if dead.kind == "cgroup":
            for path in below(dead.path):
                remove_group(path)
            return "it is not empty" if os.path.isdir(dead.path) else None
        if dead.kind == "shm":
            os.unlink(dead.path)
        else:
            shutil.rmtree(dead.path)
    except OSError as error:
        return error.strerror or str(error)
    return None


def remove_groups_of_doctor(pid: int) -> None:
    """What a check that was killed for its time limit could not remove."""
    for group in own_groups().values():
        for name in (f"rankguard-doctor-{pid}", f"rankguard-doctor-{pid}.sup"):
            for path in below(f"{group.path}/{name}"):
                remove_group(path)


def stale_segments() -> list[tuple[str, str, int]]:
    """(kind, path, bytes) of shared memory of this user that no process has open, mapped or attached."""
    found = []
    for path, _inode in entries(SHM):
        status = lstat(path)
        if status and stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and in_use(path) is False:
            found.append(("shm", path, status.st_size))
    for shmid, size, maker, attached, uid, _changed in sysv_segments():
        if not attached and uid == os.getuid() and not _lives(maker):
            found.append(("sysv-shm", f"shmid {shmid}", size))
    return found


def _private_folders() -> Iterator[Dead]:
    for _run_id, path in private_folders():
        status = lstat(path)
        if status is None or status.st_uid != os.getuid():
            continue
        if not stat.S_ISDIR(status.st_mode) or time.time() - status.st_mtime < _YOUNG_S:
            continue
        sockets = [f"{path}/{each}" for each in listed(path)]
        sockets = [each for each in sockets if (told := lstat(each)) and stat.S_ISSOCK(told.st_mode)]
        if all(_refuses(each) for each in sockets) and (sockets or not _any_supervisor()):
            none = "it is empty and no supervisor lives"
            yield Dead("folder", path, f"nobody listens on its {len(sockets)} sockets" if sockets else none)


def _of_pids() -> Iterator[Dead]:
    """Folders and segments whose name holds the pid of their maker. Only where pids are the machine's own."""
    if not in_init_pid_namespace():
        return
    tmp = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  # where drills make their folders
    for parent, kind in ((tmp, "folder"), (SHM, "shm")):
        for name in listed(parent):
            pid, path = _pid_in(name), f"{parent}/{name}"
            status = lstat(path)
            if pid is None or _lives(pid) or status is None or status.st_uid != os.getuid():
                continue
            if stat.S_ISDIR(status.st_mode) == (kind == "folder"):
                yield Dead(kind, path, f"process {pid} is gone")


def _groups() -> Iterator[Dead]:
    """Groups below the mount points that we can see; the kernel removes none that holds a process."""
    dead_ones = {dead.path for dead in _private_folders()}
    alive = {run_id for run_id, path in private_folders() if path not in dead_ones}
    until = time.monotonic() + _SEARCH_S
    for top in dict.fromkeys(group.top for group in own_groups().values()):
        for folder, names, _files in os.walk(top):
            if time.monotonic() > until:
                return
            ours = [name for name in names if name.startswith("rankguard-")]
            for name in ours:
                names.remove(name)
                path = f"{folder}/{name}"
                if _group_is_dead(path, name, alive):
                    yield Dead("cgroup", path, "no process is in it, and its run does not live")


def _group_is_dead(path: str, name: str, alive: set[str]) -> bool:
    status = lstat(path)
    if status is None or status.st_uid != os.getuid() or any(processes(each) for each in below(path)):
        return False
    if (pid := _pid_in(name)) is not None:
        return in_init_pid_namespace() and not _lives(pid)
    run = name.removeprefix("rankguard-").partition(".")[0]
    return run not in alive and time.time() - status.st_mtime > _YOUNG_S


def _refuses(path: str) -> bool:
    """Nobody has this socket open any more."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with contextlib.closing(
            socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        ) as end:
            try:
                end.connect(path)
            except ConnectionRefusedError:
                return True
            except OSError as error:
                if error.errno == errno.EPROTOTYPE:  # somebody has it, as the other kind; or ask again as that
                    continue
                return False
            return False
    return False


def _any_supervisor() -> bool:
    pids = filter(str.isdecimal, listed("/proc"))
    return any((read_text(f"/proc/{pid}/comm") or "").strip() == "rankguard-sup" for pid in pids)


def _pid_in(name: str) -> int | None:
    for prefix in _PIDS:
        if name.startswith(prefix):
            digits = name.removeprefix(prefix).partition("-")[0]
            return int(digits) if digits.isdecimal() else None
    return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
