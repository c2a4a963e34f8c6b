"""A watch in a thread of its own, while the caller serves.

The thread waits without the lock and does everything else with it, so that `stopping`, `add` and `forget` take effect at
once and before they return; callbacks run in the thread, without the lock. A forked child inherits an inert guard: its
files are closed (`watch.py`), its methods do nothing, and leaving the block does nothing.

Read next: `watch.py`.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

from rankguard.adopted.process import Adopted
from rankguard.adopted.watch import Watch
from rankguard.errors import RankFailed, UsageError
from rankguard.model import Ending, Verdict


class Guard:
    """Watches processes while a block runs. Made by `guard` and by `wait_ready(…, keep=True)`.

    All methods may be called from any thread, callbacks included.
    """

    def __init__(
        self,
        watch: Watch,
        on_failure: Callable[[Verdict], object] | None = None,
        on_ending: Callable[[str, Ending], object] | None = None,
    ) -> None:
        from concurrent.futures import Future  # it brings `logging`: whoever only waits for readiness does without

        self.future: Future[Verdict | None] = Future()
        """Resolved with the verdict of the first failure, or with None when the guard ends without one.

        Its callbacks run in rankguard's thread; `asyncio.wrap_future(g.future)` serves an event loop."""
        self.future.set_running_or_notify_cancel()  # an event loop that loses interest must not cancel it for the others
        self._watch, self._on_failure, self._on_ending = watch, on_failure, on_ending
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._ending = False
        self._bug: BaseException | None = None
        self._told = False
        self._calls: deque[Callable[[], object]] = deque()
        self._news, self._bell = _Flag(), _Flag()
        self._watch.owned += [self._news, self._bell]
        watch.listen(self._bell.fd, lambda _now: self._bell.lower())

    # ── The block ────────────────────────────────────────────────────────────────────────────────────────────────

    def __repr__(self) -> str:
        return f"<rankguard.Guard of {self._in_short()}>"

    def _repr_html_(self) -> str | None:
        """For notebooks."""
        from rankguard.report.notebook import block_html, verdict_html

        verdict = self.verdict()
        return verdict_html(verdict) if verdict is not None else block_html(f"guard of {self._in_short()}")

    def _in_short(self) -> str:
        count = sum(not each.forgotten for each in tuple(self._watch.processes))
        watched = f"{count} {'process' if count == 1 else 'processes'}"
        if (verdict := self.verdict()) is not None:
            from rankguard.report.wording import printable

            return f"{watched}: {printable(verdict.statement)}"
        over = self._ending or self._watch.closed
        return f"{watched}, {'over' if over else 'watching' if self._thread is not None else 'not armed yet'}"

    def __enter__(self) -> Self:
        return self.arm()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inert():
            return
        self.close()
        verdict = self.verdict()
        if self._bug is not None and error is None:
            raise self._bug
        if verdict is None or self._on_failure is not None or isinstance(error, RankFailed):
            return
        if error is None or isinstance(error, Exception):
            raise RankFailed(verdict)  # an error of the block is its context: what it met was most likely the failure
        error.add_note(f"rankguard: {verdict.statement}")  # KeyboardInterrupt, SystemExit, CancelledError are obeyed

    def arm(self) -> Self:
        """Begin to watch, if that has not begun yet. The block does it. Returns the guard."""
        if not self._inert() and self._thread is None:
            with self._lock:
                self._begin()
            self._thread = threading.Thread(target=self._run, name="rankguard-guard", daemon=True)
            self._thread.start()
        return self

    def close(self) -> None:
        """End the watch, once a failure that has begun is judged. Leaving the block does it."""
        if self._inert():
            return
        if self._thread is None:
            self._release()
            return
        with self._lock:
            if not self._ending:
                self._settle()
                self._ending = True
                self._bell.raise_()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # ── Questions and news ───────────────────────────────────────────────────────────────────────────────────────

    def verdict(self) -> Verdict | None:
        """The verdict on the first failure, once it is known; else None."""
        return self._watch.verdict

    def fileno(self) -> int:
        """For an event loop: readable as soon as there is a verdict, and from then on (eventfd(2)). Do not read from it."""
        return self._news.fd

    def stopping(self) -> None:
        """Endings are no failures from now on; they are still told to `on_ending`. Saying it twice does no harm."""
        if not self._inert():
            with self._lock:
                if not self._ending and not self._watch.closed:
                    self._begin()
                    self._watch.announce()
                    self._take_news()

    def add(self, process: Any, name: str | None = None) -> None:
        """Watch one more. Its rank in a verdict is the next number that has not been used.

        `process`: as of `wait_ready`.
        `name`: what it is called in the verdict; None for `Process.name`.

        Raises `UsageError` for what is no process, and when the guard has ended; `OSError` when the descriptors run out.
        """
        if not self._inert():
            with self._lock:
                self._must_watch()
                self._watch.add(Adopted(process, len(self._watch.processes), name))
                self._take_news()

    def forget(self, process: Any) -> None:
        """Stop watching `process`: its ending is neither told nor a failure.

        Raises `UsageError` when it is not watched, or the guard has ended.
        """
        if not self._inert():
            with self._lock:
                self._must_watch()
                known = [each for each in self._watch.processes if not each.forgotten and each.is_same(process)]
                if not known:
                    raise UsageError(f"{process!r} is not watched")
                self._watch.turn(0)
                self._watch.forget(known[-1])
                self._take_news()

    # ── The thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            while not self._ending:
                with self._lock:
                    patience = self._watch.patience()
                if not self._calls:
                    self._watch.wait(patience)
                with self._lock:
                    if not self._ending:
                        self._watch.turn(0)
                        self._take_news()
                self._call()
        except BaseException as error:  # noqa: BLE001  # a fault of ours must not look like a quiet job
            self._bug = error
            _log("rankguard's watch has ended by a fault of its own")
        self._call()
        self._release()

    def _settle(self) -> None:
        try:
            self._watch.settle()
            self._take_news()
        except BaseException as error:  # noqa: BLE001  # as in the thread
            self._bug = self._bug or error

    def _take_news(self) -> None:
        """What is to be told, in order. With the lock held; told without it."""
        while self._watch.endings:
            process, ending = self._watch.endings.popleft()
            if self._on_ending is not None:
                self._calls.append(partial(self._on_ending, process.label, ending))
        verdict = self._watch.verdict
        if verdict is not None and not self._told:
            self._told = True
            self._news.raise_()
            self._calls.append(partial(self.future.set_result, verdict))
            if self._on_failure is not None:
                self._calls.append(partial(self._on_failure, verdict))
        if self._calls and threading.current_thread() is not self._thread:
            self._bell.raise_()

    def _call(self) -> None:
        while self._calls:
            call = self._calls.popleft()
            try:
                call()
            except BaseException:  # noqa: BLE001  # contract: logged, and the watch goes on
                _log("a callback of rankguard.guard has failed")

    def _release(self) -> None:
        if not self.future.done():
            if self._bug is not None:
                self.future.set_exception(self._bug)
            else:
                self.future.set_result(None)
        self._watch.close()

    def _must_watch(self) -> None:
        if self._ending or self._watch.closed:
            raise UsageError("the guard has ended")
        self._begin()

    def _begin(self) -> None:
        if not self._watch.started:
            self._watch.start()
            self._watch.take_early()
            self._watch.rehearse()
        self._take_news()

    def _inert(self) -> bool:
        """In a process that was forked from the one that made us."""
        return os.getpid() != self._pid


class _Flag:
    """A file descriptor that is readable while the flag is raised."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.fd = self._writer = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self.fd, self._writer = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._writer, False)

    def raise_(self) -> None:
        try:
            os.write(self._writer, (1).to_bytes(8, "little"))
        except OSError:  # raised already, more often than it can count, or closed
            pass

    def lower(self) -> None:
        try:
            while os.read(self.fd, 512) and self.fd != self._writer:
                pass
        except OSError:
            pass

    def close(self) -> None:
        for fd in {self.fd, self._writer} - {-1}:
            os.close(fd)
        self.fd = self._writer = -1


def _log(what: str) -> None:
    import logging

    logging.getLogger("rankguard").error(what, exc_info=True)  # noqa: LOG014  # called where an exception is handled
