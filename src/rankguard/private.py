"""The private folder of a live run: short-lived sockets in a place with a short path, for AF_UNIX paths end at 107 bytes
(unix(7)) and run folders may be on NFS. Its name tells whose it is. The warden removes it if the supervisor cannot.
"""

import os
from collections.abc import Iterator

PREFIX = "rg-"
CONTROL = "control"
"""The socket that other terminals ask on (`supervisor/control.py`)."""


def private_parents() -> Iterator[str]:
    """The folders in which a run makes its private one, the preferred first; sockets need short paths."""
    places = (os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp", "/dev/shm")  # noqa: S108  # mode 0700
    yield from dict.fromkeys(
        place for place in places if place is not None and place.startswith("/") and len(place) <= 60
    )


def private_folders() -> Iterator[tuple[str, str]]:
    """(run id, folder) of everything that is named as one, alive or not, ours or not."""
    for parent in private_parents():
        try:
            names = os.listdir(parent)
        except OSError:
            continue
        for name in names:
            if name.startswith(PREFIX):
                yield name.removeprefix(PREFIX), f"{parent}/{name}"
