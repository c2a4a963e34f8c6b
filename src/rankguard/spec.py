"""One way to complete a `JobSpec`, for the command line and for `launch` alike: what neither of them is asked.

A run's id, its folder, this machine's name, the caller's folder, environment and limits. Starts nothing.
"""

import os
import resource
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from rankguard.errors import SpawnFailed
from rankguard.jobspec import JobSpec
from rankguard.report.redact import without_secrets
from rankguard.runs.folder import make_run_dir, new_run_id


def job_spec(
    *,
    command: Sequence[str],
    argv: Sequence[str],
    nprocs: int,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    log_dir: str | None = None,
    **more: Any,
) -> tuple[JobSpec, str | None]:
    """The complete spec, and a warning when its files are not kept where they were wanted.

    `command` is what was given (its secrets are hidden here), `argv` what is executed, `env` additions for all ranks; `log_dir` is
    a folder to make the run's folder in. Raises `SpawnFailed` when the caller's own folder is gone.
    """
    run_id = new_run_id()
    folder, warning = make_run_dir(run_id, None if run_dir is None else os.fspath(run_dir), log_dir)
    spec = JobSpec(
        run_id=run_id,
        command=tuple(command),
        argv=tuple(argv),
        nprocs=nprocs,
        env=dict(os.environ) | dict(env or {}),
        cwd=_cwd() if cwd is None else os.fspath(cwd),
        node=socket.gethostname(),
        run_dir=folder,
        ignore_hup=signal.getsignal(signal.SIGHUP) == signal.SIG_IGN,
        nofile=resource.getrlimit(resource.RLIMIT_NOFILE),
        **more,
    )
    return without_secrets(spec), warning


def settled(spec: JobSpec, functions: Sequence[str] | None = None, here: int | None = None) -> JobSpec:
    """The spec with `auto` decided. `functions`: the files that the ranks of a function import; null for a program.
    `here`: ranks of each node, where that is not all.
    """
    if spec.start != "auto":
        return spec
    if not spec.python or (spec.nprocs if here is None else here) < 2:
        return spec.replace(start="exec")  # there is nothing to choose
    from rankguard.launchers.auto import decide  # reads the program's text: no other start waits for its modules

    return decide(spec, functions)


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        said = f"unable to use the current folder: {error.strerror}"
        raise SpawnFailed(said, error.errno, 126, "cd to a folder that exists") from None
