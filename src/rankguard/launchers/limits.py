"""Enough file descriptors for a job: our own limit is raised, the ranks get theirs back, too few is said before the start."""

import contextlib
import resource

from rankguard.errors import SpawnFailed

FDS_PER_RANK = 4
"""Its pidfd, notify socket and two pipes."""
FDS_FOR_LOGS = 2
FDS_STARTING = 16
"""Ranks that are started in one go (`exec.py`): each has a pipe that tells when it executes."""
FDS_OF_OURS = 30
"""Front, watch and journal, and what one start needs for a moment."""
FDS_OF_PAGE = 8
"""With `--http`: its socket, its feed, its pidfd and output, the journal for one that is started again."""
FDS_OF_COMFORT = 10
"""The control socket and its callers, py-spy, the file of looks at memory: done without when there are too few."""


def fds_for(nprocs: int) -> tuple[int, int]:
    """What a job cannot do without, and what it would have."""
    needed = nprocs * FDS_PER_RANK + min(nprocs, FDS_STARTING) + FDS_OF_OURS
    return needed, needed + nprocs * FDS_FOR_LOGS + FDS_OF_COMFORT


def ensure_fds(nprocs: int, *, page: bool = False) -> bool:
    """Raise our own limit on open files as far as needed; true when there are enough for logs and other terminals.
    `page`: there is a page server.

    Raises `SpawnFailed` when there are too few for the ranks themselves.
    """
    needed, wanted = (count + FDS_OF_PAGE * page for count in fds_for(nprocs))
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if soft != infinite and soft < wanted:
        raise_towards(wanted)
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != infinite and soft < needed:
        raise SpawnFailed(
            f"{nprocs} ranks need {needed} open files, and this process may have {soft}",
            exit_code=125,
            hint=f"ulimit -n {wanted}",
        )
    return soft == infinite or soft >= wanted


def raise_towards(count: int) -> None:
    """Raise our own limit to `count` open files, or as near to it as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if soft != infinite and soft < count:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard == infinite else min(count, hard), hard))


def may_keep(nprocs: int, each: int) -> bool:
    """There are `each` descriptors more for every rank; our limit is raised for them if need be."""
    _needed, wanted = fds_for(nprocs)
    wanted += nprocs * each
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if soft != infinite and soft < wanted and (hard == infinite or hard >= wanted):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return True
    return soft == infinite or soft >= wanted
