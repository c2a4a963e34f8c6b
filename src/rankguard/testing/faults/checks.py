"""What must come of a fault, and what did: one line a check. Reads the verdict as any script would; decides nothing.

`expected` and `found` are shown side by side, so that whoever sees a difference need not know the code. Where an
expectation is a tuple, each of its members is right.
"""

from collections.abc import Callable, Iterator
from typing import Any

from rankguard.record import Record

Verdict = dict[str, Any]
Words = str | tuple[str, ...]
Codes = int | tuple[int, ...]


class Expect(Record):
    """What the verdict and the exit status must be. Where several are given, each is right."""

    kind: Words | None
    """Of the cause; None where nobody is called a failure."""
    status: Codes
    """What the command ends with."""
    confidence: Words = "proven"
    """Of the cause."""
    culprits: tuple[int, ...] | None = (1,)
    """Ranks that may be named; None for no rank at all."""
    others: tuple[str, ...] = ("stopped",)
    """What every other rank may be called (`relation`)."""
    ended_by: int | None = None
    """The signal that ends the command itself, in place of an exit status."""
    also: tuple[tuple[str, Callable[[Verdict], bool]], ...] = ()
    """Of one fault's own: what is looked at, and a test of the verdict."""
    outcome: str = "failed"
    """Of the verdict."""
    family: Words | None = None
    """Of the cause. None: not looked at, as with all below."""
    phase: str | None = None
    """The culprit's, when it failed."""
    signal: str | None = None
    """What ended the culprit; `""` for no signal."""
    evidence: tuple[str, ...] = ()
    """Sources that must be among those of the cause."""
    either: tuple[int, ...] = ()
    """Ranks that may be called `either`."""
    survivors: int = 0
    """How many processes nobody can end: the verdict must name them."""


def checked(expect: Expect, verdict: Verdict, status: int, left: list[str]) -> Iterator[tuple[bool, str]]:
    """(as it should be, what was looked at) for each check.

    `expect`: what must be, of the fault in its circumstance (`Fault.expect`).
    `verdict`: the object of `verdict.json`; empty where there is none.
    `status`: the command's exit status; minus the signal that ended it.
    `left`: processes that were left, each in a few words.
    """
    culprit = verdict.get("culprit") or {}
    cause = culprit.get("cause") or {}
    if not verdict:
        yield False, "verdict: expected one in the run's folder, found none"
        return
    yield _same("outcome", expect.outcome, verdict.get("outcome"))
    yield _culprit(expect, culprit)
    if expect.kind is not None:
        yield _same("cause", expect.kind, cause.get("kind"))
        yield _same("confidence", expect.confidence, cause.get("confidence"))
    if expect.family is not None:
        yield _same("family", expect.family, cause.get("family"))
    if expect.phase is not None:
        yield _same("the culprit's phase", expect.phase, culprit.get("phase"))
    if expect.signal is not None:
        yield _same("ended by", expect.signal, (culprit.get("ending") or {}).get("signal") or "")
    sources = {each["source"] for each in cause.get("evidence", [])}
    for source in expect.evidence:
        yield (
            source in sources,
            f"evidence from {source}{'' if source in sources else f': none, only {sorted(sources)}'}",
        )
    rows = [row for row in verdict.get("ranks", []) if row["rank"] != culprit.get("rank")]
    found = sorted({str(row["relation"]) for row in rows})
    right, shown = set(found) <= set(expect.others), ", ".join(found)
    yield right, _words("the other ranks", shown if right else " or ".join(expect.others), shown)
    doubted = verdict.get("either") or []
    if doubted:
        yield set(doubted) <= set(expect.either), f"either: {doubted} (expected {list(expect.either) or 'none'})"
    if expect.ended_by is None:
        yield _same("exit status", expect.status, status)
    else:
        yield _same("the command was ended by signal", expect.ended_by, -status)
    yield _same("exit code in the verdict", expect.status, verdict.get("exit_code"))
    for what, test in expect.also:
        yield test(verdict), what
    yield from _nothing_left(expect, (verdict.get("teardown") or {}).get("survivors") or [], left)


def _nothing_left(expect: Expect, named: list[Any], left: list[str]) -> Iterator[tuple[bool, str]]:
    if expect.survivors:
        yield _same("survivors in the verdict", expect.survivors, len(named))
    else:
        yield not named, _words("survivors in the verdict", "none", "none" if not named else str(named))
    yield not left, _words("processes left", "none", ", ".join(left) or "none")


def _culprit(expect: Expect, culprit: Verdict) -> tuple[bool, str]:
    found = culprit.get("rank")
    if expect.culprits is None:
        return found is None, _words("culprit", "no rank", "no rank" if found is None else f"rank {found}")
    named = f"rank {' or '.join(map(str, expect.culprits))}"
    if len(expect.culprits) > 2:
        named = f"a rank from {expect.culprits[0]} to {expect.culprits[-1]}"
    shown = "no rank" if found is None else f"rank {found}"
    right = found in expect.culprits
    return right, _words("culprit", shown if right else named, shown)


def _same(what: str, expected: object, found: object) -> tuple[bool, str]:
    many = expected if isinstance(expected, tuple) else (expected,)
    right = found in many
    return right, _words(what, str(found) if right else " or ".join(map(str, many)), str(found))


def _words(what: str, expected: str, found: str) -> str:
    return f"{what}: {found}" if expected == found else f"{what}: {found} (expected {expected})"
