"""What the run before this one has to tell, if it ended without a verdict: once, at the start of the next one in its place.

In a container whose memory limit ends everything at once (`memory.oom.group`) nobody of ours survives to say why; what is
on disk does. Looked for where the new run keeps its files, among runs of this machine, and only the newest; a mark in its
folder says that it has been told. Read next: `remains.py` (what is known), `../supervisor/samples.py` (who wrote it).
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rankguard.jobspec import JobSpec
from rankguard.linux.hierarchies import counter
from rankguard.runs.folder import EARLIER, TOLD, VERDICT, Run, run_in, run_name

if TYPE_CHECKING:
    from rankguard.report.state import Sampled  # no start waits for it

_NEWEST = 8
_LONG_AGO_S = 7 * 86400.0
FULL = 0.9
"""From here on memory is worth a guess."""


def previous(spec: JobSpec) -> str | None:
    """The sentence to say at the start of this run; null when there is nothing to tell."""
    if spec.run_dir is None:
        return None
    for run in _before(Path(spec.run_dir), spec.run_id):
        if not run.ended and run.is_live() is not False:
            continue
        if run.ended:
            return None  # whatever was before it, it has told
        told = run.spec()
        if told.get("node") != spec.node or time.time() - run.last_at() > _LONG_AGO_S or not _mark(run.folder):
            return None
        return _words(run)
    return None


def _before(own: Path, run_id: str) -> Iterator[Run]:
    """Runs in the same place, the newest first."""
    places = [own / EARLIER] + ([own.parent] if own.name == run_id else [])
    found: list[tuple[float, Path]] = []
    for place in places:
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            found += [
                (entry.stat(follow_symlinks=False).st_mtime, Path(entry.path))
                for entry in entries
                if entry.name != own.name and entry.is_dir(follow_symlinks=False)
            ]
    newest = sorted(found, reverse=True)[:_NEWEST]
    runs = [run for _at, folder in newest if (run := run_in(folder)) is not None]
    return iter(sorted(runs, key=lambda run: run.at, reverse=True))


def _mark(folder: Path) -> bool:
    """It is told by us alone, and once."""
    try:
        os.close(os.open(folder / TOLD, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError:
        return False
    return not (folder / VERDICT).exists()


def _words(run: Run) -> str:
    from rankguard.report.state import fullness
    from rankguard.report.wording import printable, whole_seconds
    from rankguard.runs.remains import remains

    left = remains(run.folder)
    ago = whole_seconds(max(0.0, time.time() - run.last_at()))
    name = run_name(str(run.folder), run.id)
    known = name if isinstance(name, str) else run.id
    said = [f"the previous run here, {known}, ended without a verdict {ago} ago"]
    if left is None:
        return f"{said[0]} (`rankguard report {known}`)"
    if left.rebooted_at is not None:
        said.append("this machine was started again since")
    samples = left.samples
    if samples.memory.limit_bytes and samples.share is not None:
        said.append(f"memory at {fullness(samples)}")
    risen = None if left.rebooted_at is not None else _rise(samples)
    if risen:
        said.append(f"the kernel has counted {risen} OOM kill{'s' if risen > 1 else ''} there since")
    if risen or (risen is None and (samples.share or 0) >= FULL):
        said.append("likely the OOM killer ended everything at once")
    if left.told_last is not None:
        rank, what, before = left.told_last
        said.append(f'last to report: rank {rank}, "{printable(what, 60)}", {whole_seconds(before)} before')
    first, *more = said
    return (
        f"{first}: {'; '.join(more)} (`rankguard report {known}`)" if more else f"{first} (`rankguard report {known}`)"
    )


def _rise(samples: "Sampled") -> int | None:
    """How far the counters of OOM kills have risen; null where they are gone, as with a container."""
    risen = []
    for path, before in samples.oom_kills:
        file, _, key = path.partition(" ")
        now = counter(file, key) if key else counter(file)
        risen += [max(0, now - before)] if now is not None else []
    return max(risen, default=None)
