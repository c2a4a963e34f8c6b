"""What the ranks print: to their files, to the console line by line with a prefix, and the last lines kept for the verdict.

Told bytes, never reads a pipe itself; never blocks on a reader and never raises into the driver. The page for users is
docs/output.md. Read next: `lines.py` (bytes → lines), `lanes.py` (lines → console), `pane.py` (who shares a console),
`ranklog.py` (the files).
"""

from collections import deque
from collections.abc import Callable

from rankguard.jobspec import JobSpec
from rankguard.report.ansi import Painter
from rankguard.report.jsonlines import JsonLines
from rankguard.report.lanes import JsonLane, Lane, TextLane
from rankguard.report.lines import Lines
from rankguard.report.logfile import LogFile
from rankguard.report.nested import Nested
from rankguard.report.pane import Pane, Sink
from rankguard.report.prefix import hidden, marked, prefix
from rankguard.report.ranklog import RankLog
from rankguard.report.remarks import Remarks

__all__ = ["PARTIAL_AFTER", "STREAMS", "TAIL", "Output", "Sink", "log_path", "prefix"]

STREAMS = ("stdout", "stderr")
TAIL = 20
PARTIAL_AFTER = 0.2
_TAIL_LINE = 4000
"""Twice what the verdict keeps: a line is cut once its secrets are hidden."""
_TAIL_BYTES = 24 << 10
_FILTERED_MAX = 64 << 20
"""Of a filtered file, when the ranks' own files are switched off."""


class _Stream:
    __slots__ = ("due", "lane", "lines", "log", "nested", "rank", "which")

    def __init__(self, rank: int, which: int, log: RankLog | None) -> None:
        self.rank, self.which, self.log = rank, which, log
        self.nested = Nested()
        self.lines = Lines()
        self.lane: Lane | None = None
        self.due: float | None = None
        """When the line that waits for its end is to be shown."""


class Output:
    """The output of all ranks. `consoles` are what stdout and stderr lines go to, None for nowhere.

    `few_fds`: descriptors are scarce, so files are not kept open.
    """

    def __init__(
        self, spec: JobSpec, consoles: tuple[Sink | None, Sink | None], warn: Callable[[str], None], few_fds: bool
    ) -> None:
        self._spec, self._warn = spec, warn
        self._streams = [
            tuple(_Stream(rank, which, _log(spec, rank, STREAMS[which], not few_fds)) for which in (0, 1))
            for rank in range(spec.nprocs)
        ]
        self._panes = self._open_lanes(consoles)
        self.remarks = Remarks(spec.nprocs, engine=spec.watch is not None)
        self._tails: list[deque[bytes]] = [deque(maxlen=TAIL) for _ in range(spec.nprocs)]
        self._waiting: dict[_Stream, None] = {}
        self._filters = tuple(_filter(spec, which, not few_fds) for which in (0, 1))
        self._said_disk = self._held = False
        self.seen: Callable[[bytes], None] | None = None
        """Is told all lines, of every rank, for as long as somebody wants to know (`supervisor/readiness.py`)."""

    def _open_lanes(self, consoles: tuple[Sink | None, Sink | None]) -> list[Pane]:
        spec = self._spec
        panes: dict[int, Pane] = {}
        may_draw = spec.log_format == "text" and spec.env.get("TERM", "dumb") not in ("", "dumb")
        for which, sink in enumerate(consoles):
            if sink is None:
                continue
            tty = sink.columns() > 0
            pane = panes.setdefault(id(sink), Pane(sink, tty and may_draw))
            for rank in range(spec.nprocs):
                if hidden(spec, rank) & (1 << which):
                    continue
                stream, order = self._streams[rank][which], 2 * rank + which
                if spec.log_format == "json":
                    stream.lane = JsonLane(JsonLines(rank, spec.node, STREAMS[which], tty), pane, order)
                else:
                    painter = Painter(spec.color) if tty else None
                    stream.lane = TextLane(stream.lines, pane, prefix(spec, rank), order, painter, spec.color)
        return list(panes.values())

    def name_node(self, number: int, name: str) -> None:
        """Of a job on several machines: what one of them is called, known before its ranks print anything."""
        spec = self._spec
        assert spec.nodes is not None
        for rank in range(number * spec.nodes.nproc, (number + 1) * spec.nodes.nproc):
            for stream in self._streams[rank]:
                if isinstance(stream.lane, TextLane):
                    stream.lane.rename(prefix(spec, rank, name))
                elif isinstance(stream.lane, JsonLane):
                    stream.lane.made.rename(rank, name, STREAMS[stream.which])
            for kept in self._filters:
                if kept is not None:
                    kept.rename(rank, marked(spec, rank, name))

    # ── Told ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def feed(self, rank: int, which: int, data: bytes, now: float) -> None:
        """Bytes that a rank wrote to its stdout (0) or stderr (1)."""
        stream, other = self._streams[rank][which], self._streams[rank][1 - which]
        if other.nested.held:  # the end of a bar comes before what its rank says next
            self._flush(other, now)
        data = stream.nested.feed(data)
        if data:
            self._pass(stream, data, now)
        elif stream.due is None:
            self._wait(stream, now)

    def ended(self, rank: int, which: int, now: float = 0.0) -> None:
        """Nothing more comes on this stream."""
        stream = self._streams[rank][which]
        self._flush(stream, now)
        self._settled(stream)
        rest = stream.lines.rest()
        if rest or (stream.lane is not None and stream.lane.begun):
            self._take(stream, [rest + b"\n"], now)
        if stream.log is not None:
            stream.log.close()

    def _pass(self, stream: _Stream, data: bytes, now: float) -> None:
        if stream.log is not None:
            stream.log.write(data)
            if stream.log.file.error is not None:
                self._say_disk(stream.rank, stream.log.file)
        parts = stream.lines.feed(data)
        self._take(stream, parts, now)
        if stream.nested.held or (stream.lane is not None and stream.lane.waits(now)):
            if parts or stream.due is None:  # another line waits now
                self._wait(stream, now)
        elif stream.due is not None:
            self._settled(stream)

    def _flush(self, stream: _Stream, now: float) -> None:
        held = stream.nested.flush()
        if held:
            self._settled(stream)
            self._pass(stream, held, now)

    def _take(self, stream: _Stream, parts: list[bytes], now: float) -> None:
        rank, lane, skip = stream.rank, stream.lane, stream.lines.skip
        if lane is not None and stream.lines.again:
            lane.again()
        for part in parts:
            self._keep(rank, part)
            self.remarks.take(rank, part)
            if self.seen is not None:
                self.seen(part)
            kept = self._filters[stream.which]
            if kept is not None:
                kept.take(rank, part)
            if lane is not None:
                lane.take(part[skip:] if skip else part, now)
            skip = 0

    def _keep(self, rank: int, part: bytes) -> None:
        tail = self._tails[rank]
        if len(part) > _TAIL_BYTES:  # most of what is read at once is not even looked at
            end = part[-_TAIL_BYTES:]
            part = end if end.count(b"\n") > TAIL else part
        for line in part.removesuffix(b"\n").rsplit(b"\n", TAIL)[-TAIL:]:
            if line and not line.isspace():
                tail.append(line[:_TAIL_LINE])

    def _say_disk(self, rank: int, file: LogFile) -> None:
        if not self._said_disk:
            self._said_disk = True
            self._warn(f"rank {rank}'s output is not all on disk: `{file.path}`: {file.error}")

    # ── Put off ──────────────────────────────────────────────────────────────────────────────────────────────────

    def hold(self, held: bool, now: float) -> None:
        """The readers are behind, so nobody sees a partial line yet, and the rest of it is left in its pipe."""
        self._held = held
        for stream in self._waiting:
            stream.due = now + PARTIAL_AFTER

    def next_wake(self) -> float | None:
        """When a partial line or a progress bar should be shown, if one waits."""
        if self._held:
            return None
        due = [stream.due for stream in self._waiting if stream.due is not None]
        due += [at for at in (pane.due_at() for pane in self._panes) if at is not None]
        return min(due, default=None)

    def wake(self, now: float) -> None:
        """Show lines that have waited for their end for 200 ms (a prompt), and bars as they are now."""
        if self._held:
            return
        for stream in list(self._waiting):
            if stream.due is not None and stream.due <= now + 1e-4:
                self._settled(stream)
                if stream.nested.held:
                    self._flush(stream, now)
                elif stream.lane is not None:
                    stream.lane.show(now)
        for pane in self._panes:
            at = pane.due_at()
            if at is not None and at <= now + 1e-4:
                pane.draw(now)

    def _wait(self, stream: _Stream, now: float) -> None:
        stream.due = now + PARTIAL_AFTER
        self._waiting[stream] = None

    def _settled(self, stream: _Stream) -> None:
        stream.due = None
        self._waiting.pop(stream, None)

    # ── Asked ────────────────────────────────────────────────────────────────────────────────────────────────────

    def tail(self, rank: int) -> tuple[str, ...]:
        """The last lines of both streams, in the order in which they came."""
        partial = [s.lines.partial[:_TAIL_LINE] for s in self._streams[rank] if s.lines.partial.strip()]
        return tuple(line.decode(errors="replace").rstrip("\r") for line in [*self._tails[rank], *partial][-TAIL:])

    def log_of(self, rank: int) -> str | None:
        """Which of a rank's files there is to read, the one of stderr before the other; None when there is neither."""
        if rank == self._spec.debug_rank and self._spec.run_dir is not None and self._spec.log_max:
            return STREAMS[1]  # `unkept.py`
        made = (STREAMS[s.which] for s in reversed(self._streams[rank]) if s.log is not None and s.log.file.made)
        return next(made, None)

    def open_rank(self) -> int | None:
        """The rank whose unfinished line is the last of a console; None while there is none."""
        return next((rank for rank in (pane.open_rank() for pane in self._panes) if rank is not None), None)

    def finish(self) -> list[str]:
        """The job is over: put the files in order. What is missing on disk, as warnings."""
        files = [stream.log.file for streams in self._streams for stream in streams if stream.log is not None]
        files += [kept.file for kept in self._filters if kept is not None]
        for file in files:
            file.finish()
        lacking = [file for file in files if file.lost]
        if not lacking:
            return []
        size, lines = sum(file.lost for file in lacking), sum(file.lost_lines for file in lacking)
        first = lacking[0]
        others = f" and {len(lacking) - 1} other" + "s" * (len(lacking) > 2) if len(lacking) > 1 else ""
        return [f"{lines} lines of output ({size} bytes) are not on disk: `{first.path}`{others}: {first.error}"]


class _Filtered:
    """Lines of any rank with one of the texts, in a file of their own."""

    def __init__(self, spec: JobSpec, which: int, keep_open: bool) -> None:
        number = f".{spec.attempt}" if spec.attempt else ""
        path = f"{spec.run_dir}/filtered_{STREAMS[which]}{number}.log"
        self.file = LogFile(path, spec.log_max or _FILTERED_MAX, keep_open)
        self._texts = [text.encode(errors="surrogateescape") for text in spec.filters[which]]
        self._prefixes = [marked(spec, rank) for rank in range(spec.nprocs)]

    def rename(self, rank: int, prefix: bytes) -> None:
        """Another prefix from the next line on."""
        self._prefixes[rank] = prefix

    def take(self, rank: int, part: bytes) -> None:
        wanted = [text for text in self._texts if text in part]
        if wanted:
            start = self._prefixes[rank]
            lines = part.removesuffix(b"\n").split(b"\n")
            found = [start + line + b"\n" for line in lines if any(text in line for text in wanted)]
            self.file.write(b"".join(found))


def _filter(spec: JobSpec, which: int, keep_open: bool) -> _Filtered | None:
    return _Filtered(spec, which, keep_open) if spec.filters[which] and spec.run_dir is not None else None


def _log(spec: JobSpec, rank: int, stream: str, keep_open: bool) -> RankLog | None:
    if spec.run_dir is None or spec.log_max == 0:
        return None
    return RankLog(log_path(spec.run_dir, rank, spec.attempt, stream), spec.log_max, keep_open)


def log_path(run_dir: str, rank: int, attempt: int, stream: str) -> str:
    """Where a rank's stream is kept (contract: Files of a run)."""
    return f"{run_dir}/rank-{rank}/attempt-{attempt}/{stream}.log"
