"""How the command line speaks: `error:`, `try:`, `warning:` and `note:` on stderr, colour where it is wanted.

One place for all verbs, so that they sound alike; what is said stands where it is known (`docs/style.md`). It never
raises: whoever reads stderr may be gone, its disk may be full. Not the final report (`report/text.py`).
"""

import os
import sys

_PAINT = {"error": "31;1", "try": "32;1", "or": "32;1", "warning": "33;1", "note": "1"}
_plain = False


def without_color() -> None:
    """`--no-color`: from here on there is none."""
    global _plain
    _plain = True


def in_color(fd: int) -> bool:
    """Whether what goes to this descriptor may have colour: a terminal that knows it, and nobody who said no."""
    if _plain or os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "", "dumb"):
        return False
    return os.isatty(fd)


def width(fd: int) -> int:
    """Columns for a report that goes to this descriptor: of its terminal; 100 elsewhere."""
    try:
        return max(60, os.get_terminal_size(fd).columns)
    except OSError:
        return 100


def error(statement: str, *hints: str | None) -> None:
    """What is in the way, and what to do about it."""
    _write(message("error", statement, hints))


def warning(statement: str, *hints: str | None) -> None:
    """What goes on all the same."""
    _write(message("warning", statement, hints))


def note(statement: str) -> None:
    """What one may want to know."""
    _write(message("note", statement))


def message(kind: str, statement: str, hints: tuple[str | None, ...] = (), *, color: bool | None = None) -> str:
    """The lines, with a newline behind each; in colour as stderr wants it unless told otherwise."""
    from rankguard.report.wording import printable  # what a user typed must not command the terminal

    paint = in_color(2) if color is None else color
    given = [hint for hint in hints if hint]
    labelled = [(kind, statement), *(("or" if n else "try", hint) for n, hint in enumerate(given))]
    return "".join(f"{_label(label, paint)} {printable(_without_secrets(text), 4000)}\n" for label, text in labelled)


def _without_secrets(text: str) -> str:
    """What was typed is quoted in messages, and messages end up in logs."""
    from rankguard.report.redact import Redactor

    redactor = Redactor()
    redactor.env(os.environ)
    return redactor.text(text)


def _label(label: str, paint: bool) -> str:
    text = f"{label}:"
    room = " " * (6 - len(text))
    return f"\x1b[{_PAINT[label]}m{text}\x1b[0m{room}" if paint else text + room


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # closed, gone or full: there is nobody left to tell
        pass
