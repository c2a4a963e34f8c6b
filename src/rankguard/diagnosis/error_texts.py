"""Causes that are known by their words: memory, disk, GPU, and collectives that timed out.

A table of what runtimes print, with its source. Judged are only the words that end a rank: its report, the exception of
its last traceback, the last lines of a log without one. Not here: words about lost peers (`peers.py`).
"""

import errno
import re

from rankguard.diagnosis.peers import collective_timeout
from rankguard.model import Report
from rankguard.record import Record


class Match(Record):
    """A cause found by words. `what` it did, for the statement, which ends with the phrase when `quoted`."""

    kind: str
    what: str
    phrase: str
    quoted: bool


def match(text: str, report: Report | None = None) -> Match | None:
    """The cause that `text` names; by number, when the rank reported an errno."""
    if report and report.how == "errno" and report.errno in _ERRNOS:
        kind, what = _ERRNOS[report.errno]
        return Match(kind=kind, what=what, phrase=f"ERRNO={report.errno}", quoted=False)
    for kind, what, quoted, patterns in _TEXTS:
        for pattern in patterns:
            if found := pattern.search(text):
                return Match(kind=kind, what=what, phrase=_line(text, found), quoted=quoted)
    if phrase := collective_timeout(text):
        return Match(
            kind="collective-timeout",
            what="waited in vain for another rank in a collective",
            phrase=phrase,
            quoted=False,
        )
    return None


_DISK, _MEMORY = ("disk-full", "ran out of disk space"), ("memory-limit", "ran out of memory")
_ERRNOS = {errno.ENOSPC: _DISK, errno.EDQUOT: _DISK, errno.ENOMEM: _MEMORY}


def _table(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern) for pattern in patterns)


_TEXTS = (
    (
        "cuda-oom",
        "ran out of GPU memory",
        False,
        # c10/cuda/CUDACachingAllocator.cpp; cudaErrorMemoryAllocation; cuBLAS; XLA's BFC allocator
        _table(
            r"CUDA out of memory",
            r"HIP out of memory",
            r"torch(\.cuda)?\.OutOfMemoryError",
            r"CUDA error: out of memory",
            r"CUDA_ERROR_OUT_OF_MEMORY",
            r"^OutOfMemoryError\b",
            r"RESOURCE_EXHAUSTED: Out of memory (while trying to allocate|allocating)",
        ),
    ),
    (
        "gpu-error",
        "met a GPU error",
        True,
        # NVIDIA's Xid catalogue (those of the hardware), driver_types.h (cudaError). An illegal memory access or a
        # device-side assert is the program's own exception, not the machine's fault.
        _table(
            r"uncorrectable ECC",
            r"fallen off the bus",
            r"\bXid\b.{0,40}\b(48|62|63|64|74|79|92|94|95|119|120)\b",
            r"CUDA error: (unknown error|no CUDA-capable device|system not yet initialized)",
            r"CUDA error: all CUDA-capable devices are busy",
            r"cudaErrorECCUncorrectable|CUDA_ERROR_ECC_UNCORRECTABLE",
        ),
    ),
    # errno.ENOSPC, errno.EDQUOT as strerror(3) says them
    (*_DISK, True, _table(r"No space left on device", r"Disk quota exceeded")),
    (
        *_MEMORY,
        False,
        # CPython; strerror(ENOMEM); libstdc++; torch's CPU allocator
        _table(
            r"(?m)^MemoryError\b",
            r"numpy\S*_ArrayMemoryError|^_ArrayMemoryError|Unable to allocate .+ for an array",
            r"Cannot allocate memory",
            r"std::bad_alloc",
            r"DefaultCPUAllocator: (can't allocate memory|not enough memory)",
        ),
    ),
)
_PHRASE = 110


def _line(text: str, found: re.Match[str]) -> str:
    start = text.rfind("\n", 0, found.start()) + 1
    line = text[start:].partition("\n")[0].strip()
    return line if len(line) <= _PHRASE else line[max(0, min(found.start() - start, len(line) - _PHRASE)) :][:_PHRASE]
