"""What a run has left that ended without a verdict: everybody of ours was killed at once, or the machine went down.

Its journal is replayed as far as it goes; nothing is asked of this machine's present but whether it was started again
since. Read next: `lost.py` (the verdict that a front gives which survives), `report/state.py` (the words).
"""

import contextlib
import os
import socket
import stat
import time
from pathlib import Path

from rankguard._version import __version__
from rankguard.core import story
from rankguard.core.job import Job, RankState
from rankguard.core.machine import step
from rankguard.diagnosis.verdict import verdict
from rankguard.diagnosis.words import shown
from rankguard.errors import UsageError
from rankguard.facts import Fact, Judged, SupervisorLost
from rankguard.jobspec import JobSpec
from rankguard.model import Attempt, Phase, Verdict
from rankguard.record import Record
from rankguard.report.state import RankNow, Sampled, last_look, remembered, sampled
from rankguard.runs.folder import CHANGED

_TAILS, _LINES, _READ = 3, 5, 8192
_JOURNAL = 64 << 20
"""A longer one is not replayed: somebody waits."""


class Remains(Record):
    """`verdict`: as a front that survived would have given it (`supervisor-lost`). `last_s`: the last fact, since launch."""

    verdict: Verdict
    ranks: tuple[RankNow, ...]
    last_s: float
    rebooted_at: float | None
    """When this machine was started again after the last news (seconds since the epoch); null if it was not, or is another."""
    tails: tuple[tuple[int, tuple[str, ...]], ...]
    """The last lines of the ranks that wrote last and had not ended."""
    samples: Sampled
    told_last: tuple[int, str, float] | None
    """The rank that reported last (a status, its readiness), what, and how long before the last news."""


def remains(folder: Path) -> Remains | None:
    """None when the journal does not even tell that the job began, or tells what cannot be."""
    try:
        return _remains(folder)
    except (OSError, *CHANGED):
        return None


def _remains(folder: Path) -> Remains | None:
    path = folder / "events.jsonl"
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, errors="replace") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _JOURNAL:  # a FIFO would be waited for
            return None
        job, last = _replayed(file)
        wrote_at = os.fstat(file.fileno()).st_mtime
    if job.started_at is None or last is None:
        return None
    data, looked_at = last_look(str(folder))
    last = max(last, looked_at) if looked_at is not None else last
    held = sampled(data, last - looked_at if looked_at is not None else None)
    case = remembered(job.case(), held)
    if case.judged is None:
        judged = Judged(last, None, "supervisor-lost", 125)
        case = case.replace(failed_by="supervisor-lost", failed_at=last, judged=judged, lost=SupervisorLost(last, None))
    return Remains(
        verdict=verdict(case.replace(now=last), __version__),
        ranks=tuple(_now(job, rank, last) for rank in job.ranks),
        last_s=last - job.started_at,
        rebooted_at=_rebooted_after(wrote_at) if job.spec.node == socket.gethostname() else None,
        samples=held,
        told_last=_told_last(job, last),
        tails=_tails(folder, [rank.rank for rank in job.ranks if rank.exited is None]),
    )


def _replayed(file: object) -> tuple[Job, float | None]:
    """The job, and the instant of its last fact. A fact that has no meaning ends the replay: somebody changed the file."""
    told = story.read(file)  # type: ignore[arg-type]  # lines
    spec = next(told, None)
    if not isinstance(spec, JobSpec):
        raise UsageError("an empty journal")
    job, last = Job(spec), None
    with contextlib.suppress(*CHANGED):
        for fact in told:
            if isinstance(fact, Attempt):
                job = story.again(job, fact)
            elif isinstance(fact, Fact):
                step(job, fact)
                last = fact.at
    return job, last


def _now(job: Job, rank: RankState, last: float) -> RankNow:
    said = rank.status
    return RankNow(
        rank=rank.rank,
        phase=Phase.ENDED if rank.exited is not None else shown(job.life(rank)),
        status=said.text if said is not None else None,
        done=said.done if said is not None else None,
        total=said.total if said is not None else None,
        silent_s=last - said.at if said is not None else None,
    )


def _told_last(job: Job, last: float) -> tuple[int, str, float] | None:
    told = [(rank.ready_at, rank.rank, "ready") for rank in job.ranks if rank.ready_at is not None]
    said = [(rank.status, rank.rank) for rank in job.ranks if rank.status is not None]
    told += [(status.at, number, status.text or "a status") for status, number in said]
    if not told:
        return None
    at, number, what = max(told)
    return number, what, max(0.0, last - at)


def _rebooted_after(wrote_at: float) -> float | None:
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/stat") as file:
        booted = float(next(line.split()[1] for line in file if line.startswith("btime ")))
        return booted if wrote_at < booted <= time.time() else None
    return None


def _tails(folder: Path, ranks: list[int]) -> tuple[tuple[int, tuple[str, ...]], ...]:
    wrote: list[tuple[float, int, Path]] = []
    for rank in ranks:
        for path in folder.glob(f"rank-{rank}/attempt-*/std*.log"):
            with contextlib.suppress(OSError):
                status = path.lstat()
                wrote += [(status.st_mtime, rank, path)] if status.st_size else []
    chosen: dict[int, tuple[str, ...]] = {}
    for _at, rank, path in sorted(wrote, reverse=True):
        if rank not in chosen and len(chosen) < _TAILS:
            chosen[rank] = _last_lines(path)
    return tuple(sorted(chosen.items()))


def _last_lines(path: Path) -> tuple[str, ...]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return ()
    try:
        data = os.pread(fd, _READ, max(0, os.fstat(fd).st_size - _READ))
    except OSError:
        return ()
    finally:
        os.close(fd)
    return tuple(line for line in data.decode(errors="replace").splitlines() if line.strip())[-_LINES:]
