"""The surroundings of a cell, really made: control groups, a mount namespace, a user. Root makes them all.

`enter` is called in a process that was forked for the cell. Each cell has /dev/shm, a folder for temporary files and
control groups of its own, so that what is left in them is its. Read next: `cell.py` (what is done there).
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

from tests.matrix.axes import Place
from tests.others import OPEN_ROOT, why_no_stranger

from rankguard.linux.hierarchies import below, own_groups
from rankguard.linux.libc import prctl

NOBODY = 65534
NAME = "matrix-"
"""Of control groups; the runner's pid and a number follow."""
FOLDER = "rgm-"
"""Of the cells' folders below /tmp: short, for sockets are in there; the same follows."""
PLAYER, JOB = "player", "job"
ROOT = Path(__file__).parents[2]

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CLONE_NEWNS = 0x00020000
PR_SET_DUMPABLE = 4

_libc = ctypes.CDLL(None, use_errno=True)


def enter(place: Place, folder: str, groups: list[str]) -> int | None:
    """Makes the surroundings from the outside in, for this process and its children. Ask `why_not` first.

    Returns an open file that sets the memory limit of the cell's own group, for whoever cannot write groups inside.
    """
    limit = _limit_file(groups)
    for group in groups:
        inside = [
            f"{group}/{name}"
            for name in (JOB if place.groups == "ro" else PLAYER, "")
            if os.path.isdir(f"{group}/{name}")
        ]
        Path(inside[0], "cgroup.procs").write_text("0")
    if os.geteuid() == 0:
        _unshare_mounts(place)
        if place.user == "nobody":
            _give(folder, groups if place.groups == "own" else [])
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            prctl(PR_SET_DUMPABLE, 1)  # as after an execve: our own /proc is ours again (proc(5))
    os.environ.pop("XDG_RUNTIME_DIR", None)
    os.environ |= {"TMPDIR": f"{folder}/tmp", "RANKGUARD_HOME": f"{folder}/home", "HOME": f"{folder}/home"}
    return limit


def why_not(place: Place, groups: list[str]) -> str | None:
    """Why these surroundings cannot be made here; null when they can."""
    root = os.geteuid() == 0
    if place.user == "root" and not root:
        return "it needs root, and this is not"
    if place.groups == "ro" and not root and groups:
        return "it needs root, to make control groups read-only"
    if place.groups == "own" and not groups:
        return "no control group can be made on this machine"
    return why_no_stranger() if place.user == "nobody" else None


def make_groups(name: str) -> list[str]:
    """A group below our own in each hierarchy that rankguard uses, where one can be made.

    With cgroup2's memory controller there are two below it, for no group that has processes may have children with
    counters (cgroups(7)): `PLAYER` for the cell's own process, and `JOB`, in which rankguard is started and has nobody
    beside it.
    """
    made: list[str] = []
    for key, group in own_groups().items():
        if key not in ("memory", "v2", "freezer", "pids"):
            continue
        path = f"{group.path}/{NAME}{name}"
        try:
            os.mkdir(path)
            made.append(path)
            if os.path.exists(f"{path}/memory.max"):
                Path(path, "cgroup.subtree_control").write_text("+memory")
                os.mkdir(f"{path}/{PLAYER}")
                os.mkdir(f"{path}/{JOB}")
        except OSError:
            pass
    return made


def job_group(groups: list[str]) -> str | None:
    """The group that rankguard is to be started in, where it is another one than the cell's process is in."""
    return next((f"{group}/{JOB}" for group in groups if os.path.isdir(f"{group}/{JOB}")), None)


def remove_groups(groups: list[str]) -> None:
    """Those that `make_groups` made, with all that is left below them."""
    for group in groups:
        for path in below(group):
            try:
                os.rmdir(path)
            except OSError:
                pass


def forget_stale() -> None:
    """Removes what runners that were killed have left: folders and empty groups. All processes have died with them."""
    for group in own_groups().values():
        for name in os.listdir(group.path):
            if _of_the_dead(name, NAME):
                remove_groups([f"{group.path}/{name}"])
    for name in os.listdir("/tmp"):
        if _of_the_dead(name, FOLDER):
            shutil.rmtree(f"/tmp/{name}", ignore_errors=True)


def _of_the_dead(name: str, prefix: str) -> bool:
    pid = name.removeprefix(prefix).partition("-")[0]
    return name.startswith(prefix) and pid.isdecimal() and not os.path.exists(f"/proc/{pid}")


def left_below(groups: list[str]) -> list[str]:
    """Control groups that somebody has made in a cell's and not removed."""
    return [
        path for group in groups for path in below(group) if path not in (group, f"{group}/{PLAYER}", f"{group}/{JOB}")
    ]


def _limit_file(groups: list[str]) -> int | None:
    """An open file that sets the memory limit of all that is in the cell, for whoever cannot write groups inside."""
    for group in groups:
        for name in ("memory.limit_in_bytes", f"{JOB}/memory.max"):
            if os.path.exists(f"{group}/{name}"):
                return os.open(f"{group}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    return None


def _unshare_mounts(place: Place) -> None:
    """A mount namespace: a /dev/shm of its own; control groups read-only if asked (each of the mounts, as runc does)."""
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount("shm", "/dev/shm", "tmpfs", 0, "mode=1777,size=512m")
    if place.groups == "ro":
        tops = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup" in line]
        for top in sorted(top for top in tops if top.startswith("/sys/fs/cgroup")):
            _mount(None, top, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    if place.user == "nobody":
        subprocess.run(OPEN_ROOT, check=True)


def _mount(what: str | None, where: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else word.encode() for word in (what, where, kind, options)]
    _checked(_libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), f"mount {where}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)


def _give(folder: str, groups: list[str]) -> None:
    """The folder and the control groups become those of nobody, as systemd delegates (cgroups(7))."""
    for path in (folder, f"{folder}/tmp", f"{folder}/home"):
        os.chown(path, NOBODY, NOBODY)
    for group in [inner for each in groups for inner in below(each)]:
        for path in (group, *(f"{group}/{name}" for name in os.listdir(group) if name in _DELEGATED)):
            os.chown(path, NOBODY, NOBODY)


_DELEGATED = ("cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control", "cgroup.kill")
