"""The matrix's table: on the terminal, and in docs/matrix.md. Words only; nothing is run here."""

import os
import platform
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from tests.matrix.axes import AXES, MEANING, everything
from tests.matrix.place import ROOT
from tests.matrix.runner import Result

from rankguard.testing import faults

PAGE = ROOT / "docs" / "matrix.md"
HEAD = ("fault", "cells", "right", "wrong", "not made", "median s", "p95 s", "found")


def rows(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """A row for each fault, in the order of the catalogue."""
    of: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        of[result.place.fault].append(result)
    for name in faults.FAULTS:
        if name in of:
            yield (name, *_counts(of[name]), *_times(of[name]), _found(of[name]))


def _counts(of: Sequence[Result]) -> tuple[str, str, str, str]:
    wrong, not_made = sum(bool(each.wrong) for each in of), sum(bool(each.why_not) for each in of)
    return str(len(of)), str(len(of) - wrong - not_made), str(wrong), str(not_made)


def _times(of: Sequence[Result]) -> tuple[str, str]:
    """From the failure, as the verdict dates it, until everything has ended and the verdict stands."""
    took = sorted(each.verdict_after_s for each in of if each.verdict_after_s is not None)
    if not took:
        return "", ""
    return f"{statistics.median(took):.2f}", f"{took[int(0.95 * (len(took) - 1) + 0.5)]:.2f}"


def _found(of: Sequence[Result]) -> str:
    kinds = Counter(f"{each.kind}, {each.confidence}" for each in of if each.kind)
    return "; ".join(kind for kind, _count in kinds.most_common())


def table(results: Sequence[Result]) -> str:
    """For a terminal."""
    lines = [HEAD, *rows(results)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            word.rjust(width) if 0 < n < len(HEAD) - 1 else word.ljust(width) for n, (word, width) in row
        ).rstrip()
        for row in (enumerate(zip(line, widths, strict=True)) for line in lines)
    )


def cannot(results: Sequence[Result]) -> str:
    """How many cells cannot be made, by reason."""
    reasons = Counter(result.why_not for result in results if result.why_not)
    if not reasons:
        return "\nevery cell was made"
    return "\n".join(["\ncannot be made", *(f"{count:6}  {why}" for why, count in reasons.most_common())])


def wrong(results: Sequence[Result]) -> str:
    """What differs, and how to repeat it."""
    lines = [""]
    for result in results:
        if result.wrong:
            lines += [f"wrong: {result.place}", *(f"    {line}" for line in result.wrong)]
            lines.append(f"    again: make matrix ARGS='{result.place} -v'")
    return "\n".join(lines)


def total(results: Sequence[Result]) -> str:
    """The last line."""
    cells, right, bad, not_made = _counts(results)
    return f"{cells} cells: {right} right, {bad} wrong, {not_made} cannot be made"


def took(seconds: float) -> str:
    """In words."""
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def write(results: Sequence[Result], runs: int) -> None:
    """docs/matrix.md; `runs`: how many it is put together from. Raises `ValueError` where cells are not known."""
    if len(results) != len(everything()):
        raise ValueError(f"the page tells of all {len(everything())} cells, and only {len(results)} are known")
    PAGE.write_text("\n".join(_page(results, runs)) + "\n")


def _page(results: Sequence[Result], runs: int) -> Iterator[str]:
    faults_, *others = AXES
    yield "# The fault matrix"
    yield ""
    yield "Written by `make matrix ARGS=--write`, which makes every cell anew; not edited by hand."
    yield ""
    circumstances = " × ".join(f"{{{', '.join(axis)}}}" for axis in others)
    yield (
        "Every way to fail that the fault laboratory has (`rankguard.testing.faults`), made for real in every "
        f"circumstance: {len(faults_)} faults × {circumstances}. "
        "A cell is right when all of this is as it should be: culprit, kind and family of the cause, confidence, exit "
        "status, evidence, what the other ranks are called; the verdict keeps to its schema and a replay of the "
        "journal reaches it again; and nothing is left: no process, no control group, no segment in /dev/shm, no "
        "private folder, none of the files that belong to a live run. A cell that is not over after 150 s hangs. "
        "Nothing is tried again to make it right."
    )
    yield ""
    yield f"**{total(results)}**, on {datetime.now(UTC):%Y-%m-%d}, {_machine()}."
    yield ""
    if runs > 1:
        yield f"Put together from {runs} runs (`--from`); of a cell that was made more than once it shows the last result."
        yield ""
    yield "| axis | value | means |"
    yield "|---|---|---|"
    yield f"| fault | {len(faults_)} of them | {MEANING['fault']} |"
    for name, axis in zip(("at", "start", "groups", "user"), others, strict=True):
        for value in axis:
            yield f"| {name} | `{value}` | {MEANING[value]} |"
    yield ""
    yield "The verdict's time is from the failure until every process has ended and the verdict stands, in seconds. `found`"
    yield "is the cause that the verdicts name where the job was not being stopped."
    yield ""
    yield "| fault | what happens | cells | right | wrong | not made | verdict after, median | p95 | found |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|---|"
    for name, *row in rows(results):
        yield f"| `{name}` | {' | '.join(map(_cell, [faults.FAULTS[name].what, *row]))} |"
    yield ""
    yield "## What cannot be made"
    yield ""
    yield "| cells | because |"
    yield "|--:|---|"
    for why, count in Counter(result.why_not for result in results if result.why_not).most_common():
        yield f"| {count} | {_cell(str(why))} |"
    yield ""
    yield "## One cell again"
    yield ""
    yield "<!-- no-run: `make matrix` takes half an hour; its cells have tests of their own -->"
    yield "```console"
    yield "$ make matrix ARGS='kill/all-ready/exec/own/root -v'      # one"
    yield "$ make matrix ARGS=\"'oom*/*/exec' segfault/starting\"      # patterns; what is left out is any"
    yield "$ make matrix ARGS='--list'                               # their names"
    yield "```"
    yield ""
    yield "`make test` makes all pairs of values of the axes, a fault counted as the part of the laboratory that it belongs to;"
    yield "`make test-slow` makes every other fault once. `make test-uml` makes cells on a kernel whose memory controller is cgroup2's."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _machine() -> str:
    kernel = ".".join(platform.release().split(".")[:2])
    memory = "v1" if os.path.isdir("/sys/fs/cgroup/memory") else "v2"
    version = platform.python_version()
    load = f"load {os.getloadavg()[2]:.0f}"  # times are those of a machine as busy as this
    return f"Linux {kernel}, {os.cpu_count()} processors ({load}), memory controller {memory}, Python {version}"
