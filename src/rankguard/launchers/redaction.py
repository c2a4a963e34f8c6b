"""A fact without secrets: what a rank says of itself ends up in every file and page.

Every text of a fact goes through, whatever its name, so that a fact that is added later leaks nothing either.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from rankguard.facts import Fact
from rankguard.record import Record

F = TypeVar("F", bound=Fact)
TAIL_LINE = 2000
"""Characters of a line that the verdict keeps."""


def redacted(fact: F, redact: Callable[[str], str]) -> F:
    """The same fact; each text in it, at any depth, has gone through `redact`."""
    told: F = _hidden(fact, redact)
    return told


def redacted_tail(lines: Iterable[str], redact: Callable[[str], str]) -> tuple[str, ...]:
    """The last lines of a rank. They go through together: a private key or a quoted text spans several."""
    text = redact("\n".join(lines))
    return tuple(line[:TAIL_LINE] for line in text.split("\n")) if text else ()


def _hidden(value: Any, redact: Callable[[str], str]) -> Any:
    if type(value) is str:
        return redact(value)
    if isinstance(value, Record):
        texts = {f: v for f in value._fields if isinstance(v := getattr(value, f), str | tuple | Record)}
        return value.replace(**{f: _hidden(v, redact) for f, v in texts.items()}) if texts else value
    return tuple(_hidden(item, redact) for item in value) if isinstance(value, tuple) else value
