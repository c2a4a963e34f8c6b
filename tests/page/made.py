"""Runs that never were: the files that one would have left, from facts; and the data in a page."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rankguard.core import story
from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import Exited, Fact, JobStarted, OutputClosed, Ready, Reaped, Spawned, StatusTold
from rankguard.jobspec import JobSpec
from rankguard.model import Ending
from rankguard.report.files import RunFiles
from rankguard.supervisor.memorylog import MemoryLog

_DATA = re.compile(r'<script type="application/json" id="rankguard-data">(.*?)</script>', re.DOTALL)
KILLED, FAILED = Ending("signal", signal="SIGKILL", number=9), Ending("exit", code=1)
GIB = 1 << 30


def data_in(page: str) -> dict[str, Any]:
    """What a page was given."""
    [found] = _DATA.findall(page)
    data: dict[str, Any] = json.loads(found)
    return data


def spec_of(nprocs: int, folder: Path | None = None, **more: Any) -> JobSpec:
    run_dir = None if folder is None else str(folder)
    return JobSpec(
        run_id="7f3a", command=("train.py",), argv=(), nprocs=nprocs, env={}, cwd="/", node="host-a",
        expect_ready=True, run_dir=run_dir, **more,
    )  # fmt: skip


def run_of(folder: Path, spec: JobSpec, facts: Iterable[Fact], *, ended: bool = True) -> Job:
    """A run's folder; without `ended` one that was cut off."""
    folder.mkdir(mode=0o700, exist_ok=True)
    files, job = RunFiles(str(folder)), Job(spec)
    files.append(story.first_line(spec))
    for fact in facts:
        files.append(story.lines(fact, step(job, fact)))
    if ended:
        files.finish(verdict(job.case(), "0.1.0"))
    return job


def trained(nprocs: int, seconds: int, tail: tuple[str, ...] = ()) -> Iterator[Fact]:
    """Ranks that load, train for so many seconds with a status each, and end as rank 1 is killed."""
    yield JobStarted(1000.0, 1.79e9)
    yield from (Spawned(1000.1 + rank / 1e3, rank, 5000 + rank) for rank in range(nprocs))
    for shard in range(5):
        for rank in range(nprocs):
            yield StatusTold(1001.0 + shard, rank, f"loading shard {shard} of 5", shard, 5, "shards")
    yield from (Ready(1006.0 + rank / 1e3, rank) for rank in range(nprocs))
    for second in range(7, seconds):
        for rank in range(nprocs):
            yield StatusTold(1000.0 + second, rank, "training", second, seconds, "steps")
    yield from ended(nprocs, 1000.0 + seconds, tail)


def ended(nprocs: int, at: float, tail: tuple[str, ...] = ()) -> Iterator[Fact]:
    """Rank 1 is killed, and the others lose it."""
    for rank in (1, *(rank for rank in range(nprocs) if rank != 1)):
        yield Exited(at + rank / 1e3, rank, KILLED if rank == 1 else FAILED, log_tail=tail, log="stdout")
        yield OutputClosed(at + rank / 1e3, rank)
        yield Reaped(at + rank / 1e3, rank, GIB)


def looks(folder: Path, nprocs: int, seconds: int, *, each: float = 1.0) -> MemoryLog:
    """What looks at their memory have left: rank 0 grows."""
    log = MemoryLog(RunFiles(None), nprocs)
    log._files.folder = str(folder)  # another run's journal is there already
    at = 1000.5
    while at < 1000.0 + seconds:
        held = {rank: GIB + (int((at - 1000) * 1e6) if rank == 0 else rank) for rank in range(nprocs)}
        log.add(at, held, 50 * GIB, 64 * GIB, "memory.max of /job", (1 << nprocs) - 1)
        at += each
    log.close()
    return log
