"""`read_run`: a run on disk, as an object: for programs, tests and notebooks that look at what was.

Reads files and asks nobody: a run that goes on is told as it last wrote itself down. Nothing here changes a run.

Read next: `runs/folder.py` (how a run is found), `docs/files.md` (what is in a folder), `docs/events.md` (the journal).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankguard.errors import UsageError
from rankguard.model import Verdict
from rankguard.record import Record
from rankguard.report.logtail import lines, opened
from rankguard.runs.folder import CHANGED, JOURNAL, STATE, VERDICT, find_run, json_in, run_in
from rankguard.runs.folder import Run as Found

_STREAMS = ("stderr", "stdout")
_COURSE = 16 << 20
"""Of memory.jsonl no more is read than this; it is a megabyte."""


class Run(Record):
    """A run on disk, as it was when `read_run` read it."""

    id: str
    """What `rankguard report` finds it by."""
    folder: Path | None
    """Where its files are; null when only a verdict was given."""
    state: str
    """`ended`; `live`; `cut off`: it ended without a verdict; `unknown`: no verdict, and whether it lives cannot be told."""
    verdict: Verdict
    """Of a run that has ended its own. Of a live one the state that it wrote last, with the outcome `running`. Of one that was
    cut off what its journal tells (`supervisor-lost`)."""

    def events(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """The lines of its journal (docs/events.md), oldest first; with `kinds` only the facts and orders of these names.

        A line that was cut off is passed over. None where the run has no journal. Raises `UsageError` for a journal that
        cannot be read or is of another version, at once, and `OSError` where it goes away before its first line is asked for.
        """
        if self.folder is None:
            return iter(())
        from rankguard.runs.journal import entries

        told = entries(self.folder)
        return (line for line in told if line.get("fact", line.get("order")) in kinds) if kinds else told

    def log_path(self, rank: int, stream: str = "stderr", attempt: int | None = None) -> Path | None:
        """The file with what a rank printed; None where there is none, as of a stream that has said nothing, or a link in
        its place.

        `rank`: its number.
        `stream`: `stderr` or `stdout`.
        `attempt`: which one, from 0; None for the last.

        Raises `UsageError` for a stream that is none.
        """
        found = self._open_log(rank, stream, attempt)
        if found is None:
            return None
        path, fd = found
        os.close(fd)
        return path

    def log(self, rank: int, stream: str = "stderr", attempt: int | None = None) -> str:
        """What a rank printed, as text; empty where there is no file. Of much output the first quarter and the last three
        are kept (`--log-max`, 64 MiB). Secrets are not hidden in it.

        `rank`: its number.
        `stream`: `stderr` or `stdout`.
        `attempt`: which one, from 0; None for the last.

        Raises `UsageError` for a stream that is none, and `OSError` where the file cannot be read.
        """
        found = self._open_log(rank, stream, attempt)
        if found is None:
            return ""
        with os.fdopen(found[1], "rb") as file:
            return file.read().decode(errors="replace")

    def _open_log(self, rank: int, stream: str, attempt: int | None) -> tuple[Path, int] | None:
        if stream not in _STREAMS:
            raise UsageError(f"stream={stream!r} is not known", "stderr or stdout")
        if self.folder is None:
            return None
        if attempt is None:
            attempt = max(_numbers(self.folder / f"rank-{int(rank)}", "attempt-"), default=0)
        path = f"rank-{int(rank)}/attempt-{int(attempt)}/{stream}.log"
        fd = opened(str(self.folder), path)
        return None if fd is None else (self.folder / path, fd)

    def memory(self) -> list[dict[str, Any]]:
        """The looks at the ranks' memory, oldest first, of a long run the older ones farther apart; empty where none were kept.

        Each: `at` (seconds of the journal's clock), `ranks` (rank → bytes that it held), `used_bytes` and `limit_bytes` of the
        limit with the least room, `limit_from`; null is unknown (`docs/memory.md`).
        """
        if self.folder is None:
            return []
        from rankguard.page.course import NAME, points

        return [
            {
                "at": look.at,
                "ranks": dict(look.held),
                "used_bytes": look.used,
                "limit_bytes": look.limit,
                "limit_from": look.limit_from,
            }
            for look in points(lines(f"{self.folder}/{NAME}", _COURSE))
        ]

    def html(self, path: str | os.PathLike[str]) -> Path:
        """Write the page of the run to the file `path`, as `rankguard report --html` does, with all that it needs inside; that path.

        `path`: where to.

        Raises `OSError`, and `UsageError` where there is no more than a verdict.
        """
        found = None if self.folder is None else run_in(self.folder)
        if found is None:
            raise UsageError("a page needs the files of a run", "rankguard.read_run of its folder")
        from rankguard.page.assemble import self_contained
        from rankguard.runs.page import NothingTold, page_data
        from rankguard.runs.wholefile import write_whole

        try:
            data = self_contained(page_data(found))
        except NothingTold as error:
            raise UsageError(f"{error}", f"ls -l {self.folder}") from None
        write_whole(os.fspath(path), data)
        return Path(path)

    def __repr__(self) -> str:
        from rankguard.report.notebook import in_short

        return f"<rankguard.Run {in_short(self.verdict)}{'' if self.state == 'ended' else f' ({self.state})'}>"

    def _repr_html_(self) -> str | None:
        from rankguard.report.notebook import verdict_html

        return verdict_html(self.verdict, "" if self.state == "ended" else self.state)


def read_run(path: str | os.PathLike[str] | None = None) -> Run:
    """A run on disk.

    `path`: its folder, its `verdict.json`, its id or the beginning of it, as `rankguard report` takes it; None: the newest.
    A verdict that was kept elsewhere, as a file of any name, is read alone.

    Raises `UsageError`, a `ValueError` with a hint, when there is no such run, or nothing in its files that could be told.

        run = rankguard.read_run()
        print(run.verdict.statement, run.log(rank=5))
    """
    asked = None if path is None else os.fspath(path)
    if asked is not None and os.path.isfile(asked):
        folder = Path(asked).absolute().parent
        if os.path.basename(asked) not in (VERDICT, STATE, JOURNAL) or run_in(folder) is None:
            return _alone(Path(asked))
        asked = str(folder)
    try:
        found = find_run(asked)
    except UsageError:
        if asked is not None and os.path.isdir(asked):
            raise UsageError(f"there is no run in `{asked}`", f"rankguard runs --in {asked}") from None
        raise
    live = found.is_live()
    if not found.ended and live is False:
        found = run_in(found.folder) or found  # it may have ended since it was found
    if found.ended:
        return Run(found.id, found.folder, "ended", _told(found, VERDICT))
    if live is False:
        return Run(found.id, found.folder, "cut off", _remains(found))
    return Run(found.id, found.folder, "unknown" if live is None else "live", _told(found, STATE))


def _told(found: Found, name: str) -> Verdict:
    """What the run says of itself in a file of its own."""
    data = json_in(found.folder / name)
    if data is None and name == STATE:
        data = json_in(found.folder / VERDICT)  # it has just ended
    if data is None and name == STATE:
        raise UsageError(
            f"run {found.id} has just begun, or is of another machine: it says nothing yet", "rankguard runs"
        )
    return _verdict(data, found.folder / name, f"rankguard explain {found.id}")


def _remains(found: Found) -> Verdict:
    from rankguard.runs.remains import remains

    left = remains(found.folder)
    if left is None:
        raise UsageError(
            f"run {found.id} ended without a verdict, and its journal tells nothing", f"ls -l {found.folder}"
        )
    return left.verdict


def _alone(path: Path) -> Run:
    verdict = _verdict(json_in(path), path, "a run's folder, its `verdict.json`, or what `rankguard runs` lists")
    return Run(verdict.run_id, None, "live" if verdict.outcome == "running" else "ended", verdict)


def _verdict(data: object, path: Path, hint: str) -> Verdict:
    if not isinstance(data, dict):
        raise UsageError(f"`{path}`: expected a verdict", hint)
    try:
        verdict = Verdict.from_dict(data)
        _told = str(verdict), repr(verdict)  # somebody prints it
    except CHANGED as error:
        raise UsageError(f"`{path}`: expected a verdict ({error})", hint) from None
    return verdict


def _numbers(folder: Path, prefix: str) -> list[int]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [int(name[len(prefix) :]) for name in names if name.startswith(prefix) and name[len(prefix) :].isdecimal()]
