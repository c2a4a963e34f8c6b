"""A fault of rankguard itself, told as one block: what, where the details are, how to report it. Never a traceback.

The details go to a file beside the runs, with secrets hidden; where no file can be written they are quoted instead.
"""

import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from rankguard.cli import say


def say_fault(error: BaseException, words: Sequence[str]) -> None:
    """Tell it on stderr."""
    details = "".join(traceback.format_exception(error))
    what = "".join(traceback.format_exception_only(error)).strip()
    say_bug(f"{what}{_where(error)}", details, words)


def say_bug(what: str, details: str, words: Sequence[str], folder: str | None = None) -> None:
    """As above, for one whose details are a text already; `folder` is where they are kept, if it is known."""
    text = _with_surroundings(details, words)
    what = _hiding(words)[0](what)
    kept = _keep(text, folder)
    if kept is None:
        say.error(f"a fault of rankguard: {what}", "report it with the lines below")
        quoted = "".join(f"  | {line}\n" for line in text.splitlines())
        try:
            sys.stderr.write(quoted)
        except (OSError, ValueError):
            pass
    else:
        say.error(f"a fault of rankguard: {what}", f"report it with `{kept}`, which holds the details")


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    return f" ({'/'.join(frames[-1].filename.split('/')[-2:])}:{frames[-1].lineno})"


def _with_surroundings(details: str, words: Sequence[str]) -> str:
    from rankguard._version import __version__

    hide, shown = _hiding(words)
    command, details = " ".join(shown), hide(details)
    python = f"Python {platform.python_version()}, Linux {platform.release()}"
    return f"rankguard {__version__}, {python}\nrankguard {command}\n\n{details}"


def _hiding(words: Sequence[str]) -> tuple[Callable[[str], str], list[str]]:
    """What hides secrets of our environment and of the words (those that `--redact` names, too), and the words without."""
    try:
        from itertools import pairwise

        from rankguard.report.redact import Redactor

        asked = [value for word, value in pairwise(words) if word == "--redact"]
        redactor = Redactor([*asked, *(word.partition("=")[2] for word in words if word.startswith("--redact="))])
        redactor.env(os.environ)
        return redactor.text, redactor.argv(list(words))
    except Exception:  # noqa: BLE001  # it may be what is broken
        return lambda _text: "(hidden)", ["(hidden)"]


def _keep(text: str, folder: str | None) -> str | None:
    from rankguard.runs.folder import homes

    name = f"fault-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}.txt"
    for home in [folder] if folder else homes():
        path = os.path.join(str(home), name)
        try:
            os.makedirs(str(home), mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return path
    return None
