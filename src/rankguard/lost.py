"""The verdicts that the front gives, since nobody else is left: the supervisor is gone, or never began.

What the supervisor had written is on disk: its journal is replayed, so that the verdict still tells what was known.
"""

import contextlib
import errno
import os
import sys
import time

from rankguard._version import __version__
from rankguard.core import story
from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.verdict import verdict
from rankguard.errors import RankguardBug, SpawnFailed, UsageError
from rankguard.facts import JobStarted, Judged, Looked, NotSpawned, SupervisorLost, TreeEmpty
from rankguard.jobspec import JobSpec
from rankguard.model import Verdict
from rankguard.report.files import RunFiles
from rankguard.report.redact import for_telling, job_redactor
from rankguard.report.state import Sampled, fullness, last_look, remembered, sampled
from rankguard.report.termination import of_verdict
from rankguard.report.terminationlog import TerminationLog

_FULL = 0.9
"""Of a memory limit."""


def verdict_without_supervisor(spec: JobSpec, bug: str | None, *, gone: bool) -> Verdict:
    """`supervisor-lost` (somebody killed it) or `bug` (its last word), with what its journal tells of the ranks.

    `gone`: the warden has ended, and with it the proof that no process of the job is left.
    """
    now = time.monotonic()
    bug = None if bug is None else job_redactor(spec).text(bug)
    case = as_told(spec, now).case()
    held = Sampled()
    if spec.run_dir is not None:
        data, at = last_look(spec.run_dir)
        held = sampled(data, now - at if at is not None else None)
        case = remembered(case, held)
    if case.judged is None:
        judged = Judged(now, None, "bug" if bug is not None else "supervisor-lost", 125)
        case = case.replace(
            failed_by="supervisor-lost", failed_at=now, judged=judged, lost=SupervisorLost(now, None, bug)
        )
    theirs = spec.watch is not None and spec.watch.attaches  # whoever started the engine has it still
    if gone and case.tree is None and not theirs:
        case = case.replace(tree=TreeEmpty(now), ended_at=case.ended_at or now)
    final = verdict(case.replace(now=now), __version__)
    if bug is None and (held.share or 0) >= _FULL:
        hint = f"see whether the kernel's OOM killer took the supervisor: memory was at {fullness(held)}"
        final = final.replace(hints=(*final.hints, hint))
    if bug is not None and (kept := keep_details(spec, bug)) is not None:
        final = final.replace(hints=(f"report it with `{kept}`, which holds the details",))
    return filed(spec, final)


def keep_details(spec: JobSpec, bug: str) -> str | None:
    """The whole of a fault of ours, beside the run's other files; null where it has none."""
    if spec.run_dir is None:
        return None
    path = f"{spec.run_dir}/fault.txt"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(f"rankguard {__version__}, Python {sys.version.split()[0]}\n\n{bug}")
    except OSError:
        return None
    return path


def verdict_never_begun(spec: JobSpec, error: SpawnFailed) -> Verdict:
    """`cannot-start` of all ranks: a limit of this machine did not let even our own processes begin."""
    now = time.monotonic()
    job = Job(for_telling(spec))
    step(job, JobStarted(now, time.time()))
    step(job, NotSpawned(now, 0, "limits", error.errno or errno.EMFILE, error.statement))
    step(job, Looked(now))
    for rank in range(1, spec.nprocs):
        step(job, NotSpawned(now, rank, "cancelled", 0, "no rank was started"))
    step(job, choose(job.case()))
    step(job, TreeEmpty(now))
    told = verdict(job.case().replace(now=now), __version__)
    return filed(spec, told.replace(exit_code=error.exit_code, hints=(error.hint,) if error.hint else told.hints))


def filed(spec: JobSpec, final: Verdict) -> Verdict:
    files = RunFiles(None)  # the journal is the supervisor's
    if _journal_of(spec.run_dir) in (None, spec.run_id):
        files.folder = spec.run_dir
        files.finish(final)
    last_word = TerminationLog(spec.termination_log, job_redactor(spec).text)
    last_word.write(lambda theirs: of_verdict(final, theirs))
    last_word.close()
    return final


def _journal_of(folder: str | None) -> str | None:
    """Whose journal is in a folder: a run's id; None for nobody's."""
    if folder is not None:
        with contextlib.suppress(OSError, UsageError, ValueError, TypeError), open(f"{folder}/events.jsonl") as file:
            told = next(story.read(file), None)
            return told.run_id if isinstance(told, JobSpec) else None
    return None


def as_told(spec: JobSpec, now: float) -> Job:
    """The job as far as the journal tells of it."""
    if spec.run_dir is not None:
        try:
            with open(f"{spec.run_dir}/events.jsonl") as file:
                job, _steps = story.replay(file)
            if job.started_at is not None and job.spec.run_id == spec.run_id:
                return job
        except (OSError, UsageError, RankguardBug):
            pass
    job = Job(for_telling(spec))
    step(job, JobStarted(now, time.time()))
    return job
