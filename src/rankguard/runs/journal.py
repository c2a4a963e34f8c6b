"""The lines of a run's journal as they stand on disk, for whoever reads them as data (`docs/events.md`).

Not the replay of its facts (`core/story.py`), which has to stop at a line that it does not know. Read next:
`../readrun.py`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankguard.core.story import VERSION
from rankguard.errors import UsageError
from rankguard.runs.folder import JOURNAL, opened

_LINE = 64 << 20
"""A line of ours is not longer; what is, somebody else has made."""


def entries(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of the journal in `folder`, as objects, in order; none where a run has no journal.

    What is no object is passed over: the last line of a run that was cut off, or that is being written just now; a line
    that a full disk has torn. Raises `UsageError`, before the first one is given, when the file is not a journal of the
    version that we know.
    """
    path = folder / JOURNAL
    try:
        with opened(path) as file:
            first = _object(file.readline(_LINE))
    except FileNotFoundError:
        return iter(())
    except OSError as error:
        raise UsageError(f"unable to read `{path}`: {error.strerror or error}", f"ls -l {path}") from None
    if first is None or first.get("schema") != VERSION:
        raise UsageError(f"`{path}`: expected a journal of {VERSION}", f"head -c 200 {path}")
    return _lines(path)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Opened by whoever takes the first one: an iterator that nobody uses holds no file."""
    with opened(path) as file:
        while line := file.readline(_LINE):
            if (entry := _object(line)) is not None:
                yield entry


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
