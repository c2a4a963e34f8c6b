"""What a job leaves behind: shared memory and socket files that outlive all its processes.

What a living process may still use is never called left, and never removed; in doubt it is not.
Things that somebody else with the same user id made and abandoned meanwhile cannot be told from the job's own, so they
are told and not removed, unless a process of the job was seen to hold them (`shmowners.py`) or everything is to go.

Sources: shm_overview(7), proc_sysvipc(5), proc_pid_net(5), F_SETLEASE in fcntl(2).
Read next: `tree.py` (that no process is left), `../model.py` (`Left`).
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from signal import SIGURG
from time import monotonic

from rankguard.linux.files import lstat, read_text
from rankguard.linux.shmowners import ShmOwners
from rankguard.model import Left

SHM = "/dev/shm"  # noqa: S108  # the place itself is the subject
_SCAN_LIMIT = 0.2
_QUIETLY = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


class Leftovers:
    """What was there when the job started, so that the end can tell what came since.

    `started_wall`: the time of day of the start; `uid`: whose things count.
    """

    def __init__(self, started_wall: float, uid: int, shm: str = SHM) -> None:
        self._started, self._uid, self._shm = started_wall, uid, shm
        self._files = set(entries(shm))
        self._folders = set(_folders(shm))
        self._segments = {segment[0] for segment in sysv_segments()}
        self._sockets_before = _bound_sockets()
        self._sockets: set[str] = set()

    def note(self) -> None:
        """Remembers the socket files that are bound now: once their process is gone, nothing tells that they were.

        So a socket of a process that died before the first call is not known. Call it when the ranks are ready, too.
        """
        self._sockets |= _bound_sockets() - self._sockets_before

    def find(self, job_pids: set[int]) -> tuple[Left, ...]:
        """What is left, to be asked when all processes of the job are gone (`job_pids`: those that it had)."""
        return (*self._find_files(), *self._find_segments(job_pids), *self._find_sockets())

    def clean(self, job_pids: set[int], owners: ShmOwners | None) -> tuple[Left, ...]:
        """As `find`, and what the job's processes held is removed; without `owners` everything that nobody uses.

        Sockets stay: they cost nothing, and their folders are the program's.
        """
        known = {left.path: left for left in self.find(job_pids)}
        pids = job_pids | (owners.pids if owners is not None else set())
        for path, inode in sorted(set(entries(self._shm))):
            if owners is None or (path in known and owners.owns(path, inode)):
                size = _unlink_unused(path, inode)
                if size is not None:
                    known[path] = Left(kind="shm", path=path, bytes=size, removed=True)
        for shmid, size, maker, attached, _uid, _changed in sysv_segments():
            name = f"shmid {shmid}"
            if not attached and (owners is None or (name in known and maker in pids)) and _remove_segment(shmid):
                known[name] = Left(kind="sysv-shm", path=name, bytes=size, removed=True)
        self._remove_folders()
        return tuple(known.values())

    def _remove_folders(self) -> None:
        """Empty ones that came since the start (a library's own folder)."""
        for folder in set(_folders(self._shm)) - self._folders:
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def _find_files(self) -> Iterator[Left]:
        """POSIX shared memory and semaphores (`sem.*`), as `shm_open` makes them, or a library in a folder of its own."""
        sizes: dict[str, int] = {}
        unsure: set[str] = set()
        for path, inode in sorted(set(entries(self._shm)) - self._files):
            status = lstat(path)
            if status and stat.S_ISREG(status.st_mode) and status.st_uid == self._uid and status.st_ino == inode:
                used = in_use(path)
                if not used:
                    sizes[path] = status.st_size
                if used is None:
                    unsure.add(path)
        used_paths = _used_by_processes(unsure, self._uid) if unsure else set()
        return (Left(kind="shm", path=path, bytes=size) for path, size in sizes.items() if path not in used_paths)

    def _find_segments(self, job_pids: set[int]) -> Iterator[Left]:
        """System V segments that nobody has attached and whose maker is gone; the kernel's times are whole seconds."""
        for shmid, size, maker, attached, uid, changed in sysv_segments():
            if shmid in self._segments or attached or changed < int(self._started):
                continue
            if maker in job_pids or (uid == self._uid and not os.path.exists(f"/proc/{maker}")):
                yield Left(kind="sysv-shm", path=f"shmid {shmid}", bytes=size)

    def _find_sockets(self) -> Iterator[Left]:
        self.note()
        for path in sorted(self._sockets - _bound_sockets()):
            status = lstat(path)
            if status and stat.S_ISSOCK(status.st_mode) and status.st_uid == self._uid:
                yield Left(kind="socket", path=path, bytes=None)


def entries(top: str, deep: bool = True) -> Iterator[tuple[str, int]]:
    """Files with their inodes, and those in folders one level below."""
    try:
        with os.scandir(top) as here:
            for entry in here:
                if entry.is_dir(follow_symlinks=False):
                    yield from entries(entry.path, deep=False) if deep else ()
                else:
                    yield entry.path, entry.inode()
    except OSError:
        return


def _folders(top: str) -> Iterator[str]:
    try:
        with os.scandir(top) as entries:
            yield from (entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return


def _unlink_unused(path: str, inode: int) -> int | None:
    """Remove a regular file that no process has open or mapped; its size, or None when it stays.

    The lease is held meanwhile: whoever opens the file now waits until it has no name any more (fcntl(2)).
    """
    try:
        fd = os.open(path, _QUIETLY)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_ino != inode:
            return None
        _lease(fd)
        os.unlink(path)
    except OSError:
        return None
    else:
        return status.st_size
    finally:
        os.close(fd)


def _remove_segment(shmid: int) -> bool:
    """shmctl(2), IPC_RMID: the kernel keeps what is attached after all until it is let go."""
    return int(ctypes.CDLL(None).shmctl(shmid, 0, None)) == 0


def in_use(path: str) -> bool | None:
    """Any process, in any container, has the file open or mapped; null when the kernel would not say.

    A write lease is granted only for a file that nobody else has open, and a mapping keeps it open (fcntl(2);
    `check_conflicting_open` in fs/locks.c). This asks the kernel itself in 6 µs, where a search through /proc sees
    neither other containers sharing /dev/shm nor, without privilege, other programs.
    """
    try:
        fd = os.open(path, _QUIETLY)
    except OSError:
        return None
    try:
        _lease(fd)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    else:
        return False
    finally:
        os.close(fd)  # ends the lease


def _lease(fd: int) -> None:
    """Until `fd` is closed. Raises `OSError`, EAGAIN when somebody else has the file open."""
    # Whoever opens the file right now has us signalled; SIGIO, the default, would end us.
    fcntl.fcntl(fd, fcntl.F_SETSIG, SIGURG)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)


def _used_by_processes(paths: set[str], uid: int) -> set[str]:
    """Those of `paths` that a process has mapped or open; all of them where that cannot be told for sure or in time."""
    used: set[str] = set()
    until = monotonic() + _SCAN_LIMIT
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        if monotonic() > until:
            return paths
        try:
            used |= _files_of(pid) & paths
        except PermissionError:
            if _uid_of(pid) in (uid, None):
                return paths
        except OSError:  # it has ended
            continue
    return used


def _uid_of(pid: str) -> int | None:
    """From its status: the folder of a process that may not be dumped belongs to root (proc(5))."""
    lines = (read_text(f"/proc/{pid}/status") or "").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("Uid:")), None)


def _files_of(pid: str) -> set[str]:
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
        found = {line.split(None, 5)[5].rstrip("\n") for line in maps if "/" in line}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            continue
    return found


def sysv_segments() -> Iterator[tuple[int, int, int, int, int, int]]:
    """id, size, pid of the maker, number of attachments, user id and time of change of each segment."""
    for line in (read_text("/proc/sysvipc/shm") or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 14:
            yield int(fields[1]), int(fields[3]), int(fields[4]), int(fields[6]), int(fields[7]), int(fields[13])


def _bound_sockets() -> set[str]:
    """Paths of sockets in our network namespace: absolute ones, for others are relative to who knows what."""
    return set(_socket_paths((read_text("/proc/net/unix") or "").splitlines()[1:]))


def _socket_paths(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        fields = line.split(None, 7)
        if len(fields) == 8 and fields[7].startswith("/"):
            yield fields[7]
