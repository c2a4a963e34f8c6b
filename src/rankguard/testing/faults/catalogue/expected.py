"""What is expected of most faults: this kind of cause, unless the job was being stopped. Makes `Fault.expect`."""

from collections.abc import Callable
from typing import Any

from rankguard.testing.faults.checks import Expect, Verdict, Words
from rankguard.testing.faults.fault import Cell

Checked = tuple[str, Callable[[Verdict], bool]]
"""What is looked at, and whether it is right. For `Expect.also`."""
Expects = Callable[[Cell], Expect]
_PHASE = {"starting": "starting", "ready-early": "ready", "all-ready": "ready"}


def failed(kind: Words, family: Words, status: int, *evidence: str, ends: str | None = None, **more: Any) -> Expects:
    """The victim is the culprit, by a cause of this kind, with this exit status; nobody when the job was stopping.

    `ends`: how its process ends, a signal's name or `exit N`; null where `more` or the status tell it.
    """
    ending = ends or more.get("signal") or f"exit {status}"

    def expect(cell: Cell) -> Expect:
        if cell.at == "stopping":
            return nobody(cell, ending)
        plain = Expect(kind, status, family=family, evidence=evidence, culprits=(cell.victim,), phase=_PHASE[cell.at])
        return plain.replace(**more)

    return expect


def raises(type_name: str, *also: Checked, evidence: tuple[str, ...] = ("rank",), **more: Any) -> Expects:
    """It fails by an exception of this type, which the rank itself tells of where `evidence` names no other source."""
    return failed("exception", "program", 1, *evidence, also=(*raised(type_name), *also), **more)


def exits(code: int, *evidence: str, **more: Any) -> Expects:
    """It fails by its exit code."""
    return failed("exit-code", "program", code, *evidence, **more)


def nobody(cell: Cell, ending: str) -> Expect:
    """SIGTERM came from outside: no rank is a failure, however it ended; the exit status tells the signal."""

    def as_made(verdict: Verdict) -> bool:
        found = next(row["ending"] for row in verdict["ranks"] if row["rank"] == cell.victim)
        return ending == (found["signal"] or f"exit {found['code']}")

    also = ((f"rank {cell.victim} ended by {ending}", as_made),)
    return Expect(None, 143, culprits=None, others=("stopped", "finished"), outcome="interrupted", also=also)


def left_early(cell: Cell) -> Expect:
    """It ended with 0 before it was ready; when the job was stopping, that is well."""
    return failed("exit-before-ready", "program", 1, "wait status", ends="exit 0")(cell)


def raised(type_name: str) -> tuple[Checked, ...]:
    """The cause names this exception."""

    def named(verdict: Verdict) -> bool:
        exception: dict[str, Any] | None = verdict["culprit"]["cause"]["exception"]
        return exception is not None and exception["type"].rpartition(".")[2] == type_name

    return ((f"names the exception, {type_name}", named),)


def says(text: str) -> tuple[Checked, ...]:
    """The cause's statement holds this text."""
    return ((f"says `{text}`", lambda verdict: text in verdict["culprit"]["cause"]["statement"]),)
