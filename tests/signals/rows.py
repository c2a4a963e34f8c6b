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


ROWS: dict[tuple[str, str, int], Row] = {}
"""By test: its module, its name, and which of its rows, counted from below."""


def row(signal: str, sender: str, state: str, happens: str, status: str) -> Callable[[Test], Test]:
    """This test is that row of the table."""

    def mark(test: Test) -> Test:
        module = test.__module__.rpartition(".")[2]
        new = Row(signal, sender, state, happens, status)
        before = [key for key, known in ROWS.items() if key[:2] == (module, test.__name__) and known != new]
        ROWS[module, test.__name__, len(before)] = new
        return test

    return mark


class Status(NamedTuple):
    """An exit status: what it is called, when it is given; and the job that shows it (`does` null: no program of ours;
    `shell`: what is done before it starts).
    """

    name: str
    when: str
    does: str | None
    options: tuple[str, ...] = ()
    code: int = 0
    shell: str = ""


STATUS: list[Status] = []
