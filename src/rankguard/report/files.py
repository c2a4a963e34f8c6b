"""The files of a run: journal, state, verdict. Written by the supervisor alone, for its user alone (mode 0700).

A disk that is full or a folder that is gone costs the file, never the job; `error` says what was lost, once.
"""

import contextlib
import json
import os
from collections.abc import Callable

from rankguard.model import Verdict
from rankguard.report.ballast import Ballast


class RunFiles:
    """What one run leaves on disk; nothing when there is no folder, or another run's files are in it.

    `hold` locks the journal as long as we live (`linux/lock.py`): that tells a live run from one that was cut off.
    """

    def __init__(self, folder: str | None, hold: Callable[[int], bool] = lambda _fd: True) -> None:
        self.error: str | None = None
        self.folder = folder
        self.readers: list[Callable[[str], None]] = []
        """Told what the journal is told, also where there is none, once it has it."""
        self.whole = True
        """No line of the journal was lost."""
        self._journal = -1
        self._ballast: Ballast | None = None
        if folder is None:
            return
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._journal = os.open(f"{folder}/events.jsonl", flags, 0o600)
        except OSError as error:
            self._failed(f"{folder}", error)
            return
        if not hold(self._journal) or os.fstat(self._journal).st_size > 0:
            os.close(self._journal)
            self._journal, self.folder = -1, None
            self.error = f"no files are kept of this run: `{folder}` holds another one"
            return
        self._ballast = Ballast(folder)

    def append(self, text: str) -> None:
        """Add lines to the journal. The kernel has them when this returns, so our own death loses none."""
        data = text.encode(errors="replace") if self._journal >= 0 else b""
        try:
            while data:
                data = data[os.write(self._journal, data) :]
        except OSError as error:
            self.whole = False
            self._failed("events.jsonl", error)
        for read in tuple(self.readers):  # one may leave
            read(text)

    def state(self, now: Verdict) -> None:
        """`state.json`: the verdict's shape while the run lives, with the outcome `running`."""
        self.replace("state.json", _text(now.replace(outcome="running")))

    def finish(self, final: Verdict) -> None:
        """`verdict.json`, complete or not there at all."""
        if self._ballast is not None:
            self._ballast.drop()
        self.replace("verdict.json", _text(final))
        if self.folder is not None:
            for name in ("state.json", "samples.json", "samples.json.new", "control"):
                with contextlib.suppress(OSError):
                    os.unlink(f"{self.folder}/{name}")

    def save(self, name: str, text: str) -> bool:
        """Another file of the run; whether it is there now."""
        if self.folder is None:
            return False
        try:
            fd = os.open(
                f"{self.folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            with os.fdopen(fd, "w", errors="replace") as file:
                file.write(text)
        except OSError as error:
            self._failed(name, error)
            return False
        return True

    def link(self, name: str, target: str) -> None:
        """A link in the run's folder (to a socket, whose path must be short)."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                os.unlink(f"{self.folder}/{name}")
            with contextlib.suppress(OSError):
                os.symlink(target, f"{self.folder}/{name}")

    def replace(self, name: str, text: str) -> None:
        """Another file of the run, complete or as it was before: by rename."""
        if self.folder is None:
            return
        path = f"{self.folder}/{name}"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}.new")
            fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(text)
            os.rename(f"{path}.new", path)
        except OSError as error:
            self._failed(name, error)

    def lacks(self, name: str, error: OSError) -> None:
        """A file that somebody else writes is not complete."""
        self._failed(name, error)

    def _failed(self, name: str, error: OSError) -> None:
        self.error = self.error or f"the run's files are not complete: `{name}`: {error.strerror}"


def _text(verdict: Verdict) -> str:
    """A line for each field, and for each entry of a list: as easy to read as what `json` lays out, which it does in
    Python (27 ms for 1,000 ranks, against 4).
    """
    return "{\n" + ",\n".join(f" {json.dumps(field)}: {_value(v)}" for field, v in verdict.to_dict().items()) + "\n}\n"


def _value(value: object) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]"
