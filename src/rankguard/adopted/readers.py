"""The messages that processes owe at their start: one from each reader, taken without ever waiting for a single one.

`readers[i]` is taken to belong to `processes[i]`; readers beyond the last process to the last one. A pipe that ends while
its process lives is given a moment: its exit, which says more, is usually on the way.

A message may have to fetch what it stands for from its sender (a shared tensor's file descriptor, a lock), by a
connection that nobody bounds: such a message is unpickled in a thread of its own and given `FETCH` seconds.

Read next: `linux/frames.py`, `watch.py`.
"""

import os
import threading
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

from rankguard.adopted.course import clock
from rankguard.adopted.process import Adopted, have_pidfds
from rankguard.adopted.watch import Watch
from rankguard.errors import UsageError
from rankguard.facts import FailureReported, ProtocolBroken, Ready
from rankguard.linux.frames import BadFrame, FrameReader
from rankguard.linux.glance import glance
from rankguard.model import Report

MOMENT = 0.1
"""Seconds from the end of a pipe to calling it a broken protocol."""

DYING = 2.0
"""Seconds for one that is seen dying by then to be dead."""

FETCH = 10.0
"""Seconds for a message that connects back to its sender."""

_FETCHES = (b"resource_sharer", b"torch.multiprocessing", b"_DupFd", b"rebuild_connection", b"rebuild_socket")
_TEXT = 2000


class Readers:
    """All readers of one `wait_ready`. `payloads` has them in order once `missing` is 0."""

    def __init__(
        self, watch: Watch, processes: Sequence[Adopted], readers: Sequence[Any], is_ready: Callable[[Any], bool] | None
    ) -> None:
        self._watch, self._is_ready = watch, is_ready
        self._readers = [_Reader(self, each, processes[min(i, len(processes) - 1)]) for i, each in enumerate(readers)]
        if len({each.fd for each in self._readers}) < len(self._readers):
            raise UsageError("the same reader twice")
        self.missing = len(self._readers)
        watch.before_endings = self._drain
        for each, reader in zip(self._readers, readers, strict=True):
            try:
                watch.listen(each.fd, each.on_news)
            except PermissionError:  # epoll(7) of a file on disk
                raise UsageError(
                    f"{reader!r} cannot be waited for", "the receiving end of multiprocessing.Pipe"
                ) from None
        watch.owes_nothing(range(len(self._readers), len(processes)))

    @property
    def payloads(self) -> list[Any]:
        """In the order of the readers."""
        return [each.payload for each in self._readers]

    def close(self) -> None:
        """Leave the pipes to their owner."""
        self._watch.before_endings = None
        for each in self._readers:
            each.close()

    def _drain(self, ended: Sequence[Adopted]) -> None:
        """What the dead have sent came before their end."""
        for each in self._readers:
            if each.process in ended:
                each.on_news(clock())

    def broken(self, reader: "_Reader", statement: str) -> None:
        """The channel is of no use any more."""
        self._watch.deafen(reader.fd)
        self._watch.tell(ProtocolBroken(clock(), reader.process.rank, statement))

    def delivered(self, reader: "_Reader", payload: Any) -> None:
        """A whole message: is it the one that was hoped for?"""
        rank = reader.process.rank
        reader.payload = payload
        if self._is_ready is not None and not self._asked(payload, rank):
            text = _text(payload)
            from rankguard.diagnosis.peers import peer_death

            report = Report(how="failed", text=text)
            self._watch.tell(FailureReported(clock(), rank, report, peer_death(text)))
            return
        self.missing -= 1
        if all(each.done for each in self._readers if each.process is reader.process):
            self._watch.tell(Ready(clock(), rank, reader.frame.received))

    def _asked(self, payload: Any, rank: int) -> bool:
        try:
            return bool(self._is_ready(payload))  # type: ignore[misc]  # the caller has looked
        except Exception as error:
            error.add_note(f"raised by is_ready for the message of process {rank}: {_text(payload)}")
            raise

    def later(self, seconds: float, call: Callable[[float], None]) -> None:
        """As `Watch.later`."""
        self._watch.later(seconds, call)

    def listen(self, fd: int, on_news: Callable[[float], None]) -> None:
        """As `Watch.listen`."""
        self._watch.listen(fd, on_news)

    def deafen(self, fd: int) -> None:
        """As `Watch.deafen`."""
        self._watch.deafen(fd)


class _Reader:
    def __init__(self, all_of_them: Readers, connection: Any, process: Adopted) -> None:
        if not hasattr(connection, "fileno") or not getattr(connection, "readable", True):
            raise UsageError(f"{connection!r} cannot be read", "the receiving end of multiprocessing.Pipe")
        try:
            self.fd: int = connection.fileno()
        except (OSError, ValueError) as error:
            raise UsageError(f"{connection!r} is closed") from error
        self.process, self.payload, self.done = process, None, False
        self.frame = FrameReader(self.fd)
        self._all, self._over = all_of_them, False
        self._fetch: _Fetch | None = None

    def on_news(self, _now: float) -> None:
        if self._over:
            return
        try:
            if not self.frame.take():
                return
        except (EOFError, BadFrame, OSError) as error:
            self._end(str(error) if isinstance(error, EOFError | BadFrame) else f"its pipe cannot be read: {error}")
            return
        self._over = True
        self._all.deafen(self.fd)
        message = self.frame.message or bytearray()
        if any(mark in message for mark in _FETCHES):
            self._fetch = _Fetch(message)
            self._all.listen(self._fetch.fd, lambda _now: self._fetched())
            self._all.later(FETCH, lambda _now: self._fetched())
            return
        self._judge(*_unpickled(message))

    def _fetched(self) -> None:
        fetch, self._fetch = self._fetch, None
        if fetch is None:
            return
        self._all.deafen(fetch.fd)
        self._judge(*fetch.result())

    def _judge(self, payload: Any, error: BaseException | None) -> None:
        if error is not None:
            statement = _hidden(f"its message cannot be unpickled: {type(error).__name__}: {error}")
            if isinstance(error, OSError | EOFError):  # it could not be reached: perhaps because it is gone
                self._end(statement)
            else:
                self._all.broken(self, statement)
            return
        self.done = True
        self._all.delivered(self, payload)

    def _end(self, statement: str) -> None:
        self._over = True
        self._all.deafen(self.fd)
        self._all.later(MOMENT, lambda now: self._ended_alone(f"{statement}, and it lives", now + DYING))

    def _ended_alone(self, statement: str, until: float) -> None:
        """Unless its process has ended by now, or is about to (a core, much memory), that is all there is."""
        if self.process.ending is not None:
            return
        if have_pidfds() and clock() < until and glance(self.process.pid)[0]:
            self._all.later(MOMENT, lambda _now: self._ended_alone(statement, until))
        else:
            self._all.broken(self, statement)

    def close(self) -> None:
        self._over = True
        self._all.deafen(self.fd)
        if self._fetch is not None:
            self._all.deafen(self._fetch.fd)
            self._fetch.result()
            self._fetch = None


class _Fetch:
    """Unpickles in a thread. The fd is readable when it is over."""

    def __init__(self, message: bytearray) -> None:
        self.fd, self._writer = os.pipe()
        self._result: tuple[Any, BaseException | None] | None = None
        threading.Thread(target=self._run, args=(message,), name="rankguard-unpickle", daemon=True).start()

    def _run(self, message: bytearray) -> None:
        self._result = _unpickled(message)
        os.close(self._writer)

    def result(self) -> tuple[Any, BaseException | None]:
        os.close(self.fd)
        late = TimeoutError(f"its sender did not answer for {FETCH:g} s")
        return self._result or (None, late)


def _unpickled(message: bytearray) -> tuple[Any, BaseException | None]:
    try:
        return ForkingPickler.loads(message), None
    except Exception as error:  # noqa: BLE001  # whatever a stranger's __setstate__ raises
        return None, error


def _text(payload: Any) -> str:
    try:
        text = payload if isinstance(payload, str) else repr(payload)
    except Exception as error:  # noqa: BLE001  # a stranger's __repr__
        text = f"<{type(payload).__name__}, whose repr raises {type(error).__name__}>"
    return _hidden(text)


def _hidden(text: str) -> str:
    """Without secrets, those of our environment included."""
    from rankguard.report.redact import Redactor

    redactor = Redactor()
    redactor.env(os.environ)
    return redactor.text(text[: 4 * _TEXT])[:_TEXT]
