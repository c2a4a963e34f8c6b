"""What to look at on this machine, given the words of a failure: the questions that `supervisor/survey.py` answers.

Pure, and asked of the same words as the hints (`hints/`), so that each fact a hint names has been looked at. Nothing is
looked at that no words ask for. Read next: `hints/`.
"""

import re

from rankguard.case import RankCase
from rankguard.diagnosis.evidence import exception_of, said
from rankguard.record import Record

NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|ENOSPC|\[Errno 28\]")
IN_USE = re.compile(r"[Aa]ddress already in use|EADDRINUSE|[Aa]ddress in use")
SHM = re.compile(r"/dev/shm|shared memory|shm_open|\bshm\b|DataLoader worker .* Bus error", re.IGNORECASE)  # noqa: S108  # words
GPU = re.compile(
    r"\b(CUDA|cuda\w+|CUDNN|cuDNN|cuBLAS|CUBLAS|NCCL|nccl\w+|NVML|HIP error|GPU)\b|OutOfMemoryError|device-side assert"
)
NO_MODULE = re.compile(r"No module named '([A-Za-z_]\w*)")
HALF_MODULE = re.compile(
    r"partially initialized module '([A-Za-z_]\w*)|from partially initialized module '([A-Za-z_]\w*)"
    r"|[Mm]odule '([A-Za-z_]\w*)' has no attribute|cannot import name '\w+' from '([A-Za-z_]\w*)"
)
_PORT = re.compile(
    r"(?:port[:= ]+|\(addr='\w+://[^']*:|(?<=[\d\]a-z]):|'[^']*', )(\d{2,5})\b(?![\d.]*[A-Za-z])", re.IGNORECASE
)
_BIND = re.compile(r"(?:bind|listen|create_server|TCPStore)\w*\(.*?[\"'], *(\d{2,5})\b")
_QUOTED = re.compile(r"['\"`](/[^'\"`\n]{1,400})['\"`]")


class Wants(Record):
    """What is to be looked at. `cores`: pids whose core file is looked for."""

    places: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    cores: tuple[int, ...] = ()
    modules: tuple[str, ...] = ()
    gpus: bool = False


def wants(rank: RankCase, master_port: int | None = None) -> Wants:
    """Of one rank that failed. `master_port` is asked about where a port is in use and torch's store is what failed."""
    words = said(rank)
    port = port_in(rank) if IN_USE.search(words) else None
    if port is None and IN_USE.search(words) and "TCPStore" in words + "".join(_traceback(rank)):
        port = master_port
    return Wants(
        places=(*paths_in(words), "", "/tmp", "/dev/shm") if NO_SPACE.search(words) else (),  # noqa: S108  # looked at only
        ports=(port,) if port is not None else (),
        cores=(rank.pid,) if rank.pid and rank.exited and rank.exited.ending.core_dumped else (),
        modules=modules_in(words),
        gpus=bool(GPU.search(words)),
    )


def port_in(rank: RankCase) -> int | None:
    """The port that is in use: from the message, else from the line of the program that bound it."""
    for text, pattern in ((said(rank), _PORT), *((line, _BIND) for line in reversed(_traceback(rank)))):
        for found in pattern.finditer(text):
            if 0 < int(found[1]) < 65536 and found[1] != "98":
                return int(found[1])
    return None


def paths_in(words: str) -> tuple[str, ...]:
    """Absolute paths that stand in quotes."""
    return tuple(dict.fromkeys(_QUOTED.findall(words)))[:4]


def modules_in(words: str) -> tuple[str, ...]:
    """First names of modules that were not found, or that were not what they should be."""
    found = NO_MODULE.findall(words) + [name for names in HALF_MODULE.findall(words) for name in names if name]
    return tuple(dict.fromkeys(found))[:4]


def _traceback(rank: RankCase) -> list[str]:
    found = exception_of(rank)
    text = found[0].traceback if found else None
    return text.splitlines() if text else []
