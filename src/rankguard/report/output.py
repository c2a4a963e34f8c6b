"""What the ranks print: to their files, to the console line by line with a prefix, and the last lines kept for the verdict.

Told bytes, never reads a pipe itself; never blocks on a reader and never raises into the driver.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from rankguard.model import JobSpec
from rankguard.report.lines import Lines
from rankguard.report.logfile import LogFile

STREAMS = ("stdout", "stderr")
TAIL = 20
PARTIAL_AFTER = 0.2
_TAIL_LINE = 4000
"""Twice what the verdict keeps: a line is cut once its secrets are hidden."""


class Sink(Protocol):
    """Where whole lines go; never blocks (`linux/console.py`)."""

    def write(self, data: bytes) -> None:
        """Take some bytes."""


class _Stream:
    __slots__ = ("console", "lines", "log", "open", "shown", "since")

    def __init__(self, console: Sink | None, log: LogFile | None) -> None:
        self.console, self.log = console, log
        self.lines = Lines()
        self.shown = 0
        """Bytes of the partial line that are on the console already."""
        self.open = False
        """The console's last line is the beginning of ours."""
        self.since = 0.0


class Output:
    """The output of all ranks. `consoles` are what stdout and stderr lines go to, None for nowhere.

    `few_fds`: descriptors are scarce, so files are not kept open.
    """

    def __init__(
        self, spec: JobSpec, consoles: tuple[Sink | None, Sink | None], warn: Callable[[str], None], few_fds: bool
    ) -> None:
        self._warn = warn
        self._prefixes = [prefix(spec, rank) for rank in range(spec.nprocs)]
        self._streams = [
            tuple(_Stream(consoles[which], _log(spec, rank, STREAMS[which], not few_fds)) for which in (0, 1))
            for rank in range(spec.nprocs)
        ]
        self._tails: list[deque[bytes]] = [deque(maxlen=TAIL) for _ in range(spec.nprocs)]
        self._partial: set[tuple[int, int]] = set()
        self._open: _Stream | None = None
        self._full_disk = False

    def feed(self, rank: int, which: int, data: bytes, now: float) -> None:
        """Bytes that a rank wrote to its stdout (0) or stderr (1)."""
        stream = self._streams[rank][which]
        self._log(rank, stream, data)
        lines = stream.lines.feed(data)
        for line in lines[-TAIL:]:
            self._keep(rank, line)
        if stream.console is None:
            return
        if lines:
            first = self._continued(rank, stream, lines[0])
            start = self._prefixes[rank]
            self._say(stream, first + b"".join(start + line + b"\n" for line in lines[1:]), False)
        if stream.open:
            self._show(rank, stream)
        elif len(stream.lines.partial) > stream.shown:
            stream.since = now
            self._partial.add((rank, which))
        else:
            self._partial.discard((rank, which))

    def next_partial(self) -> float | None:
        """When a partial line should be shown, if one waits."""
        since = min((self._streams[r][w].since for r, w in self._partial), default=None)
        return None if since is None else since + PARTIAL_AFTER

    def show_partial(self, now: float) -> None:
        """Show lines that have waited for their end for 200 ms (a prompt)."""
        for rank, which in list(self._partial):
            stream = self._streams[rank][which]
            if now - stream.since >= PARTIAL_AFTER - 1e-4:
                self._show(rank, stream)
                self._partial.discard((rank, which))

    def _show(self, rank: int, stream: _Stream) -> None:
        text = stream.lines.partial[stream.shown :]
        if text:
            self._say(stream, text if stream.open else self._prefixes[rank] + text, True)
            stream.shown = len(stream.lines.partial)

    def _continued(self, rank: int, stream: _Stream, line: bytes) -> bytes:
        """What is still to be shown of a line whose beginning may be on the console already."""
        shown, stream.shown = stream.shown, 0
        rest = line[shown:] + b"\n"
        return rest if stream.open else self._prefixes[rank] + rest

    def _say(self, stream: _Stream, data: bytes, leaves_open: bool) -> None:
        """Write; a line that another stream left open is ended first."""
        assert stream.console is not None
        if self._open is not None and self._open is not stream:
            self._open.open = False
            data = b"\n" + data
        stream.open = leaves_open
        self._open = stream if leaves_open else None
        stream.console.write(data)

    def _keep(self, rank: int, line: bytes) -> None:
        if line.strip():
            self._tails[rank].append(line[:_TAIL_LINE])

    def _log(self, rank: int, stream: _Stream, data: bytes) -> None:
        if stream.log is None:
            return
        stream.log.write(data)
        if stream.log.error is not None and not self._full_disk:
            self._full_disk = True
            self._warn(f"rank {rank}'s output is not all on disk: `{stream.log.path}`: {stream.log.error}")

    def ended(self, rank: int, which: int) -> None:
        """Nothing more comes on this stream."""
        stream = self._streams[rank][which]
        self._partial.discard((rank, which))
        for line in stream.lines.rest():
            self._keep(rank, line)
            if stream.console is not None:
                self._say(stream, self._continued(rank, stream, line), False)
        if stream.log is not None:
            stream.log.close()

    def tail(self, rank: int) -> tuple[str, ...]:
        """The last lines of both streams, in the order in which they came."""
        partial = [s.lines.partial[:_TAIL_LINE] for s in self._streams[rank] if s.lines.partial.strip()]
        return tuple(line.decode(errors="replace").rstrip("\r") for line in [*self._tails[rank], *partial][-TAIL:])


def prefix(spec: JobSpec, rank: int) -> bytes:
    """What stands before each line of a rank on the console: nothing when there is one rank only."""
    if spec.prefix is not None:
        return spec.prefix.replace("${rank}", str(rank)).replace("${role_name}", spec.role).encode(errors="replace")
    return b"" if spec.nprocs == 1 else f"[{rank}] ".encode()


def _log(spec: JobSpec, rank: int, stream: str, keep_open: bool) -> LogFile | None:
    if spec.run_dir is None or spec.log_max == 0:
        return None
    return LogFile(log_path(spec.run_dir, rank, 0, stream), spec.log_max, keep_open)


def log_path(run_dir: str, rank: int, attempt: int, stream: str) -> str:
    """Where a rank's stream is kept (contract: Files of a run)."""
    return f"{run_dir}/rank-{rank}/attempt-{attempt}/{stream}.log"
