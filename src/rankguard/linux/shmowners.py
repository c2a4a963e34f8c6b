"""Which files of shared memory the job's own processes hold, noticed as they are made: the proof that `--clean-shm own`
removes nothing of somebody else's.

The kernel tells of every new file (inotify(7)), not of its maker; so shortly after news the processes below us are asked
what they have open or mapped (proc_pid_fd(5), proc_pid_maps(5)). A file whose maker was gone before that is not owned,
unless its name is torch's, which holds the pid of one of them. Not a cleaner: `leftovers.py`.
"""

import os
import re

from rankguard.linux import inotify, tree
from rankguard.linux.files import read_text

_TORCH = re.compile(r"torch_(\d{1,7})_")
"""`torch_PID_RANDOM_COUNT` (torch/lib/libshm, NewProcessWideShmHandle)."""
_SOON_S, _SLICE = 0.02, 16


class ShmOwners:
    """`fileno` is readable when something new is there (-1: the kernel does not tell); `wake` looks when it is due.

    `told` false: no descriptor is free for that, and only `look_at_all` sees what there is.
    """

    def __init__(self, shm: str, *, told: bool = True) -> None:
        self._shm = shm
        self.pids: set[int] = set()
        """Every process below us that was seen."""
        self._held: set[tuple[str, int]] = set()
        self._todo: list[int] = []
        self._due: float | None = None
        self._fd = inotify.watch(shm, inotify.CREATE | inotify.MOVED_TO) if told else -1

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def on_news(self, now: float) -> None:
        """Something was made: its maker is asked soon, together with the next ones."""
        if not inotify.drain(self._fd):
            self.close()
        if self._due is None:
            self._due = now + _SOON_S

    def next_wake(self) -> float | None:
        return 0.0 if self._todo else self._due

    def wake(self, now: float) -> None:
        """Look at some processes, if it is time."""
        if self._due is not None and self._due <= now:
            self._due, self._todo = None, tree.descendants(os.getpid())
        for pid in self._todo[:_SLICE]:
            self._look(pid)
        del self._todo[:_SLICE]

    def look_at_all(self) -> None:
        """Now: the processes are about to end."""
        self._todo.clear()
        for pid in tree.descendants(os.getpid()):
            self._look(pid)

    def owns(self, path: str, inode: int) -> bool:
        """A process of the job held this file, or is named by it."""
        named = _TORCH.match(path.rpartition("/")[2])
        return (path, inode) in self._held or (named is not None and int(named[1]) in self.pids)

    def _look(self, pid: int) -> None:
        self.pids.add(pid)
        inside = f"{self._shm}/"
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{fd}"
                target = os.readlink(path)
                if target.startswith(inside):
                    self._held.add((target, os.stat(path).st_ino))
        except OSError:  # it is ending, or is not ours to look into
            pass
        for line in (read_text(f"/proc/{pid}/maps") or "").splitlines():
            if inside in line:
                fields = line.split(None, 5)
                self._held.add((fields[5], int(fields[4])))
