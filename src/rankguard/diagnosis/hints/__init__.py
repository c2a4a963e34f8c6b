"""What to do, as data: a row for each hint, one function a row, and the words by which it is known to apply.

A row is tried when the cause is of one of its `kinds` and its `words` stand in what ended the rank (its report, the
exception of its last traceback, the end of its log). Its function gives one line, or null where the facts do not bear
it out: no hint is better than one that fits every failure. Rows may also say whose matter it is and whether to try
again, where they know better than the kind of the cause.

To add one: a function and its row in the file of its field; a test that makes it happen, and one where it must not show.
Read next: `python.py`, `machine.py`, `gpu.py`, `kinds.py`.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rankguard.case import Case, RankCase
from rankguard.circumstances import Host
from rankguard.diagnosis.evidence import said
from rankguard.model import Cause

MOST = 4


class Told(NamedTuple):
    """What a hint's function is given. `found` is the match of its row's words, in `words`."""

    case: Case
    rank: RankCase
    cause: Cause
    words: str
    found: re.Match[str] | None

    @property
    def host(self) -> Host:
        """What is known of the machine."""
        return next((each.host for each in self.case.surveys if each.host is not None), Host())

    @property
    def program(self) -> str | None:
        """What every rank executes; the journal has it only from the look round."""
        return self.host.program or (self.case.spec.argv[0] if self.case.spec.argv else None)

    @property
    def python(self) -> str | None:
        """That, where it is a Python."""
        program = self.program
        return program if program and re.match(r"python|pypy", program.rpartition("/")[2]) else None


class Row(NamedTuple):
    """One hint. `kinds` empty: any kind; `words` null: by the kind alone."""

    tell: Callable[[Told], str | None]
    words: str | None = None
    kinds: tuple[str, ...] = ()
    owner: str | None = None
    retry: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        return self.tell.__name__.strip("_").replace("_", "-")


def rows() -> tuple[Row, ...]:
    """All of them, the most useful first."""
    from rankguard.diagnosis.hints import gpu, kinds, machine, python

    return (*gpu.FIRST, *python.ROWS, *machine.ROWS, *gpu.ROWS, *kinds.ROWS)


def hints_of(case: Case, rank: RankCase, cause: Cause) -> list[str]:
    """What to do about this failure, the most useful first, each once."""
    return list(dict.fromkeys(hint for _row, hint in _applying(case, rank, cause)))[:MOST]


def row_of(case: Case, rank: RankCase, cause: Cause) -> Row | None:
    """The first row that applies and knows whose matter the failure is, or whether to try again."""
    return next((row for row, _hint in _applying(case, rank, cause) if row.owner or row.retry), None)


def _applying(case: Case, rank: RankCase, cause: Cause) -> Iterator[tuple[Row, str]]:
    words = said(rank)
    for row in rows():
        if row.kinds and cause.kind not in row.kinds:
            continue
        found = re.search(row.words, words) if row.words is not None else None
        if row.words is None or found is not None:
            hint = row.tell(Told(case, rank, cause, words, found))
            if hint:
                yield row, hint
