"""`rankguard explain`: the story of a run, each decision with the fact that caused it. Works on the journal alone, so
also for a run that still goes on or was cut off.
"""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import TextIO

from rankguard.cli.verbs import parse
from rankguard.errors import UsageError
from rankguard.record import to_data
from rankguard.report.tale import Told, entries, raw, tale
from rankguard.report.wording import printable
from rankguard.runs.folder import JOURNAL, Run, find_run

_WIDTH, _INDENT = 80, 12


def explain(words: Sequence[str]) -> int:
    """The story of a run."""
    asked = parse("explain", words)
    if asked is None:
        return 0
    if asked.rules:
        if asked.run is not None or asked.all or asked.json:
            raise UsageError("`--rules` is of no run, and has one form", "rankguard explain --rules")
        for line in _rules():
            print(line)
        return 0
    run = find_run(asked.run)
    with _journal(run) as lines:
        told = raw(entries(lines)) if asked.all else tale(entries(lines))
        if asked.json:
            print(json.dumps([to_data(moment) for moment in told], indent=1))
            return 0
        for line in _page(run, told):
            print(line)
    return 0


def _rules() -> Iterator[str]:
    """The rules of `watch`, in the order in which they are tried."""
    from rankguard.diagnosis.roles import RULES

    yield "what a watched process is, by the first rule that fits; --rank-pattern goes before them all"
    for rule in RULES:
        ends = "may end with 0, and in no other way" if rule.may_end else "may not end while the others go on"
        yield f"\n{rule.name}: {f'rank-like, {ends}' if rule.ranklike else 'reported, and left to its engine'}"
        told = [rule.because] if rule.because else []
        told += [f"title: {rule.pattern}"] if rule.pattern else []
        told += [f"environment: {', '.join(rule.variables)}"] if rule.variables else []
        for text in told:
            yield from wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _journal(run: Run) -> TextIO:
    path = run.folder / JOURNAL
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise UsageError(f"run {run.id} has no journal: `{path}` is no file")
    except OSError as error:
        raise UsageError(f"run {run.id} has no journal: {error.strerror}", f"rankguard report {run.id}") from None
    return os.fdopen(fd, encoding="utf-8", errors="replace")


def _page(run: Run, told: Iterable[Told]) -> Iterator[str]:
    spec = run.spec()
    command = spec.get("command")
    shown = " ".join(map(str, command)) if isinstance(command, list) else "?"
    what = "an engine that was watched," if spec.get("watch") else f"{spec.get('nprocs', '?')} ranks of"
    yield printable(f"run {run.id}: {what} `{shown}`", _WIDTH)
    yield f"{'seconds':>{_INDENT - 2}}  since launch"
    for moment in told:
        at = " " * _INDENT if moment.at_s is None else f"{moment.at_s:{_INDENT - 2}.3f}  "
        yield from _folded(at, moment.what, " " * _INDENT)
        for order in moment.then:
            yield from _folded(" " * _INDENT + "→ ", order, " " * (_INDENT + 2))
    if run.ended:
        return
    ends = {True: "the run goes on", False: "the journal ends here, without a verdict", None: "the journal ends"}
    yield f"{' ' * _INDENT}({ends[run.is_live()]})"


def _folded(first: str, text: str, then: str) -> list[str]:
    return wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    ) or [first.rstrip()]
