"""The nouns of `doctor`: a check, what it answers, and the finding that a user sees. Values only."""

from collections.abc import Callable
from typing import Any

from rankguard.record import Record

OK, LIMITED, MISSING, UNKNOWN = "ok", "limited", "missing", "unknown"
STATES = (MISSING, LIMITED, UNKNOWN, OK)
"""The order in which they are shown: problems first."""


class Machine(Record):
    """What checks are told: the world size that limits are compared with, and the pid of the doctor itself."""

    ranks: int
    pid: int
    sigchld_ignored: bool = False
    """By whoever started us; it is undone for the checks, which wait for children of theirs."""


class Answer(Record):
    """What one check found. `cost`: what rankguard then cannot do, or how a verdict weakens; `cure`: what to do."""

    state: str
    found: str
    cost: str | None = None
    cure: str | None = None
    details: dict[str, Any] | None = None
    """For programs, in `--json` only."""


class Check(Record):
    """One check. `looks_at` is its row in docs/doctor.md; `essential`: ranks cannot be run where it is missing.

    `limit_s` bounds it (more on a slow machine); `lasting`: it makes something that it has to remove, so it is not killed when the doctor is.
    """

    id: str
    group: str
    looks_at: str
    probe: Callable[[Machine], Answer]
    essential: bool = False
    limit_s: float = 3.0
    lasting: bool = False


class Finding(Record):
    """A check and its answer, as `--json` has it."""

    id: str
    group: str
    state: str
    found: str
    cost: str | None
    cure: str | None
    essential: bool
    details: dict[str, Any] | None = None


def ok(found: str, **details: Any) -> Answer:
    """Nothing is lost."""
    return Answer(OK, found, details=details or None)


def limited(found: str, cost: str, cure: str, **details: Any) -> Answer:
    """It is there, and less than it could be."""
    return Answer(LIMITED, found, cost, cure, details or None)


def missing(found: str, cost: str, cure: str, **details: Any) -> Answer:
    """It is not there."""
    return Answer(MISSING, found, cost, cure, details or None)


def unknown(found: str, cost: str, cure: str, **details: Any) -> Answer:
    """It could not be found out."""
    return Answer(UNKNOWN, found, cost, cure, details or None)


def gib(size: float) -> str:
    """`1.5 GiB`, `64 MiB`, `12 KiB`."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            number = size / factor
            return f"{number:.0f} {unit}" if number >= 100 or number == int(number) else f"{number:.1f} {unit}"
    return f"{size:.0f} bytes"
