"""Findings as text and as JSON. Problems first; 80 columns; colours only where stdout is a terminal that knows them."""

import json
import textwrap
from collections.abc import Iterator, Sequence

from rankguard._version import __version__
from rankguard.doctor.check import LIMITED, MISSING, OK, STATES, UNKNOWN, Finding
from rankguard.record import to_data
from rankguard.report.wording import printable

SCHEMA = "rankguard.doctor/1"
WIDTH = 80
_PAINT = {MISSING: "31;1", LIMITED: "33;1", UNKNOWN: "35;1", OK: "32"}


def can_run(findings: Sequence[Finding]) -> bool:
    """Nothing that is essential is missing."""
    return not any(each.essential and each.state == MISSING for each in findings)


def as_json(findings: Sequence[Finding], node: str, removed: Sequence[dict[str, str | None]] | None = None) -> str:
    """One object on one line: `schema`, `rankguard`, `node`, `can_run`, `checks`; `removed` with `--clean`."""
    told = {"schema": SCHEMA, "rankguard": __version__, "node": node, "can_run": can_run(findings)}
    told["checks"] = [to_data(each) for each in findings]
    if removed is not None:
        told["removed"] = list(removed)
    return json.dumps(told)


def as_text(findings: Sequence[Finding], node: str, *, color: bool) -> Iterator[str]:
    """The lines, the summary first."""
    yield from textwrap.wrap(_summary(findings, node), WIDTH, subsequent_indent="  ")
    for state in STATES[:-1]:
        for each in findings:
            if each.state == state:
                yield ""
                yield from _problem(each, color)
    yield ""
    for group in dict.fromkeys(each.group for each in findings):
        fine = [each for each in findings if each.group == group and each.state == OK]
        if fine:
            yield _painted(group, OK, color)
            for each in fine:
                yield from _wrapped(f"  {each.id:21}", each.found)


def _summary(findings: Sequence[Finding], node: str) -> str:
    counts = [(state, sum(each.state == state for each in findings)) for state in STATES]
    said = ", ".join(f"{count} {state}" for state, count in counts if count)
    verdict = "ranks can be run here" if can_run(findings) else "ranks cannot be run here"
    return f"rankguard {__version__} on {node}: {verdict}; {said}"


def _problem(each: Finding, color: bool) -> Iterator[str]:
    essential = " (essential)" if each.essential and each.state == MISSING else ""
    label = _painted(each.state, each.state, color)
    yield f"{label}{' ' * (8 - len(each.state))} {each.id}{essential}"
    yield from _wrapped("  found  ", each.found)
    if each.cost:
        yield from _wrapped("  cost   ", each.cost)
    if each.cure:
        yield from _wrapped("  cure   ", each.cure)
    if yaml := (each.details or {}).get("yaml"):  # to be pasted: never wrapped
        yield from (f"    {line}" for line in str(yaml).splitlines())


def _wrapped(label: str, text: str) -> list[str]:
    """Words longer than a line (paths) lose their beginning; `--json` has them in full."""
    room = WIDTH - len(label)
    words = [word if len(word) <= room else f"…{word[1 - room :]}" for word in printable(text, 2000).split()]
    indent = " " * len(label)
    lines = textwrap.wrap(
        " ".join(words), WIDTH, initial_indent=label, subsequent_indent=indent, break_on_hyphens=False
    )
    return lines or [label.rstrip()]


def _painted(text: str, state: str, color: bool) -> str:
    return f"\x1b[{_PAINT[state]}m{text}\x1b[0m" if color else text
