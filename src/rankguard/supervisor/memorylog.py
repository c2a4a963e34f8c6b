"""The looks at the ranks' memory on disk (`memory.jsonl`), bounded: a line a look, and the older ones fewer and fewer.

Of a run, so that attempts follow one another in it. Written in the looks that are made anyway (`samples.py`), never forced
to the disk; a disk that is full or read-only costs lines, never the job. What has been written is known by its place in the
file alone, so that a long run costs no memory. The shape of a line, and which ones stay: `../page/course.py`.
"""

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rankguard.page.course import NAME, base_of, kept, line_of
from rankguard.report.files import RunFiles

BOUND, FOR_A_RANK, MOST = 1 << 20, 3 << 10, 16 << 20
"""Bytes that the file may have: some, some more for each rank, and never more than that."""


class _Line(NamedTuple):
    """Where it is. `base`: bytes of it that stay as they are; `heard`: which ranks gave a sign since the line before."""

    at: float
    start: int
    base: int
    heard: int


class MemoryLog:
    """Of one run. `bound`: bytes; `tell` is given each line, for whoever shows the run while it lives.

    `few_fds`: none is left for a file that can be done without.
    """

    def __init__(self, files: RunFiles, nprocs: int, bound: int | None = None, *, few_fds: bool = False) -> None:
        self._files = files
        self._bound = min(MOST, BOUND + FOR_A_RANK * nprocs) if bound is None else bound
        self._fd = -1
        self._size = 0
        self._lines: list[_Line] = []
        self._broken = few_fds
        self.tell: Callable[[bytes], object] = len

    @property
    def last_at(self) -> float:
        """When the newest line was written."""
        return self._lines[-1].at if self._lines else float("-inf")

    def add(
        self, at: float, held: Mapping[int, int], used: int | None, limit: int | None, source: str | None, heard: int
    ) -> None:
        """One look: what each rank held, how full the limit with the least room was, who was heard since the one before."""
        base = base_of(at, held, used, limit, source)
        line = line_of(base, heard)
        self.tell(line)
        if self._files.folder is None or self._broken:
            self._lines = [_Line(at, 0, 0, 0)]
            return
        try:
            if self._fd < 0:
                self._fd = _opened(f"{self._files.folder}/{NAME}")
            _pwrite(self._fd, line, self._size)  # over what is left of a line that did not fit
        except OSError as error:
            self._broken = self._size == 0  # there is no file, and there will be none
            self._files.lacks(NAME, error)
            return
        self._lines.append(_Line(at, self._size, len(base), heard))
        self._size += len(line)
        if self._size > self._bound:
            self._thin()

    def close(self) -> None:
        """Nothing more is looked at."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _thin(self) -> None:
        """About half of it goes, most of that old. Complete or as it was: a new file takes the place of this one."""
        most = max(8, len(self._lines) * self._bound // (2 * self._size))
        chosen = kept([line.at for line in self._lines], most)
        new, size = bytearray(), []
        before = 0
        for at in chosen:
            heard = 0
            for line in self._lines[before : at + 1]:  # what was heard in lines that go is heard in this one
                heard |= line.heard
            before, line = at + 1, self._lines[at]
            text = line_of(os.pread(self._fd, line.base, line.start), heard)
            size.append(_Line(line.at, len(new), line.base, heard))
            new += text
        path = f"{self._files.folder}/{NAME}"
        fd = -1
        try:
            fd = _opened(f"{path}.new")
            _pwrite(fd, bytes(new), 0)
            os.rename(f"{path}.new", path)
        except OSError as error:
            self._files.lacks(NAME, error)
            if fd >= 0:
                os.close(fd)
            self._bound *= 2  # it may work later; not tried at every look
            return
        os.close(self._fd)
        self._fd, self._size, self._lines = fd, len(new), size


def _opened(path: str) -> int:
    """A new file: what lies there by that name is none of this run."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _pwrite(fd: int, data: bytes, offset: int) -> None:
    while data:
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done
