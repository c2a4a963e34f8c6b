"""Where runs are kept on disk, and their names. Choosing a folder never stops a run from starting."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankguard.errors import UsageError
from rankguard.record import Record


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


def make_run_dir(run_id: str, asked: str | None = None, parent: str | None = None) -> tuple[str | None, str | None]:
    """A new folder for a run (mode 0700; `asked` itself, or one in `parent`, or one in the first home that works).

    (None, warning) when nothing can be written: the run is then kept in memory only.
    """
    if asked is not None:
        candidates = [Path(asked)]
    else:
        candidates = [home / run_id for home in (homes() if parent is None else [Path(parent)])]
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


def run_name(folder: str | None, run_id: str) -> bool | str:
    """What `report` and `explain` find a run by: its id (True), the folder's name in a home, its path; False for none."""
    if folder is None:
        return False
    path = Path(folder)
    if path.parent in [home.absolute() for home in homes()]:
        return path.name == run_id or path.name
    return folder


class Run(Record):
    """A run on disk. `at`: when its last file was written (seconds since the epoch)."""

    id: str
    folder: Path
    at: float

    def read(self) -> dict[str, Any]:
        """Its verdict; the state of a run that is still going; empty when there is neither."""
        for name in ("verdict.json", "state.json"):
            try:
                data: dict[str, Any] = json.loads((self.folder / name).read_text())
            except (OSError, ValueError):
                continue
            return data
        return {}


def known_runs() -> list[Run]:
    """The runs in all the folders that hold some, the newest first."""
    found = {}
    for home in homes():
        try:
            folders = list(home.iterdir())
        except OSError:
            continue
        for folder in folders:
            run = _run_in(folder)
            if run is not None:
                found[run.folder] = run
    return sorted(found.values(), key=lambda run: run.at, reverse=True)


def _run_in(folder: Path) -> Run | None:
    for name in ("events.jsonl", "verdict.json"):  # a job that never began has no journal
        try:
            return Run(folder.name, folder, (folder / name).stat().st_mtime)
        except OSError:
            continue
    return None


def find_run(asked: str | None) -> Run:
    """The run that is meant: by id, by the beginning of one, by its folder; the newest for None. Raises `UsageError`."""
    if asked is not None and (run := _run_in(Path(asked))) is not None:
        return run
    runs = known_runs()
    if asked is None:
        if not runs:
            raise UsageError("there is no run yet", "rankguard run -n 2 train.py")
        return runs[0]
    matches = [run for run in runs if run.id.startswith(asked)]
    if not matches:
        raise UsageError(f"no run begins with `{asked}`", "rankguard runs")
    if len(matches) > 1 and all(run.id != asked for run in matches):
        raise UsageError(f"`{asked}` is the beginning of {len(matches)} runs", _longer(matches))
    return next((run for run in matches if run.id == asked), matches[0])


def address_of(asked: str | None) -> tuple[str, str | None]:
    """The name of the run that is meant, and where it answers; null when it keeps no socket here. Raises `UsageError`."""
    from rankguard.live import live_sockets, socket_of

    sockets = live_sockets()
    if asked is not None and asked in sockets:  # one that keeps no files is found by its id
        return asked, sockets[asked]
    try:
        run = find_run(asked)
    except UsageError:
        found = [run_id for run_id in sockets if asked is None or run_id.startswith(asked)]
        if len(found) != 1:
            raise
        return found[0], sockets[found[0]]
    return run.id, socket_of(str(run.folder))


def _longer(matches: list[Run]) -> str:
    """Two that were meant, in full."""
    return " or ".join(run.id for run in matches[:2])
