"""Where runs are kept on disk, their names, and which of them live. Choosing a folder never stops a run from starting.

A folder never mixes two runs: one that holds an earlier run gives it a folder of its own (`earlier/<id>`), one that a
live run or somebody else uses is left alone. Read next: `report/files.py` (what is in a folder), `cli/runs.py`.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rankguard.errors import RankguardBug, UsageError
from rankguard.linux.lock import is_held
from rankguard.record import Record

EARLIER = "earlier"
TOLD = "told"
"""A mark: that this run ended without a verdict has been told at the start of the next one."""
JOURNAL, VERDICT, STATE = "events.jsonl", "verdict.json", "state.json"
OURS = re.compile(
    r"(verdict|state)\.json(\.new)?|samples\.json(\.new)?|memory\.jsonl(\.new)?|tails\.json(\.new)?|told|events\.jsonl|control|rank-\d{1,9}|node-0|stacks-\d{1,9}\.txt|filtered_std(out|err)(\.\d{1,9})?\.log|fault\.txt"
)
"""Every name that a run makes in its folder. `node-0` is a run's, too: of this machine's agent, on several machines."""
_MOST = 64 << 20
"""A file of ours is not larger; what is, somebody else has made."""
CHANGED = (
    RankguardBug, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, RecursionError,
    StopIteration,
)  # fmt: skip
"""What may be raised of a file that is not as the run left it: a text where a number was, a rank that there was not."""


def new_run_id() -> str:
    """Eight hexadecimal digits: short enough to type, unlikely enough to meet again."""
    return os.urandom(4).hex()


# ── A folder for a new run ───────────────────────────────────────────────────────────────────────────────────────


def homes() -> Iterator[Path]:
    """The folders that hold runs, the preferred one first."""
    if home := os.environ.get("RANKGUARD_HOME"):
        yield Path(home)
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    yield Path(state, "rankguard", "runs")
    if _may_be_ours(shared := _among_others()):
        yield shared


def _among_others() -> Path:
    """The home in a place where everybody can make files: ours alone, or not used."""
    return Path(os.environ.get("TMPDIR") or "/tmp", f"rankguard-{os.getuid()}")  # noqa: S108


def _may_be_ours(folder: Path) -> bool:
    """Not there yet, or nobody else's: whoever has made it beforehand could take our files away and put others there."""
    try:
        status = os.lstat(folder)
    except OSError:
        return True  # whoever makes it finds out
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


def make_run_dir(run_id: str, asked: str | None = None, parent: str | None = None) -> tuple[str | None, str | None]:
    """A new folder for a run (mode 0700; `asked` itself, or one in `parent`, or one in the first home that works).

    With a warning when it is not quite the one that was asked for; (None, warning) when nothing can be written: the run
    is then kept in memory only.
    """
    said: list[str] = []
    if asked is not None:
        candidates = [Path(asked)]
        if (why := _not_alone(asked)) is not None:
            candidates = [Path(asked, run_id)]
            said.append(f"`{asked}` {why}: the files of this run are in `{candidates[0]}`")
    else:
        candidates = [home / run_id for home in (homes() if parent is None else [Path(parent)])]
    refused: list[str] = []
    for folder in candidates:
        try:
            if asked is None and parent is None:
                folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.parent == _among_others() and not _may_be_ours(folder.parent):
                refused.append(f"`{folder.parent}`: others can write to it")  # it has come to be meanwhile
            elif os.access(folder, os.W_OK | os.X_OK):
                return str(folder.absolute()), "; ".join(said) or None
            else:
                refused.append(f"`{folder}`: not writable")
        except OSError as error:
            refused.append(f"`{folder}`: {error.strerror}")
    return None, f"no files are kept of this run: {'; '.join(refused)}"


def _not_alone(asked: str) -> str | None:
    """Why a run cannot have this folder for itself, after an earlier run there has been given a place of its own."""
    try:
        status = os.stat(asked)
    except OSError:
        return None  # it is made, or the attempt says why not
    if status.st_mode & stat.S_IWOTH or (status.st_uid != os.getuid() and os.getuid() != 0):
        return "can be written by others" if status.st_mode & stat.S_IWOTH else "belongs to another user"
    if not any(os.path.lexists(f"{asked}/{name}") for name in (JOURNAL, VERDICT)):
        return None
    if is_held(f"{asked}/{JOURNAL}"):
        return "is in use by a live run"
    try:
        _move_away(asked)
    except OSError as error:
        return f"holds an earlier run that cannot be moved ({error.strerror})"
    return None


def _move_away(folder: str) -> None:
    """What an earlier run has left becomes `earlier/<its id>`; everything else in the folder stays."""
    place = f"{folder}/{EARLIER}/{_id_in(Path(folder)) or 'unknown'}"
    free = next(name for n in range(1, 10_000) if not os.path.lexists(name := place if n == 1 else f"{place}-{n}"))
    os.makedirs(free, mode=0o700)
    # The journal goes last: what is interrupted here is met again by the next run.
    names = sorted((name for name in os.listdir(folder) if OURS.fullmatch(name)), key=lambda name: name == JOURNAL)
    for name in names:
        os.rename(f"{folder}/{name}", f"{free}/{name}")


# ── Runs that there are ──────────────────────────────────────────────────────────────────────────────────────────


class Run(Record):
    """A run on disk. `at`: when its journal was written last (seconds since the epoch). `ended`: it has a verdict."""

    id: str
    folder: Path
    at: float
    ended: bool = True

    def read(self) -> dict[str, Any]:
        """Its verdict; the state of a run that is still going; empty when there is neither, or it is not ours."""
        for name in (VERDICT, STATE):
            data = json_in(self.folder / name)
            if isinstance(data, dict) and isinstance(data.get("schema"), str) and isinstance(data.get("outcome"), str):
                return data
        return {}

    def spec(self) -> dict[str, Any]:
        """What was asked for, from the journal's first line; empty when that cannot be read."""
        told = json_in(self.folder / JOURNAL, first_line=True)
        spec = told.get("spec") if isinstance(told, dict) else None
        return spec if isinstance(spec, dict) else {}

    def last_at(self) -> float:
        """When its supervisor wrote anything last: a fact, or a look at the ranks."""
        try:
            return max(self.at, os.lstat(self.folder / "samples.json").st_mtime)
        except OSError:
            return self.at

    def is_live(self) -> bool | None:
        """Whether it still goes on, here or elsewhere; None when that cannot be told."""
        return False if self.ended else is_held(str(self.folder / JOURNAL))


def known_runs(parent: str | None = None) -> list[Run]:
    """The runs in `parent`, or in all the folders that hold some, the newest first. Reads none of their files."""
    found = {}
    for home in homes() if parent is None else [Path(parent)]:
        try:
            entries = list(os.scandir(home))
        except OSError:
            continue
        for entry in entries:
            run = run_in(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else None
            if run is not None:
                found[run.folder] = run
    return sorted(found.values(), key=lambda run: run.at, reverse=True)


def run_in(folder: Path) -> Run | None:
    """The run whose files are in a folder."""
    times: list[float | None] = []
    for name in (JOURNAL, VERDICT):  # a job that never began has no journal
        try:
            times.append(os.stat(folder / name).st_mtime)
        except OSError:
            times.append(None)
    journal, verdict = times
    at = verdict if journal is None else journal
    return None if at is None else Run(folder.name, folder, at, verdict is not None)


def find_run(asked: str | None) -> Run:
    """The run that is meant: by id, by the beginning of one, by its folder; the newest for None. Raises `UsageError`."""
    if asked is not None and (run := run_in(Path(asked))) is not None:
        return run
    runs = known_runs()
    if asked is None:
        if not runs:
            raise UsageError("there is no run yet", "rankguard run -n 2 train.py")
        return runs[0]
    matches = [run for run in runs if run.id.startswith(asked)]
    if not matches and asked:  # the last line of a drill tells the run's own id, its folder has another name
        matches = [run for run in runs if (_id_in(run.folder) or "").startswith(asked)]
    if not matches:
        raise UsageError(f"no run begins with `{asked}`", "rankguard runs")
    if len(matches) > 1 and all(run.id != asked for run in matches):
        raise UsageError(f"`{asked}` is the beginning of {len(matches)} runs", _longer(matches))
    return next((run for run in matches if run.id == asked), matches[0])


def run_name(folder: str | None, run_id: str) -> bool | str:
    """What `report` and `explain` find a run by: its id (True), the folder's name in a home, its path.

    False when nothing is kept of it: no folder, or one that is gone or holds another run.
    """
    if folder is None or _id_in(Path(folder)) != run_id:
        return False
    path = Path(folder)
    if path.parent in [home.absolute() for home in homes()]:
        return path.name == run_id or path.name
    return folder


def address_of(asked: str | None) -> tuple[str, str | None]:
    """The name of the run that is meant, and where it answers; null when it keeps no socket here. Raises `UsageError`."""
    from rankguard.runs.live import live_sockets, socket_of

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


def _id_in(folder: Path) -> str | None:
    """The id of the run whose files these are: the journal says it first, then the verdict."""
    told = json_in(folder / JOURNAL, first_line=True)
    found = told["spec"].get("run_id") if isinstance(told, dict) and isinstance(told.get("spec"), dict) else None
    if found is None:
        told = json_in(folder / VERDICT)
        found = told.get("run_id") if isinstance(told, dict) else None
    return found if isinstance(found, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", found) else None


def opened(path: Path) -> BinaryIO:
    """A file of a run, for reading. Raises `OSError` for one that is missing, a link, or no regular file: a FIFO would be
    waited for.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    file = os.fdopen(fd, "rb")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


def json_in(path: Path, *, first_line: bool = False) -> Any:
    """What a file holds; None for one that is missing, cut off, too large, or no file at all."""
    try:
        with opened(path) as file:
            return json.loads(file.readline(_MOST) if first_line else file.read(_MOST))
    except (OSError, ValueError, RecursionError):
        return None
