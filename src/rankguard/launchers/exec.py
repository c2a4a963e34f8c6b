"""Ranks by fork and exec on this machine, each from its first instant to the last byte of its output.

For every rank: the pipe that tells when it executes, its pidfd, its notify socket, its two output pipes. All are in
the driver's one selector; each piece of news becomes facts through `emit`. Before the end of a rank is told, what it
said before (datagrams, output) is told: it cannot say anything afterwards.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable
from functools import partial
from selectors import EVENT_READ, BaseSelector

from rankguard.facts import (
    Complained,
    Exited,
    Fact,
    Looked,
    NotSpawned,
    OutputClosed,
    Ready,
    Reaped,
    Silences,
    Spawned,
)
from rankguard.launchers.contract import Emit, Surroundings
from rankguard.launchers.kernelnews import KernelNews
from rankguard.launchers.launched import LaunchedRank
from rankguard.launchers.limits import may_keep
from rankguard.launchers.recorderror import read_error_file
from rankguard.launchers.redaction import redacted, redacted_tail
from rankguard.launchers.signs import sign_of, silences, unread
from rankguard.launchers.start import Prepared, Start, Starter, not_executed
from rankguard.linux import child, notify, spawn, tree
from rankguard.linux.glance import glance
from rankguard.model import Ending, Memory, Sign

_READ = 64 << 10
_SLICE = 16
"""Ranks started between two looks at the news."""
_ENDS = 7
"""Descriptors for each rank that is prepared and not yet forked, and those that samples may keep of it."""
_COMPLAINTS = 4
"""Signals of one kind from one rank that are told: it may send any number of them."""
_IN_ORDER_S = 0.05
"""For the news of ranks that were forked before one that cannot be executed."""
_LAST_WORDS = 32
"""Reads of a pipe, batches of datagrams."""
NEWS_EXIT, NEWS_NOTIFY, NEWS_OUTPUT = 1, 2, 3


class ExecRanks:
    """The launcher of `--start exec`."""

    def __init__(self, around: Surroundings, selector: BaseSelector, emit: Emit) -> None:
        self._around, self._selector, self._emit = around, selector, emit
        self._spec = around.spec
        self._ranks = [LaunchedRank(number) for number in range(self._spec.nprocs)]
        self._queue: deque[int] = deque()
        self._held = self._spec.share is not None and self._spec.watch is None
        """Which ranks these are of all nodes' is not known yet. An engine that is watched waits for nobody."""
        self._by_pid: dict[int, LaunchedRank] = {}
        self._ancestors = frozenset({os.getpid()})
        self._due: set[int] = set()
        self._paused = False
        self.kernel = KernelNews(around, self._by_pid, emit)
        self._traced: set[int] = set()
        self._not_spawned: dict[int, NotSpawned] = {}
        # A watched engine passes on itself what its processes are to know.
        self._signal = child.signal_group if self._spec.watch is None else child.signal_one
        self._starter, self._warm, self._answers = Starter(around), around.warm, -1
        # After a fork each page that we write to costs a fault, and mostly a copy (fork(2)). To fork some in a row, and not
        # to get the next one ready after each, took 150 faults a rank in place of 270.
        self._in_a_row = _SLICE if self._spec.nprocs > _SLICE and may_keep(self._spec.nprocs, _ENDS) else 1

    # ── Starting ─────────────────────────────────────────────────────────────────────────────────────────────────

    def spawn(self, first: int, last: int) -> None:
        self._queue.extend(range(first, last + 1))
        if not self._held:
            self._begin()

    def release(self, around: Surroundings) -> None:
        """What was held back begins: this node's part of a job on several machines is known."""
        if self._held:
            self._held, self._around, self._spec, self._starter = False, around, around.spec, Starter(around)
            if self._queue:
                self._begin()

    def _begin(self) -> None:
        self._answers = self._warm.begin(self._around.port)
        if self._answers >= 0:
            self._register(self._answers, NEWS_EXIT, self._on_answer)
        self.wake(self._around.clock())

    def _on_answer(self, _now: float) -> None:
        if self._answers >= 0:
            self._forget(self._answers)
            self._answers = -1
            self._warm.on_answer()

    def next_wake(self) -> float | None:
        if self._queue and self._warm.ready and not self._held:
            return 0.0
        due = [self._ranks[n].mailbox.due_at() for n in self._due]
        due += [fact.at + _IN_ORDER_S for fact in self._not_spawned.values()]
        return min((at for at in due if at is not None), default=None)

    def wake(self, now: float) -> None:
        if self._queue and self._warm.ready and not self._held:
            numbers = [self._queue.popleft() for _ in range(min(_SLICE, len(self._queue)))]
            for first in range(0, len(numbers), self._in_a_row):
                self._start([self._ranks[number] for number in numbers[first : first + self._in_a_row]])
            if not self._queue:
                self._warm.started()
        if self._not_spawned:
            self._tell_not_spawned(now)
        for number in list(self._due):
            at = self._ranks[number].mailbox.due_at()
            if at is None or at <= now:
                self._due.discard(number)
                self._tell(self._ranks[number].mailbox.flush(now))

    def _start(self, ranks: list[LaunchedRank]) -> None:
        """All are prepared, then all are forked, then all are watched."""
        prepared = []
        for rank in ranks:
            try:
                prepared.append((rank, self._prepare(rank)))
            except OSError as error:
                self._not_started(rank, error)
        forked = []
        for rank, ready in prepared:
            begun_at = self._around.clock()
            try:
                forked.append((rank, self._starter.start(ready), begun_at, self._around.clock()))
            except OSError as error:
                self._not_started(rank, error)
        for rank, started, begun_at, at in forked:
            self._watch(rank, started, (begun_at, at))

    def _prepare(self, rank: LaunchedRank) -> Prepared:
        around = self._around
        rank.notify = notify.NotifySocket(f"{around.private_dir}/{rank.number}")
        if not around.private_dir.startswith("@"):
            rank.error_file = f"{around.private_dir}/{rank.number}.error"
        return self._starter.prepare(rank.number, rank.notify.path, rank.error_file)

    def _not_started(self, rank: LaunchedRank, error: OSError) -> None:
        self._abandon(rank)
        statement = f"unable to start a process: {error.strerror or error}"
        self._emit(NotSpawned(self._around.clock(), rank.number, "fork", error.errno or 0, statement))

    def _watch(self, rank: LaunchedRank, start: Start, made: tuple[float, float]) -> None:
        assert rank.notify is not None  # it was prepared
        started, outputs, rank.warm = start
        rank.pid, rank.pidfd, rank.news = started.pid, started.pidfd, started.news
        rank.outputs, rank.started = list(outputs), made
        self._by_pid[rank.pid] = rank
        for which in (0, 1):
            if rank.outputs[which] >= 0 and not self._paused:
                self._register(rank.outputs[which], NEWS_OUTPUT, partial(self._on_output, rank, which))
        self._register(rank.pidfd, NEWS_EXIT, partial(self._on_pidfd, rank))
        self._register(rank.news, NEWS_EXIT, partial(self._on_news, rank))
        self._register(rank.notify.fileno(), NEWS_NOTIFY, partial(self._on_notify, rank))

    def _register(self, fd: int, priority: int, call: Callable[[float], object]) -> None:
        self._selector.register(fd, EVENT_READ, (priority, call))

    def _on_news(self, rank: LaunchedRank, now: float) -> None:
        """The child executes, or says why it cannot."""
        if rank.news < 0:
            return
        try:
            failed = spawn.failure(rank.news)
        except BlockingIOError:
            return
        self._close_news(rank)
        if failed is None:
            self._executes(rank, now)
            return
        stage, error = failed
        error, statement = not_executed(self._spec, stage, error)
        if self._around.keeper is not None:
            self._around.keeper.ended(rank.number, rank.pid, Ending("exit", code=127))
        os.waitid(os.P_PIDFD, rank.pidfd, os.WEXITED)
        self._by_pid.pop(rank.pid, None)
        self._abandon(rank)
        self._not_spawned[rank.number] = NotSpawned(now, rank.number, stage, error, statement)
        self._tell_not_spawned(now)

    def _close_news(self, rank: LaunchedRank) -> None:
        self._selector.unregister(rank.news)
        os.close(rank.news)
        rank.news = -1

    def _executes(self, rank: LaunchedRank, now: float) -> None:
        rank.spawned = True
        self._emit(Spawned(now, rank.number, rank.pid, rank.warm, tuple(rank.signals)))
        if self._not_spawned:
            self._tell_not_spawned(now)

    def _tell_not_spawned(self, now: float, within_s: float = _IN_ORDER_S) -> None:
        """In the order of ranks, so that of several that fail alike the same one is named each time.

        One waits for the news of those before it: microseconds to milliseconds, as they were forked before.
        """
        for number in sorted(self._not_spawned):
            fact = self._not_spawned[number]
            if now < fact.at + within_s and any(before.news >= 0 for before in self._ranks[:number]):
                return
            self._tell([self._not_spawned.pop(number).replace(at=max(now, fact.at))])

    def _abandon(self, rank: LaunchedRank) -> None:
        self._close_output(rank, 0)
        self._close_output(rank, 1)
        self._close_notify(rank)
        if rank.pidfd >= 0:
            self._forget(rank.pidfd)
            os.close(rank.pidfd)
        rank.pidfd = rank.pid = -1
        rank.exited = rank.reaped = True

    # ── News ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, facts: list[Fact]) -> None:
        for fact in facts:
            self._emit(redacted(fact, self._around.redact))

    def _on_notify(self, rank: LaunchedRank, now: float) -> bool:
        if rank.notify is None:
            return False
        self._on_news(rank, now)  # one that speaks executes, even when the news of that is behind in the queue
        if rank.news >= 0:
            return False
        messages, more = rank.notify.drain(self._belongs(rank))
        if (sign := sign_of(messages)) is not None:
            rank.heard_at, rank.heard_by = now, sign
        for message in messages:
            facts = rank.mailbox.take(message, now, lambda said: self._around.peer_death(self._around.redact(said)))
            self._tell(facts)
            if any(type(fact) is Ready for fact in facts):
                self._hand_over(rank)
        if rank.mailbox.due_at() is not None:
            self._due.add(rank.number)
        return more

    def _hand_over(self, rank: LaunchedRank) -> None:
        box = rank.mailbox
        self._around.on_payload(rank.number, box.payload, box.payload_fd)
        if box.payload_fd is not None:
            os.close(box.payload_fd)
        box.payload, box.payload_fd = None, None

    def _belongs(self, rank: LaunchedRank) -> Callable[[int, int], bool]:
        def asks(pid: int, uid: int) -> bool:
            if pid in (rank.pid, 0):
                return True
            below = tree.is_descendant(pid, self._ancestors)
            # Gone already: the socket's folder is private, so whoever found it is of this user's.
            return below is True or (below is None and uid in (os.getuid(), 0))

        return asks

    def _on_output(self, rank: LaunchedRank, which: int, now: float) -> bool:
        fd = rank.outputs[which]
        if fd < 0:
            return False
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            rank.heard_at, rank.heard_by = now, "output"
            self._around.output.feed(rank.number, which, data, now)
            return True
        self._close_output(rank, which)
        if rank.outputs == [-1, -1] and rank.spawned:
            self._emit(OutputClosed(now, rank.number))
        return False

    def _on_pidfd(self, rank: LaunchedRank, now: float) -> None:
        """It has ended. While a debugger traces it, its status is the debugger's first (ptrace(2)), and then SIGCHLD comes."""
        self._on_exit(rank, now)
        if not rank.exited:
            self._forget(rank.pidfd)
            self._traced.add(rank.number)

    def look_at_traced(self, now: float) -> None:
        """SIGCHLD has come: a debugger may have let go of a rank that has ended."""
        self.kernel.note_exits(now)  # of strays, too: what is read takes no room
        for number in tuple(self._traced):
            self._on_exit(self._ranks[number], now)
            if self._ranks[number].exited:
                self._traced.discard(number)

    def _on_exit(self, rank: LaunchedRank, now: float) -> None:
        """The process has ended: first what it said, then what the kernel says of it, then that."""
        if rank.exited:
            return
        ending = child.look(rank.pidfd)
        if ending is None:
            return
        self._on_news(rank, now)
        if rank.exited:  # it had never executed
            return
        if rank.news >= 0:  # whoever forked it has not let go of the pipe yet; it has ended, so it had begun
            self._close_news(rank)
            self._executes(rank, now)
        if self._around.keeper is not None:
            self._around.keeper.ended(rank.number, rank.pid, ending)
        self._forget(rank.pidfd)
        rank.exited = True
        self._around.terminal.ended(rank.number)
        # What the rank said itself fits into a socket's queue and into two pipes; a child of it may go on for ever.
        for _ in range(_LAST_WORDS):
            if not self._on_notify(rank, now):
                break
        tail = redacted_tail(self.hear(rank.number, now), self._around.redact)
        self._tell(rank.mailbox.flush(now))
        self.kernel.take(now, ending.number)
        counts, readable = self._around.groups.oom_counts(rank.number)
        report = read_error_file(rank.error_file, self._around.redact)
        self._emit(
            Exited(
                now,
                rank.number,
                ending,
                oom=counts,
                oom_readable=readable,
                log_tail=tail,
                log=self._around.output.log_of(rank.number),
                peer_death=None if _clean(ending) and not rank.complaints else self._around.peer_death("\n".join(tail)),
                report=report,
                begun=self.kernel.begun(rank.number),
            )
        )

    def hear(self, number: int, now: float) -> tuple[str, ...]:
        """The last lines of a rank, those among them that are still in its pipes."""
        for which in (0, 1):
            for _ in range(_LAST_WORDS):
                if not self._on_output(self._ranks[number], which, now):
                    break
        return self._around.output.tail(number)

    def complaint(self, pid: int, number: int, now: float) -> bool:
        """A signal that came from a rank or its descendants is a fact about that rank. False if it is nobody's."""
        found = tree.nearest(pid, self._by_pid)
        if found is None:
            return False
        rank = self._by_pid[found]
        rank.complaints[number] = rank.complaints.get(number, 0) + 1
        if rank.complaints[number] <= _COMPLAINTS:
            self._on_news(rank, now)
            self._emit(Complained(now, rank.number, number))
        return True

    def pause_output(self, paused: bool) -> None:
        """Leave what ranks print in their pipes (they block when those are full), or read on."""
        self._paused = paused
        for rank in self._ranks:
            for which, fd in enumerate(rank.outputs):
                if fd >= 0 and paused:
                    self._forget(fd)
                elif fd >= 0:
                    self._register(fd, NEWS_OUTPUT, partial(self._on_output, rank, which))

    # ── Orders ───────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self, now: float) -> Looked:
        dying: list[tuple[int, str]] = []
        held: list[tuple[int, Memory]] = []
        total = 0
        for rank in self._ranks:
            if rank.pid < 0 or rank.exited:
                continue
            how, told = glance(rank.pid)
            if how is not None:
                dying.append((rank.number, how))
            if told.rss_bytes is not None:
                held.append((rank.number, told))
                total += told.held_bytes or 0
        return Looked(self._around.clock(), tuple(dying), tuple(held), self._around.memory.state(total))

    def signal_all(self, number: int, spare: frozenset[int], *, ends: bool) -> int:
        reached = 0
        for rank in self._ranks:
            if rank.pid > 0 and not rank.reaped and rank.number not in spare and self._signal(rank.pid, number):
                reached += 1
                if not rank.spawned:
                    rank.signals.append(number)
        if ends:
            now = self._around.clock()
            cancelled, self._queue = self._queue, deque()
            self.stop_starting()
            for waiting in cancelled:
                self._ranks[waiting].exited = self._ranks[waiting].reaped = True
                self._emit(NotSpawned(now, waiting, "cancelled", 0, "the job was told to end before it started"))
        return reached

    def signal_rank(self, rank: int, number: int) -> None:
        told = self._ranks[rank]
        if told.pid > 0 and not told.reaped:
            self._signal(told.pid, number)

    def reap(self, rank: int) -> None:
        told = self._ranks[rank]
        _ending, peak = child.reap(told.pid)
        told.reaped = True
        self._by_pid.pop(told.pid, None)
        os.close(told.pidfd)
        told.pidfd = -1
        self._emit(Reaped(self._around.clock(), rank, peak))

    def unreaped(self) -> set[int]:
        """The pids that belong to ranks and are still to be looked at."""
        return {rank.pid for rank in self._ranks if rank.pid > 0 and not rank.reaped}

    def stop_starting(self) -> None:
        """No further rank is started: a server that is still importing for it has nothing to do any more."""
        if self._answers >= 0:
            self._forget(self._answers)
            self._answers = -1
        self._warm.stop()

    def heard_at(self, rank: int) -> float | None:
        """When a rank last said or printed anything."""
        return self._ranks[rank].heard_at

    def silences(self, now: float, since: float) -> Silences:
        return silences(self.signs(now), now, since)

    def signs(self, now: float) -> tuple[Sign, ...]:
        """Output that we have left in the pipes (nobody reads ours) is a sign, too."""
        told = []
        for rank in self._ranks:
            if self._paused and unread(rank.outputs):
                rank.heard_at, rank.heard_by = now, "output"
            if rank.spawned and not rank.exited:
                told.append(Sign(rank.number, rank.heard_at, rank.heard_by))
        return tuple(told)

    def settle(self, now: float) -> bool:
        """Take the endings of ranks that are there already; true when every rank has ended and is reaped."""
        for rank in self._ranks:
            if rank.pid > 0 and not rank.exited:
                self._on_exit(rank, now)
        self._tell_not_spawned(now, 0.0)
        return not self._queue and all(rank.reaped for rank in self._ranks)

    def close(self, now: float) -> None:
        self.kernel.close()
        for rank in self._ranks:
            for which in (0, 1):
                while self._on_output(rank, which, now):
                    pass
                if rank.outputs[which] >= 0:
                    self._close_output(rank, which)
            self._close_notify(rank)
            if rank.error_file is not None:
                with contextlib.suppress(OSError):
                    os.unlink(rank.error_file)

    def _close_output(self, rank: LaunchedRank, which: int) -> None:
        fd = rank.outputs[which]
        if fd >= 0:
            self._forget(fd)
            os.close(fd)
            rank.outputs[which] = -1
            self._around.output.ended(rank.number, which)

    def _close_notify(self, rank: LaunchedRank) -> None:
        if rank.notify is not None:
            self._forget(rank.notify.fileno())
            rank.notify.close()
            rank.notify = None

    def _forget(self, fd: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)


def _clean(ending: Ending) -> bool:
    return ending.kind == "exit" and ending.code == 0
