"""The command line: one file a verb, one table of verbs (`verbs.py`). `main` finds the verb, and says in one voice what
no verb has said itself: usage, a reader that is gone, a full disk, Ctrl-C, a fault of ours. None ends with a traceback.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Sequence

COULD_NOT, USAGE, BUG, INTERRUPTED, READER_GONE = 1, 2, 125, 130, 141
_JOBS = (["run"], ["watch"])
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    closed = _open_standard_streams()
    if argv is None:
        _begin(words)
    try:
        status = _guarded(words, closed)
    finally:
        _let_go_of_stderr()
    if argv is None and words[:1] in (["agent"], *_JOBS):
        _leave(status)
    return status


def _begin(words: Sequence[str]) -> None:
    """A job's processes load their modules while we load ours. (Whoever gives us words may live on: not for him.)"""
    job = words[:1] == ["agent"] or (words[:1] in _JOBS and words[1:] and words[1] not in ("-h", "--help"))
    if job and sys.platform == "linux":
        from rankguard import outset

        outset.begin()


def _guarded(words: Sequence[str], closed: frozenset[int]) -> int:
    from rankguard.cli import say
    from rankguard.errors import SpawnFailed, UsageError

    try:
        status = _obey(words, closed)
        sys.stdout.flush()
    except UsageError as error:
        say.error(error.statement, error.hint)
        status = USAGE
    except SpawnFailed as error:
        say.error(error.statement, error.hint)
        status = error.exit_code
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        status = READER_GONE
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is told as one block
        if isinstance(error, OSError) and error.errno in _WRITE_ERRORS and error.filename is None:
            say.error(f"unable to write to stdout: {error.strerror}")
            status = COULD_NOT
        else:
            from rankguard.cli.fault import say_fault

            say_fault(error, words)
            status = BUG
    else:
        return status
    _let_go_of_stdout()
    return status


def _obey(words: Sequence[str], closed: frozenset[int]) -> int:
    """Find the verb and let it work. Raises `UsageError` for a word that is none."""
    from rankguard.cli import say
    from rankguard.cli.verbs import HIDDEN, VERBS

    left = list(words)
    while left and left[0] == "--no-color":
        say.without_color()
        del left[0]
    verb, rest = (left[0], left[1:]) if left else ("--help", [])
    if 1 in closed and verb not in ("run", "watch"):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if verb in ("-h", "--help"):
        verb, rest = "help", rest[:1]
    if verb in ("-V", "--version"):
        from rankguard._version import __version__

        print(f"rankguard {__version__}")
        return 0
    if verb not in VERBS and verb not in HIDDEN:
        raise _no_such_verb(verb, rest)
    if sys.platform != "linux" and verb not in ("help", "completion"):
        from rankguard.errors import UsageError

        raise UsageError(f"`rankguard {verb}` works on Linux only", "`rankguard.wait_ready` and `guard` work here")
    return _function(verb)(rest)


def _function(verb: str) -> Callable[[Sequence[str]], int]:
    from importlib import import_module

    from rankguard.cli.verbs import HIDDEN, VERBS

    row = VERBS.get(verb) or HIDDEN[verb]
    function: Callable[[Sequence[str]], int] = getattr(import_module(row.module), row.function)
    return function


def _no_such_verb(word: str, rest: Sequence[str]) -> Exception:
    from difflib import get_close_matches
    from shlex import join

    from rankguard.cli.verbs import VERBS
    from rankguard.errors import UsageError

    near = get_close_matches(word, VERBS, 2)
    hint = " or ".join(f"rankguard {verb}" for verb in near) or "rankguard --help"
    if word.startswith("-"):
        hint = f"rankguard run {join([word, *rest])}" if rest else hint
        return UsageError(f"there is no option `{word}` before the verb", hint)
    if not near and (word.endswith(".py") or "/" in word):
        hint = f"rankguard run {join([word, *rest])}"
    return UsageError(f"there is no verb `{word}`", hint)


# ── Standard streams ─────────────────────────────────────────────────────────────────────────────────────────────


def _open_standard_streams() -> frozenset[int]:
    """A closed stdin, stdout or stderr becomes /dev/null: our own sockets must not land on its number.

    Python has none then, and would print to stdout what is meant for stderr. → those that were closed
    """
    closed = set()
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, that is, this one
            closed.add(fd)
    for fd, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(fd, "w", encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115  # as long as we live
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that this locale cannot show is no reason to stop
    return frozenset(closed)


def _leave(status: int) -> None:
    """End now: all is written, and taking the interpreter apart costs 10 ms in which whoever waits for us waits.

    Not where somebody wants to be called at the end of an interpreter (coverage, a profiler) or has threads in it.
    """
    if sys.gettrace() is None and sys.getprofile() is None and "threading" not in sys.modules:
        os._exit(status)


def _let_go_of_stdout() -> None:
    """Nobody takes what is left in the buffer: the interpreter's own last flush would only fail and say so."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def _let_go_of_stderr() -> None:
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
