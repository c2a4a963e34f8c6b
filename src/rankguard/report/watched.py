"""What the report of a watched engine has beside that of ranks: the tree as a picture, and who ended in it and was left to
the engine. Read next: `text.py` (where they stand).
"""

from collections.abc import Iterator

from rankguard.model import Process, Reported, Verdict
from rankguard.report import wording as say

_NAMED = 3
_NAME = 60


def tree(verdict: Verdict, most: int) -> Iterator[str]:
    """The tree at the failure, a line a process, at most `most`: the dead and what has a role before the others."""
    below: dict[int, list[Process]] = {}
    known = {each.pid for each in verdict.processes}
    for each in verdict.processes:
        below.setdefault(each.parent if each.parent in known else 0, []).append(each)
    shown = _chosen(verdict.processes, most)
    if not shown:
        return
    tops = [each for each in below.get(0, []) if each.pid in shown]
    for top in tops:
        yield _line(top, verdict)
        yield from _branches(top.pid, below, shown, "", verdict)
    if hidden := len(verdict.processes) - len(shown):
        yield f"and {say.plural(hidden, 'more process', 'more processes')}"


def reported(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """A labelled cell: the last that ended abnormally and were no failures."""
    if not verdict.reported:
        return
    told = [_reported(each) for each in reversed(verdict.reported)]
    yield "others", say.some(told, _NAMED, "; ")


def _chosen(processes: tuple[Process, ...], most: int) -> set[int]:
    """Those that are shown, with all that stand above them."""
    by_pid = {each.pid: each for each in processes}
    order = sorted(processes, key=lambda each: (each.ending is None, each.role is None))
    chosen: set[int] = set()
    for each in order:
        line, above = [], each.pid
        while above in by_pid and above not in chosen and above not in line:
            line.append(above)
            above = by_pid[above].parent
        if len(chosen) + len(line) <= most:
            chosen.update(line)
    return chosen


def _branches(
    pid: int, below: dict[int, list[Process]], shown: set[int], indent: str, verdict: Verdict
) -> Iterator[str]:
    here = sorted((each for each in below.get(pid, []) if each.pid in shown), key=lambda each: each.pid)
    for n, each in enumerate(here, 1):
        last = n == len(here)
        yield f"{indent}{'└' if last else '├'} {_line(each, verdict)}"
        yield from _branches(each.pid, below, shown, indent + ("  " if last else "│ "), verdict)


def _line(each: Process, verdict: Verdict) -> str:
    ending = f"  † {say.ending(each.ending)}" if each.ending is not None else ""
    culprit = verdict.culprit is not None and verdict.culprit.pid == each.pid
    if culprit and not ending and verdict.culprit is not None and verdict.culprit.ending.kind != "alive":
        ending = f"  † {say.ending(verdict.culprit.ending)}"
    return f"{each.pid} {say.printable(each.name, _NAME)}{ending}"


def _reported(each: Reported) -> str:
    why = "OOM killer" if each.cause.kind == "oom-kill" else say.ending(each.ending)
    return f"{say.printable(each.name, 40)} (pid {each.pid}, {why}, at {say.seconds(each.at_s)})"
