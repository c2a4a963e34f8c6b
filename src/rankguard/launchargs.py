"""What `launch` was asked, looked at before anything is started: each function raises `UsageError` with what to write instead.

Not here: whether the arguments can travel (`launchers/function.py`). Read next: `job.py`.
"""

import math
import os
from collections.abc import Mapping, Sequence

from rankguard.errors import UsageError
from rankguard.jobspec import NodesPlan


def address(text: str) -> str:
    """`HOST:PORT`, whole."""
    from rankguard.http.listen import address as checked

    try:
        return checked(str(text))  # a port alone may be a number
    except ValueError as error:
        raise UsageError(f"http={text!r}: expected {error}") from None


def check(nprocs: int, start: str, console: str, max_restarts: int) -> None:
    """How many, and which of the words that are known."""
    if not isinstance(nprocs, int) or nprocs < 1:
        raise UsageError(f"nprocs must be at least 1, not {nprocs!r}")
    if start not in ("auto", "exec", "warm"):
        raise UsageError(f"start={start!r} is not known", "auto, exec or warm")
    if console not in ("prefix", "stderr", "none"):
        raise UsageError(f"console={console!r} is not known", "prefix, stderr or none")
    if not isinstance(max_restarts, int):
        raise UsageError(f"max_restarts must be a whole number, not {max_restarts!r}")
    if max_restarts < 0:
        raise UsageError(f"max_restarts must not be negative: {max_restarts}")


_OFF = {"restart_window": "counts over the whole run", "stall_timeout": "is no such limit"}
"""Limits that mean nothing when they are 0, and what None means."""
_NEVER_NONE = ("grace", "restart_delay")


def check_seconds(**given: float | None) -> None:
    """Durations, by the names of their arguments. What is let through can stand in the journal, which is JSON."""
    for name, seconds in given.items():
        if seconds is None and name not in _NEVER_NONE:
            continue
        if not isinstance(seconds, (int, float)) or seconds == math.inf:
            hint = None if name in _NEVER_NONE else f"{name}=None {_OFF.get(name, 'is no limit')}"
            raise UsageError(f"{name} must be a number of seconds, not {seconds!r}", hint)
        if name in _OFF and not seconds > 0:
            raise UsageError(f"{name} must be more than 0 seconds, not {seconds!r}", f"{name}=None {_OFF[name]}")
        if not seconds >= 0:
            raise UsageError(f"{name} must not be negative: {seconds}")


def limit(timeout: float | None) -> float | None:
    """How long somebody is to be waited for: None for ever. An instant that has passed is a limit, too."""
    if timeout is None or timeout == math.inf:
        return None
    if not isinstance(timeout, (int, float)) or math.isnan(timeout):
        raise UsageError(f"timeout must be a number of seconds, not {timeout!r}", "timeout=None is no limit")
    return timeout


def texts(name: str, given: Sequence[str]) -> tuple[str, ...]:
    """A list of text, by the name of its argument. A text alone would do for Python: as the list of its letters."""
    if isinstance(given, (str, bytes)) or not all(isinstance(each, str) for each in given):
        raise UsageError(f"{name} must be a list of texts", f"{name}=['…']")
    return tuple(given)


def command_words(target: object) -> list[str]:
    """A command, as a list of what can be executed."""
    if isinstance(target, (str, bytes)):
        raise UsageError("a command is a list of words, not one text", "['python', 'train.py'], or shlex.split of it")
    if not isinstance(target, Sequence):
        raise UsageError(
            f"target is a {type(target).__name__}: expected a function, or a command as a list of words",
            "['program', 'word']",
        )
    words = [str(word) for word in target]
    if not words or not words[0]:
        raise UsageError("an empty command")
    for i, word in enumerate(words):
        if not _passes(word):
            raise UsageError(f"word {i} of the command {_HOLDS}")
    return words


def check_text(**given: Mapping[str, str] | None) -> None:
    """Mappings of text to text, by the names of their arguments."""
    for name, mapping in given.items():
        if mapping is not None and not isinstance(mapping, Mapping):
            raise UsageError(f"{name} must be a mapping of text to text, not a {type(mapping).__name__}")
        for key, value in (mapping or {}).items():
            if not isinstance(key, str) or not isinstance(value, str):
                # Not the value itself: it may be a secret.
                raise UsageError(f"{name} holds {key!r} with a {type(value).__name__}: expected text", "str(…)")


def check_variables(name: str, mapping: Mapping[str, str] | None) -> None:
    """An environment: text to text, and such as the kernel can hand over."""
    check_text(**{name: mapping})
    for key, value in (mapping or {}).items():
        if not key or "=" in key or not _passes(key):
            raise UsageError(f"{name} holds {key!r}, which cannot be the name of a variable")
        if not _passes(value):
            raise UsageError(f"the value of {key!r} in {name} {_HOLDS}")


def check_path(name: str, path: str | os.PathLike[str] | None) -> None:
    """A path that a system call can take."""
    if path is None:
        return
    if not os.fspath(path):
        raise UsageError(f"{name} is empty", f"{name}='.' is the folder where we are")
    if not _passes(os.fspath(path)):
        raise UsageError(f"{name} {_HOLDS}")


_HOLDS = "holds a NUL byte, or what is no character"


def _passes(text: str) -> bool:
    """Whether it can be an argument, a variable or a path: the kernel's texts end with a NUL."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def placed(
    on: str,
    nprocs: int,
    nnodes: int | None,
    ray_address: str | None,
    resources: Mapping[str, float] | None,
    join_timeout: float,
) -> NodesPlan | None:
    """Several machines; null for this one. Raises `UsageError`."""
    if on not in ("local", "ray"):
        raise UsageError(f"on={on!r} is not known", "local or ray")
    if on == "local":
        if nnodes not in (None, 1):
            raise UsageError(
                f"nnodes={nnodes} expects on='ray'", "`rankguard run --nnodes N` on each node needs no Ray"
            )
        if ray_address is not None or resources:
            raise UsageError("ray_address and resources expect on='ray'", "on='ray'")
        return None
    count = 1 if nnodes is None else nnodes
    if not isinstance(count, int) or count < 1:
        raise UsageError(f"nnodes must be at least 1, not {nnodes!r}")
    if nprocs % count:
        raise UsageError(
            f"nprocs={nprocs} cannot be shared evenly by nnodes={count}", f"nprocs={-(-nprocs // count) * count}"
        )
    if not join_timeout > 0:
        raise UsageError(f"join_timeout must be more than 0 seconds, not {join_timeout!r}", "join_timeout=600")
    from rankguard.nodes.rayplace import address_of_this_process
    from rankguard.nodes.rayplan import INSTALL, ray_is_missing, ray_plan

    if ray_is_missing():
        raise UsageError("on='ray' expects the package `ray`, which is not installed", INSTALL)
    address = ray_address or address_of_this_process() or os.environ.get("RAY_ADDRESS")
    return ray_plan(count, nprocs // count, address, resources or {}, join_timeout=join_timeout)
