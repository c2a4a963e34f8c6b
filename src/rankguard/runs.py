"""Where runs are kept on disk, and their names. Choosing a folder never stops a run from starting."""

import os
from collections.abc import Iterator
from pathlib import Path


def new_run_id() -> str:
    """Eight hexadecimal digits: short enough to type, unlikely enough to meet again."""
    return os.urandom(4).hex()


def homes() -> Iterator[Path]:
    """The folders that hold runs, the preferred one first."""
    if home := os.environ.get("RANKGUARD_HOME"):
        yield Path(home)
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    yield Path(state, "rankguard", "runs")
    yield Path(os.environ.get("TMPDIR") or "/tmp", f"rankguard-{os.getuid()}")  # noqa: S108  # its mode is 0700


def make_run_dir(run_id: str, asked: str | None = None) -> tuple[str | None, str | None]:
    """A new folder for a run (mode 0700) and, when it is not where it was wanted, what to tell the user.

    (None, warning) when nothing can be written: the run is then kept in memory only.
    """
    candidates = [Path(asked)] if asked is not None else [home / run_id for home in homes()]
    refused: list[str] = []
    for folder in candidates:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return str(folder.absolute()), None
            refused.append(f"`{folder}`: not writable")
        except OSError as error:
            refused.append(f"`{folder}`: {error.strerror}")
    return None, f"no files are kept of this run: {'; '.join(refused)}"
