"""What `launch` was asked, looked at before anything is started: each function raises `UsageError` with what to write instead.

Not here: whether the arguments can travel (`launchers/function.py`). Read next: `job.py`.
"""

import os
from collections.abc import Mapping

from rankguard.errors import UsageError
from rankguard.jobspec import NodesPlan


def address(text: str) -> str:
    """`HOST:PORT`, whole."""
    from rankguard.http.listen import address as checked

    try:
        return checked(text)
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
    if max_restarts < 0:
        raise UsageError(f"max_restarts must not be negative: {max_restarts}")


_OFF = {"restart_window": "counts over the whole run", "stall_timeout": "is no such limit"}
"""Limits that mean nothing when they are 0, and what None means."""


def check_seconds(**given: float | None) -> None:
    """Durations, by the names of their arguments."""
    for name, seconds in given.items():
        if seconds is None:
            continue
        if name in _OFF and not seconds > 0:
            raise UsageError(f"{name} must be more than 0 seconds, not {seconds!r}", f"{name}=None {_OFF[name]}")
        if not seconds >= 0:
            raise UsageError(f"{name} must not be negative: {seconds}")


def check_text(**given: Mapping[str, str] | None) -> None:
    """Mappings of text to text, by the names of their arguments."""
    for name, mapping in given.items():
        for key, value in (mapping or {}).items():
            if not isinstance(key, str) or not isinstance(value, str):
                # Not the value itself: it may be a secret.
                raise UsageError(f"{name} holds {key!r} with a {type(value).__name__}: expected text", "str(…)")


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
