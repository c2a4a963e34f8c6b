"""Which file system a path is on, by the table of mounts: known without asking the file system, which may not answer."""

from rankguard.linux.files import read_text

_NETWORK = ("nfs", "cifs", "smb", "lustre", "ceph", "fuse", "gpfs", "beegfs", "9p", "wekafs")


def file_system(path: str) -> str:
    """The type of the mount that holds a path (proc_pid_mountinfo(5)); the last one that fits is on top."""
    best, kind = "", "?"
    for line in (read_text("/proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        top = left.split(" ")[4]
        if f"{path}/".startswith(f"{top.rstrip('/')}/") and len(top) >= len(best):
            best, kind = top, right.split(" ")[0]
    return kind


def may_not_answer(kind: str) -> bool:
    """A file system of this type is another machine's, or another process's: it may be as slow as that is."""
    return kind.startswith(_NETWORK)
