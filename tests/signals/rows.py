"""The table of signals: each row is a test. `docs/signals.md` shows it, and `test_page.py` holds the page to it.

    @row("SIGTERM", "a batch system", "running", "forwarded; …", "0 if all end cleanly in time, else 143")
    def test_…

A test that is more than one row, or a row that more than one test holds, is told once a test.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

Test = TypeVar("Test", bound=Callable[..., None])


class Row(NamedTuple):
    """What comes, from whom, in which state of the job; what happens, and what the exit status is."""

    signal: str
    sender: str
    state: str
    happens: str
    status: str


ROWS: dict[str, Row] = {}
"""By test: the module and the name."""


def row(signal: str, sender: str, state: str, happens: str, status: str) -> Callable[[Test], Test]:
    """This test is that row of the table."""

    def mark(test: Test) -> Test:
        ROWS[f"{test.__module__.rpartition('.')[2]}.{test.__name__}"] = Row(signal, sender, state, happens, status)
        return test

    return mark


class Status(NamedTuple):
    """An exit status: what it is called, when it is given; and the job that shows it (`does` null: no program of ours)."""

    name: str
    when: str
    does: str | None
    options: tuple[str, ...] = ()
    code: int = 0


STATUS: list[Status] = []
