"""Files of PyTorch's flight recorder: the last collectives of each process group of one rank, as one line of JSON a file.

A program of its own (`python -I -S flightrecorder.py SINCE RANK=PATH …`), since such a file may hold megabytes, and is a
pickle that the job has written: only builtin containers come out of it, whatever else it asks for is refused, and memory
and time are bounded. Read next: `../supervisor/records.py` (who starts it), `../collective.py` (what becomes of it).

Sources: torch/csrc/distributed/c10d/FlightRecorder.cpp and FlightRecorderDetail.hpp (2.3 to 2.13),
torch/distributed/flight_recorder/components.
"""

import contextlib
import json
import os
import pickle
import resource
import stat
import sys
from typing import Any

MOST_BYTES, MOST_MEMORY, MOST_CPU_S = 64 << 20, 1 << 30, 5
GROUPS, ENTRIES, TEXT = 16, 8, 200
_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python3", "<frozen ", "/rankguard/inside/")


class Unpickler(pickle.Unpickler):
    """Containers, texts and numbers only."""

    def find_class(self, module: str, name: str) -> Any:
        """What torch's C++ pickler wraps lists in is taken as it is; anything else raises `UnpicklingError`."""
        if module == "torch.jit._pickle" and name in ("restore_type_tag", "build_intlist", "build_doublelist"):
            return _first
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a flight record")

    def persistent_load(self, pid: Any) -> Any:
        """There is nothing beside the file."""
        raise pickle.UnpicklingError("a flight record has no parts elsewhere")


def _first(value: Any, *_type: Any) -> Any:
    return value


def read(path: str, since: float) -> list[list[Any]]:
    """`[group, enqueued, completed, [[number, operation, state, where], …]]` for each group of the file at `path`.

    Raises `OSError` where it cannot be read, is none of ours or older than `since` (wall clock), and `ValueError`,
    `UnpicklingError` and others where it is no flight record.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (os.getuid(), 0) or found.st_mtime < since:
            raise OSError("no record of this run")
        if found.st_size > MOST_BYTES:
            raise OSError("too long")
        first = file.peek(1)[:1]
        told = json.load(file) if first == b"{" else Unpickler(file).load()
    if not isinstance(told, dict):
        raise TypeError("no flight record")
    status = told.get("pg_status") or {}
    groups: dict[str, list[list[Any]]] = {}
    for entry in told.get("entries") or ():
        if not entry.get("is_p2p"):
            name = str(entry["process_group"][0])[:TEXT]
            operation = str(entry["profiling_name"]).rpartition(":")[2][:TEXT]
            known = groups.setdefault(name, [])
            known.append([int(entry["collective_seq_id"]), operation, _text(entry.get("state")), entry])
            del known[:-ENTRIES]
    names = list(dict.fromkeys([*groups, *(str(name)[:TEXT] for name in status)]))[-GROUPS:]
    return [[name, *_numbers(status.get(name)), [_told(entry) for entry in groups.get(name, ())]] for name in names]


def _told(entry: list[Any]) -> list[Any]:
    return [*entry[:3], _where(entry[3].get("frames"))]


def _where(frames: Any) -> str | None:
    """The program's innermost line: `train.py:40 step`."""
    for frame in frames if isinstance(frames, list) else ():
        if isinstance(frame, dict) and not any(mark in str(frame.get("filename")) for mark in _LIBRARIES):
            file = str(frame.get("filename")).rpartition("/")[2]
            return f"{file}:{frame.get('line')} {frame.get('name')}"[:TEXT]
    return None


def _numbers(status: Any) -> list[int | None]:
    keys = ("last_enqueued_collective", "last_completed_collective")
    return [value if isinstance(value := (status or {}).get(key), int) and value >= 0 else None for key in keys]


def _text(value: Any) -> str | None:
    return str(value)[:TEXT] if value is not None else None


def main(since: str, *wanted: str) -> None:
    """One line for each file that could be read."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for each in wanted:
        rank, _, path = each.partition("=")
        with contextlib.suppress(Exception):  # it is the job's file: whatever it holds
            line = json.dumps({"rank": int(rank), "groups": read(path, float(since))})
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
