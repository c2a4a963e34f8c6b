"""`rankguard watch` with one fault in its supervisor: `faulty.py WHERE CALL FOLDER WORDS…` (the words of `rankguard`).

From its CALL-th call on (the first is 1) the function at WHERE raises `Injected`; FOLDER/met is written when it first does.
WHERE is `package.module:Class.method`, or `cell:NAME` for a cell of the core's table. Product code knows nothing of this:
the front is made to start this file as its warden, and the supervisor is patched when it has been forked.
"""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = os.path.abspath(__file__)
PACKAGE = str(Path(HERE).parents[2] / "src")
FAULT = "FAULT_OF_A_TEST"


class Injected(Exception):
    """Raised on purpose."""


def raising(call: Callable[..., Any], where: str, number: int, folder: str) -> Callable[..., Any]:
    """The same function, until its time has come."""
    count = 0

    def faulty(*args: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count >= number:
            Path(folder, "met").touch()
            raise Injected(f"in {where}")
        return call(*args, **named)

    faulty.__qualname__ = call.__qualname__
    return faulty


def patch(where: str, number: int, folder: str) -> None:
    """Put the fault in its place."""
    module, _, path = where.partition(":")
    if module == "cell":
        from rankguard.core import machine

        for table in (machine.RANK_TABLE, machine.JOB_TABLE):
            for row in table.values():
                for phase, cell in row.items():
                    if callable(cell) and name_of(cell) == path:
                        row[phase] = raising(cell, where, number, folder)
        return
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for each in classes:
        owner = getattr(owner, each)
    found = owner.__dict__[name]
    if isinstance(found, (classmethod, staticmethod)):
        setattr(owner, name, type(found)(raising(found.__func__, where, number, folder)))
    else:
        setattr(owner, name, raising(found, where, number, folder))


def name_of(cell: Callable[..., Any]) -> str:
    """`jobs.started`."""
    return f"{cell.__module__.rpartition('.')[2]}.{cell.__name__}"


def as_warden() -> None:
    """The warden, whose supervisor has the fault."""
    where, number, folder = os.environ[FAULT].split(" ", 2)
    sys.path.append(PACKAGE)
    warden = importlib.import_module("rankguard.warden")
    supervise = warden._supervise

    def faulty(*args: Any) -> None:
        patch(where, int(number), folder)
        supervise(*args)

    warden._supervise = faulty
    warden.main()


def as_front() -> int:
    """The front, which starts this file as its warden."""
    where, number, folder, *words = sys.argv[1:]
    os.environ[FAULT] = f"{where} {number} {folder}"
    sys.path.insert(0, PACKAGE)
    outset: Any = importlib.import_module("rankguard.outset")
    spawn = outset.posix_spawn

    def start(path: str, command: list[str], *args: Any, **named: Any) -> int:
        return int(spawn(path, [HERE if word.endswith("/warden.py") else word for word in command], *args, **named))

    outset.posix_spawn = start
    sys.argv = ["rankguard", *words]
    return int(importlib.import_module("rankguard.cli").main())


if __name__ == "__main__":
    if FAULT in os.environ:
        as_warden()
    else:
        sys.exit(as_front())
