"""What processes are doing right now: the kernel's words, and Python frames by py-spy, else by faulthandler.

py-spy first: nothing runs inside the process that is looked at, and it reads all threads. `py-spy dump` is a child
program of ours (`helper.py`), a few at once, each with a bound; nobody waits for it. It pauses a process while it reads (about 10 ms) so that what it reads belongs together;
one that is stopped, traced or in a system call that cannot be interrupted is read without a pause, since it would not
come to rest. Where py-spy is missing or may not trace, a rank is asked for the stack of its main thread
(`ownstack.py`: 1 ms, but something runs inside it); where it cannot answer, the kernel's words remain (`procstack.py`).

`native`: the calls in C too; the process stands still for 40 to 300 ms, so it is for the few that are to blame.

Sources: `py-spy dump --help` (0.4). Read next: `../stacks.py` (the nouns), `../supervisor/snapshots.py` (who asks).
"""

import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from selectors import BaseSelector
from typing import Any

from rankguard.linux import ownstack
from rankguard.linux.helper import Helper, Said
from rankguard.linux.procstack import kernel_stack, python_of, pythons
from rankguard.stacks import Frame, Stack, Thread

AT_ONCE, BOUND_S = 4, 10.0
_SLICE = 4
"""Processes looked at between two looks at the news."""
_FRAMES, _NATIVE = 200, 12
_LOOKS = tuple(0.001 * 2**n for n in range(11))
"""When to look for an answer of faulthandler: after 1 ms, 2 ms more … for two seconds in all, on an overloaded machine."""


def find_py_spy() -> str | None:
    """The program: beside this Python (it came with rankguard), else on PATH."""
    from shutil import which

    beside = os.path.join(os.path.dirname(sys.executable or ""), "py-spy")
    return beside if os.access(beside, os.X_OK) else which("py-spy")


def with_frames(known: Stack, dump: list[dict[str, Any]]) -> Stack:
    """The kernel's view of a process with the frames that `py-spy dump --json` tells. Raises on a shape we do not know."""
    told = {thread["os_thread_id"] or known.pid: thread for thread in dump}
    by_tid = {thread.tid: thread for thread in known.threads}
    threads = []
    for tid, thread in told.items():
        seen = by_tid.pop(tid, None) or Thread(tid, "?", "?")
        python = [frame for frame in thread["frames"] if frame.get("module") is None]
        threads.append(
            seen.replace(
                name=str(thread["thread_name"] or seen.name),
                frames=tuple(Frame(str(f["name"]), f["filename"], f["line"] or None) for f in python[:_FRAMES]),
                native=_native(thread["frames"]),
                active=bool(thread["active"]),
                holds_gil=bool(thread["owns_gil"]),
            )
        )
    threads += by_tid.values()  # those that no Python runs in
    return known.replace(
        threads=tuple(sorted(threads, key=lambda thread: (thread.tid != known.pid, not thread.frames))), by="py-spy"
    )


def _native(frames: list[dict[str, Any]]) -> tuple[str, ...]:
    """What C runs below the innermost Python frame: `SHA256_Final (libcrypto.so.3)`. Not the interpreter itself, nor
    what has no name.
    """
    found: list[str] = []
    for frame in frames:
        module = str(frame.get("module") or "").rpartition("/")[2]
        if not module or len(found) == _NATIVE:
            break
        if not module.startswith(("libpython", "python")) and not str(frame["name"]).startswith("0x"):
            found.append(f"{frame['name']} ({module})")
    return tuple(found)


class _Round:
    """Processes by a key of the caller's, and what has been found of them."""

    def __init__(
        self, pids: Mapping[int, int], done: Callable[[dict[int, Stack]], None], *, native: bool, itself: bool
    ) -> None:
        self.todo = deque(pids.items())
        self.found: dict[int, Stack] = {}
        self.running = 0
        self.done, self.native, self.itself = done, native, itself


class _Dump:
    """One process that is being asked: py-spy at work on it (`helper`), or itself (`offer`)."""

    __slots__ = ("helper", "key", "known", "looks", "offer", "round", "until")

    def __init__(self, of: _Round, key: int, known: Stack, until: float) -> None:
        self.round, self.key, self.known, self.until = of, key, known, until
        self.helper: Helper | None = None
        self.offer: ownstack.Offer | None = None
        self.looks = 0


class Sampler:
    """Takes stacks without blocking: `take` queues, the selector's news and `wake` do the work, `done` gets the result.

    `priority` is that of our news in the driver's selector; `clock` its clock (seconds). `offers` names the file in which
    the process of a key may tell its own stack.
    """

    def __init__(
        self,
        selector: BaseSelector,
        priority: int,
        clock: Callable[[], float],
        offers: Callable[[int], str | None] = lambda _key: None,
    ) -> None:
        self._selector, self._priority, self._clock, self._offers = selector, priority, clock, offers
        self._rounds: deque[_Round] = deque()
        self._running: list[_Dump] = []
        self._asked: list[_Dump] = []
        self._mute: set[int] = set()
        self._program: str | None = None
        self._looked_for_it = False

    def take(
        self,
        pids: Mapping[int, int],
        done: Callable[[dict[int, Stack]], None],
        *,
        native: bool = False,
        itself: bool = False,
    ) -> dict[int, Stack]:
        """Stacks of the processes `pids` (key → pid); `done` gets them by key, those that are gone left out.

        Returned is what `done` will get, and what has been found of it at any time. `native`: with the calls in C.
        `itself`: of each process, also where it only waits for a Python below it.
        """
        if not self._looked_for_it:
            self._looked_for_it, self._program = True, find_py_spy()
        self._rounds.append(_Round(pids, done, native=native, itself=itself))
        return self._rounds[-1].found

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        if self._can_go_on():
            return 0.0
        return min((dump.until for dump in (*self._running, *self._asked)), default=None)

    def wake(self, now: float) -> None:
        """Look at the next processes; end what takes too long."""
        for dump in list(self._running):
            if dump.until <= now:
                self._finish(dump, f"py-spy took longer than {BOUND_S:g} s", now)
        for dump in [each for each in self._asked if each.until <= now]:
            self._look_for_answer(dump, now)
        for _ in range(_SLICE):
            if self._can_go_on():
                current = self._rounds[0]
                if current.todo:
                    self._look(current, *current.todo.popleft(), now)
                self._when_done(current)

    def close(self) -> None:
        """End every program of ours, and wait for its end (they are killed: milliseconds)."""
        for dump in list(self._running):
            self._ended(dump)
        self._asked.clear()
        self._rounds.clear()

    def _can_go_on(self) -> bool:
        if not self._rounds:
            return False
        first = self._rounds[0]
        return len(self._running) + len(self._asked) < AT_ONCE if first.todo else not first.running

    def _when_done(self, current: _Round) -> None:
        if not current.todo and not current.running and self._rounds and self._rounds[0] is current:
            self._rounds.popleft()
            current.done(current.found)

    def _look(self, current: _Round, key: int, pid: int, now: float) -> None:
        known = kernel_stack(pid)
        if known is None:
            return
        python = next(iter(pythons([pid], 1)), None) if current.itself else python_of(pid)
        if python is None:
            current.found[key] = known
            return
        below = kernel_stack(python) if python != pid else None
        known = below.replace(child_of=pid) if below is not None else known
        dump = _Dump(current, key, known, now + BOUND_S)
        if self._program is None:
            self._ask(dump, "no py-spy is installed", now)
            return
        try:
            self._dump(dump, self._program)
        except OSError as error:
            self._ask(dump, f"unable to execute py-spy: {error.strerror}", now)

    def _ask(self, dump: _Dump, lacks: str, now: float) -> None:
        """Let the process tell its own stack, if it can."""
        dump.known = dump.known.replace(lacks=lacks)
        offer = ownstack.offer_of(self._offers(dump.key), dump.known.pid)
        dump.round.found[dump.key] = dump.known
        if offer is None or dump.round.native or offer.pid in self._mute:
            return
        if ownstack.refusal(offer, dump.known) is not None:
            return
        with contextlib.suppress(OSError):
            ownstack.ask(offer)
            dump.offer, dump.until = offer, now + _LOOKS[0]
            self._asked.append(dump)
            dump.round.running += 1

    def _look_for_answer(self, dump: _Dump, now: float) -> None:
        assert dump.offer is not None
        dump.looks += 1
        through = ownstack.has_answered(dump.offer)
        if not through and dump.looks < len(_LOOKS):
            dump.until = now + _LOOKS[dump.looks]
            return
        self._asked.remove(dump)
        frames = ownstack.answer(dump.offer) if through else ()
        if frames:
            known = dump.known
            main = known.main.replace(frames=frames)
            told = known.replace(threads=(main, *known.threads[1:]), by="faulthandler")
            dump.round.found[dump.key] = told
        elif through:
            self._mute.add(dump.offer.pid)  # the handler is somebody else's by now
        dump.round.running -= 1
        self._when_done(dump.round)

    def _dump(self, dump: _Dump, program: str) -> None:
        known = dump.known
        comes_to_rest = known.tracer is None and known.main.state not in "DTt"
        how = ("--native",) if dump.round.native else ()
        argv = (program, "dump", "--json", *(how if comes_to_rest else ("--nonblocking",)), "--pid", str(known.pid))
        env = {"PATH": os.defpath, "RUST_BACKTRACE": "0", "LC_ALL": "C.UTF-8"}
        dump.helper = Helper(self._selector, self._priority, argv, env, partial(self._finish, dump, None))
        self._running.append(dump)
        dump.round.running += 1

    def _finish(self, dump: _Dump, lacks: str | None, now: float) -> None:
        """What it has found, or why nothing."""
        said = self._ended(dump)
        try:
            dump.round.found[dump.key] = with_frames(dump.known, json.loads(said.out))
        except (ValueError, TypeError, KeyError):
            self._ask(dump, lacks or _why(said.err.decode(errors="replace")), now)
        self._when_done(dump.round)

    def _ended(self, dump: _Dump) -> Said:
        assert dump.helper is not None
        self._running.remove(dump)
        dump.round.running -= 1
        return dump.helper.close()


def _why(said: str) -> str:
    """py-spy's reason: its last cause, else its error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    causes = [line.partition(": ")[2] for line in lines if line[:1].isdecimal() and ": " in line]
    reason = causes[-1] if causes else next((line.removeprefix("Error: ") for line in lines), "it said nothing")
    return f"py-spy: {reason[:200]}"
