"""Small files and folders that may be gone, or never were: asked once, and never an error. `/proc`, `/sys`, `/dev`."""

import os


def read_text(path: str, most: int = 1 << 30) -> str | None:
    """The text of a file of the kernel, of a long one some more than `most` bytes; null when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while most > 0 and (part := os.read(fd, 65536)):
            parts.append(part)
            most -= len(part)
        return b"".join(parts).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(fd)


def read_once(path: str, most: int) -> bytes:
    """The beginning of a small file of the kernel, in one read; empty when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, most)
        finally:
            os.close(fd)
    except OSError:
        return b""


def devnull() -> int:
    """A new descriptor that reads as ended, and takes what is written."""
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def write_text(path: str, text: str) -> OSError | None:
    """Write a small file of the kernel; why it could not be written."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        return error
    return None


def listed(folder: str) -> list[str]:
    """The names in a folder; none when it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def lstat(path: str) -> os.stat_result | None:
    """What is there, a link for itself; null when nothing is, or it cannot be seen."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def is_noexec(path: str) -> bool:
    """Nothing can be executed on the file system that it is on (mount(8), `noexec`), whatever its mode."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
    except (OSError, ValueError):
        return False
