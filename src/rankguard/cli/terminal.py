"""Who has the terminal: which rank reads our stdin (`--stdin`), and one rank in the hand (`--debug`).

A job in the background of its terminal gives it to nobody: what is typed there is for the shell, and a rank that reads
it (job control does not ask it, since it leads a session of its own) would take the shell's words. Read next: `front/hand.py` (what the front does with its terminal meanwhile).
"""

import os
from types import SimpleNamespace

from rankguard.errors import UsageError
from rankguard.linux.modes import in_background
from rankguard.record import Record

Said = str | tuple[str, str]


class Hands(Record):
    """Who has what. `said`: what is to be told before the job starts, each with its hint."""

    debug: int | None
    stdin: int | None
    hidden: tuple[int, ...]
    ready_timeout: float | None
    stall_timeout: float | None
    said: tuple[Said, ...] = ()


def hands(asked: SimpleNamespace, nprocs: int, hidden: tuple[int, ...]) -> Hands:
    """What `--debug` and `--stdin` mean here. `hidden`: what the console does not show otherwise. Raises `UsageError`."""
    debug = _rank("--debug", asked.debug, nprocs)
    stdin, said = _stdin(asked, nprocs, debug)
    timeouts = {"--ready-timeout": asked.ready_timeout, "--stall-timeout": asked.stall_timeout or None}
    if debug is not None:
        hidden = tuple(0 if rank == debug else 3 for rank in range(nprocs))
        for option, timeout in timeouts.items():
            if timeout is not None:
                said.append((f"`{option} {timeout:g}`: it does not run with `--debug`", "leave it out"))
                timeouts[option] = None
        if not os.isatty(0):
            said.append(
                (
                    f"`--debug {debug}`: stdin is no terminal; rank {debug} reads what there is",
                    "start it on a terminal, or attach with debugpy: docs/debug.md",
                )
            )
    return Hands(debug, stdin, hidden, timeouts["--ready-timeout"], timeouts["--stall-timeout"], tuple(said))


def _stdin(asked: SimpleNamespace, nprocs: int, debug: int | None) -> tuple[int | None, list[Said]]:
    named = None if asked.stdin in ("auto", "none") else _rank("--stdin", asked.stdin, nprocs)
    if debug is not None and named not in (None, debug):
        raise UsageError(
            f"`--stdin {named}`: expected no other rank than that of `--debug {debug}`, which has the terminal",
            f"--debug {debug}",
        )
    if asked.stdin == "none":
        return None, []
    wanted = debug if debug is not None else named
    if wanted is None and os.isatty(0):
        return (None if in_background(0) else 0), []
    if wanted is None or not in_background(0):
        return wanted, []
    option = f"--debug {debug}" if debug is not None else f"--stdin {named}"
    hint = "start it in the foreground" + ("" if debug is not None else ", or give it a file: < FILE")
    return None, [(f"`{option}`: rank {wanted} reads nothing, because the job runs in the background", hint)]


def _rank(option: str, asked: str | None, nprocs: int) -> int | None:
    if asked is None:
        return None
    if not asked.isdecimal() or int(asked) >= nprocs:
        raise UsageError(f"`{option} {asked}`: expected a rank of this job, 0 to {nprocs - 1}", f"{option} 0")
    return int(asked)
