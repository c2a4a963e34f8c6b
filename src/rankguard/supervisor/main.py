"""The supervisor: the process that is every rank's parent, from the front's first message to the verdict.

Forked by the warden before anything was loaded (`../warden.py`); single-threaded; subreaper. It builds the parts, gives
them to the `Driver`, and is the only one that writes the run's files. It never blocks on the front, on a reader of the
ranks' output or on a rank. Read next: `../driver.py` (the loop), `../launchers/exec.py` (the ranks), `../client.py` (the front).
"""

import contextlib
import gc
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from functools import cached_property
from selectors import EVENT_READ, EpollSelector
from typing import TYPE_CHECKING, Protocol

from rankguard._version import __version__
from rankguard.core import story
from rankguard.core.job import Job
from rankguard.diagnosis.peers import peer_death
from rankguard.diagnosis.verdict import verdict
from rankguard.driver import URGENT, Driver
from rankguard.errors import SpawnFailed
from rankguard.facts import Fact, FrontLost, JobStarted, Judged, StopRequested, WardenLost
from rankguard.launchers.contract import Surroundings
from rankguard.launchers.exec import ExecRanks
from rankguard.launchers.limits import ensure_fds
from rankguard.launchers.terminal import Terminal
from rankguard.launchers.warmstart import WarmStart
from rankguard.linux import lock, ports
from rankguard.linux.awake import Awake
from rankguard.linux.cgroup import JobGroups
from rankguard.linux.hierarchies import own_groups
from rankguard.linux.kmsg import KernelLog
from rankguard.linux.libc import ALL_SIGNALS, become_subreaper, set_name
from rankguard.linux.memory import MemoryDomain
from rankguard.linux.signals import Received, SignalQueue
from rankguard.model import JobSpec
from rankguard.orders import Order, SignalAll, Tell
from rankguard.private import CONTROL, PREFIX, private_parents
from rankguard.record import from_data
from rankguard.report.files import RunFiles
from rankguard.report.output import Output
from rankguard.report.redact import for_telling, job_redactor
from rankguard.report.unkept import say_unkept
from rankguard.supervisor.backpressure import Backpressure
from rankguard.supervisor.consoles import consoles, losses
from rankguard.supervisor.control import Control
from rankguard.supervisor.desk import Desk
from rankguard.supervisor.glimpses import Glimpses
from rankguard.supervisor.marked import Marked
from rankguard.supervisor.onscreen import OnScreen
from rankguard.supervisor.rehearsal import Rehearsal
from rankguard.supervisor.samples import Samples
from rankguard.supervisor.snapshots import PRIORITY as NEWS_ASIDE
from rankguard.supervisor.snapshots import Snapshots
from rankguard.supervisor.tree import JobTree
from rankguard.wire import Message, Wire

if TYPE_CHECKING:
    from rankguard.supervisor.examination import Examination
    from rankguard.supervisor.records import Records
    from rankguard.supervisor.survey import Survey

clock = time.monotonic
FLUSH_S = 2.0


def main(control: int, front: int, front_pid: int, warden: int, tell: int) -> None:
    """Run one job; the process ends here. Called in the warden's child."""
    set_name("rankguard-sup")
    become_subreaper()
    signals = SignalQueue(ALL_SIGNALS)
    wire = Wire(socket.socket(fileno=control))
    try:
        message, fds = _first_message(wire, front)
        ours = frozenset({os.getpid(), os.getppid(), *([front_pid] if message["front_is_ours"] else ())})
        supervisor = Supervisor(wire, signals, from_data(JobSpec, message["spec"]), fds, ours, tell, front_pid)
        supervisor.run(front, front_pid, warden)
        code = 0
    except SpawnFailed as error:
        wire.send({"is": "spawn-failed", "statement": error.statement, "hint": error.hint, "code": error.exit_code})
        code = 0
    except BaseException:  # noqa: BLE001  # whatever it was, it has to be told
        # The warden ends whatever is left; the front says what happened.
        wire.send({"is": "bug", "text": traceback.format_exc()})
        code = 125
    wire.flush_within(FLUSH_S)
    os._exit(code)


def _first_message(wire: Wire, front: int) -> tuple[Message, list[int]]:
    poll = select.poll()
    poll.register(wire, select.POLLIN)
    poll.register(front, select.POLLIN)
    while not wire.closed:
        ready = {fd for fd, _event in poll.poll()}
        for message, fds in wire.receive(1):  # what the front has asked since is for `run`
            return message, fds
        if front in ready:
            break
    os._exit(0)  # the front is gone before it asked for anything


class Supervisor:
    """The parts of one job and the threads between them; `run` is its life."""

    def __init__(
        self,
        wire: Wire,
        signals: SignalQueue,
        spec: JobSpec,
        fds: list[int],
        ours: frozenset[int],
        tell: int,
        front_pid: int,
    ) -> None:
        enough_fds = ensure_fds(spec.nprocs)
        self._wire, self._signals, self._tell = wire, signals, tell
        self._wall = time.time()
        self._warden_pid = os.getppid()
        self._files = RunFiles(spec.run_dir, lock.hold)
        if self._files.folder is None:  # two runs never share one
            spec = spec.replace(run_dir=None)
        redactor = job_redactor(spec)
        self._job, self._spec = Job(for_telling(spec, redactor)), spec
        self._selector = EpollSelector()
        stdin, out, err, *passed = fds
        terminal = Terminal(spec, (stdin, out, err), front_pid)
        self._consoles = consoles(spec, out, err)
        self._screen = OnScreen(spec, self._consoles, err)
        for fd in (out, err):
            os.close(fd)
        if spec.verbose:
            self._files.reader = lambda text: wire.send({"is": "journal", "text": text})
        self._files.append(story.first_line(self._job.spec))
        say_unkept(spec)
        self._private_dir = self._make_private_dir()
        self._port, self._port_lock = _master_port(spec)
        self._files.append(
            story.note(f"MASTER_PORT is {self._port}, {'given' if self._port_lock is None else 'a free one'}")
        )
        groups_before = own_groups()
        self._groups = self._make_groups(ours)
        self._memory = MemoryDomain(groups_before)
        self._output = Output(spec, self._screen.sinks, self._warn, not enough_fds)
        self._said_error = self._child_ended = False
        self._survey: Survey | None = None
        self._redact = redactor.text
        self._driver = Driver(self._job, self._selector, clock, self._record, self._listen, Awake())
        self._warm = WarmStart(spec, self._note_in_journal, redactor.text)
        around = Surroundings(
            spec=spec,
            port=self._port,
            private_dir=self._private_dir,
            terminal=terminal,
            warm=self._warm,
            passed=tuple(passed),
            groups=self._groups,
            kernel_log=KernelLog(),
            memory=self._memory,
            output=self._output,
            clock=clock,
            redact=self._redact,
            peer_death=peer_death,
            note=self._note_in_journal,
            on_payload=self._on_payload,
        )
        marked = Marked(self._driver.emit, self._output.remarks.of, around.redact)
        self._ranks = ExecRanks(around, self._selector, marked.emit)
        self._desk = Desk(wire, self._job, self._files, self._driver.emit, clock, self._ranks.heard_at)
        self._desk.asks |= self._screen.answer(
            Glimpses(self._job, self._memory, self._ranks.heard_at, wire.send), self._output
        )
        self._snapshots = Snapshots(self._job, self._files, self._selector, clock, around.redact, self._private_dir)
        self._tree = JobTree(
            self._job, self._wall, self._groups, self._ranks, self._warm, self._close_helpers, few_fds=not enough_fds
        )
        self._driver.launcher, self._driver.tree = self._ranks, self._tree
        self._driver.examine = self._examine
        self._driver.muster = self._muster
        self._records: Records | None = None
        self._desk.later["stacks"] = self._snapshots.ask
        few = not enough_fds
        self._samples = Samples(
            self._job, self._memory, self._files, clock, self._driver.emit, self._groups, groups_before, few_fds=few
        )
        self._desk.sampled, self._driver.remember = self._samples.told, self._samples.remember
        self._control = Control(self._private_dir, self._selector, self._desk.ask, few_fds=not enough_fds)
        if self._control.error is None:
            self._files.link(CONTROL, self._control.address)
        else:
            self._files.append(story.note(self._control.error))
        reading = Backpressure(self._selector, self._consoles, wire, self._on_message, self._pause)
        self._parts: list[Part] = [self._snapshots, *self._on_demand(), self._samples]
        # What the parts say is shown first, then what is shown is written.
        self._parts += [self._output, self._screen, reading, Rehearsal(self._job)]

    def _on_demand(self) -> "Iterator[Part]":
        """Parts that most jobs do without."""
        if self._tree.shm_owners is not None:
            yield self._tree.shm_owners
        if self._spec.stall_timeout is not None:
            yield self._examination

    @cached_property
    def _examination(self) -> "Examination":
        from rankguard.supervisor.examination import Examination  # no start without a stall timeout waits for it

        return Examination(self._job, self._snapshots, self._ranks.signs, self._driver.emit, self._redact)

    def _examine(self, number: int, now: float) -> None:
        if self._examination not in self._parts:  # somebody was not ready in time
            self._parts.insert(0, self._examination)
        self._examination.begin(number, now)

    def _close_helpers(self) -> None:
        """Programs of ours are no part of the job's tree."""
        self._snapshots.close()
        if self._records is not None:
            self._records.close()

    def _muster(self, spoken: tuple[int, ...], now: float) -> None:
        from rankguard.supervisor.muster import Muster  # no start waits for it
        from rankguard.supervisor.records import Records

        remarks = self._output.remarks.of
        records = self._records = Records(self._spec, self._selector, self._wall)
        muster = Muster(
            self._job, self._snapshots, records, self._ranks.signs, remarks, self._driver.emit, self._redact
        )
        self._parts.insert(0, muster)
        muster.begin(spoken, now)

    # ── What others must know of if we are killed ────────────────────────────────────────────────────────────────

    def _record(self, fact: Fact, orders: tuple[Order, ...]) -> None:
        """Every fact and order is on its way to the disk before it is acted on."""
        self._files.append(story.lines(fact, orders))
        if self._files.error is not None and not self._said_error:
            self._said_error = True
            self._warn(self._files.error)

    def _note_in_journal(self, text: str) -> None:
        self._files.append(story.note(text))

    def _note(self, line: str) -> None:
        """What the warden is to remove if we cannot."""
        with contextlib.suppress(OSError):
            os.write(self._tell, f"{line}\n".encode(errors="surrogateescape"))

    def _make_private_dir(self) -> str:
        """A short private folder for the notify sockets: AF_UNIX paths end at 107 bytes, and run folders may be on NFS."""
        for parent in private_parents():
            path = f"{parent}/{PREFIX}{self._spec.run_id}"
            self._note(f"folder {path}")
            with contextlib.suppress(OSError):
                os.mkdir(path, 0o700)
                return path
        return f"@rankguard-{self._spec.run_id}"

    def _make_groups(self, ours: frozenset[int]) -> JobGroups:
        """Groups of the ranks, where they can be made; `ours` are the processes that are none."""
        run_id = self._spec.run_id
        for own in own_groups().values():  # told before they are made: we may be killed in between
            self._note(f"cgroup {own.path}/rankguard-{run_id}")
            self._note(f"cgroup {own.path}/rankguard-{run_id}.sup")
        groups = JobGroups.create(run_id, self._spec.nprocs, ours)
        for note in (*groups.made(), *groups.missing):
            self._files.append(story.note(note))
        return groups

    # ── The life of the job ──────────────────────────────────────────────────────────────────────────────────────

    def run(self, front: int, front_pid: int, warden: int) -> None:
        """From launch to verdict."""
        driver = self._driver
        watch = self._selector.register
        watch(self._signals, EVENT_READ, (URGENT, self._on_signals))
        watch(self._wire, EVENT_READ, (URGENT, self._on_message))
        owners = self._tree.shm_owners
        if owners is not None and owners.fileno() >= 0:
            watch(owners, EVENT_READ, (NEWS_ASIDE, owners.on_news))
        watch(front, EVENT_READ, (URGENT, lambda now: self._lost(front, FrontLost(now, front_pid))))
        watch(warden, EVENT_READ, (URGENT, lambda now: self._lost(warden, WardenLost(now, self._warden_pid))))
        if self._samples.fileno() >= 0:
            watch(self._samples, EVENT_READ, (URGENT, self._samples.on_news))
        gc.freeze()  # what has been loaded stays: no collection walks it while a rank dies
        driver.emit(JobStarted(clock(), self._wall, self._memory.state()))
        self._on_message(clock())  # what was asked while we started
        driver.run(self._idle)
        self._warm.close()
        now = clock()
        self._control.close()
        self._ranks.close(now)
        self._groups.remove()
        self._remove_private_dir()
        final = verdict(self._job.case().replace(now=now), __version__)
        self._screen.close()
        for console in self._consoles:
            if console is not None:
                console.flush_within(FLUSH_S)
        lost = [*self._output.finish(), *losses(self._consoles)]
        final = final.replace(warnings=(*final.warnings, *lost))
        known = self._files.error
        self._files.finish(final)
        if self._files.error is not None and known is None:  # it cannot be in the file that could not be written
            final = final.replace(warnings=(*final.warnings, self._files.error))
        self._wire.send({"is": "finished", "verdict": final.to_dict()})

    def _idle(self, now: float) -> float | None:
        """What was put off: each part does what is due."""
        if self._child_ended:  # what ranks left behind can wait for the news of ranks
            self._child_ended = False
            self._tree.reap_strays()
        for part in self._parts:
            part.wake(now)
        return min((at for at in (part.next_wake() for part in self._parts) if at is not None), default=None)

    def _pause(self, paused: bool, now: float) -> None:
        self._ranks.pause_output(paused)
        self._output.hold(paused, now)

    # ── News ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_signals(self, now: float) -> None:
        for received in self._signals.drain():
            if received.signal == signal.SIGCHLD:
                self._ranks.look_at_traced(now)
                self._child_ended = True
            else:
                self._on_signal(received, now)

    def _on_signal(self, received: Received, now: float) -> None:
        pid = received.sender.pid
        if pid is not None and self._ranks.complaint(pid, received.signal, now):
            return
        if received.signal == signal.SIGHUP and self._spec.ignore_hup:
            return
        if received.signal in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._driver.emit(StopRequested(now, received.signal, received.sender, to="supervisor"))

    def _on_message(self, now: float) -> None:
        self._desk.on_message(now)
        if self._desk.front_is_gone(now):
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._wire)

    def _lost(self, fd: int, fact: Fact) -> None:
        self._selector.unregister(fd)
        self._driver.emit(fact)

    def _on_payload(self, rank: int, payload: bytes | None, fd: int | None) -> None:
        self._desk.payload(rank, payload, fd)

    def _listen(self, told: Fact | Order) -> None:
        if isinstance(told, Tell) and told.what == "all-ready":
            self._tree.note()
        if isinstance(told, SignalAll) and told.ends and self._job.failed_at is not None:
            self._look_round().stopping()
        elif isinstance(told, Judged) and told.rank is not None:
            self._look_round().judged(told.rank)
        self._screen.listen(told)
        self._desk.listen(told)

    def _look_round(self) -> "Survey":
        if self._survey is None:
            from rankguard.supervisor.survey import Survey  # no start waits for it

            self._survey = Survey(
                self._job, self._spec, self._port, self._selector, NEWS_ASIDE, clock, self._driver.emit, self._redact
            )
            self._tree.wait_for(self._survey.busy, self._survey.close)
            self._parts.insert(0, self._survey)
        return self._survey

    def _warn(self, statement: str) -> None:
        self._driver.warn(statement)

    def _remove_private_dir(self) -> None:
        if self._private_dir is not None and not self._private_dir.startswith("@"):
            with contextlib.suppress(OSError):
                for name in os.listdir(self._private_dir):
                    os.unlink(f"{self._private_dir}/{name}")
                os.rmdir(self._private_dir)


def _master_port(spec: JobSpec) -> tuple[int, socket.socket | None]:
    """The port that is given, or a free one with what holds it. Raises `SpawnFailed`."""
    if spec.master_port is not None:
        return spec.master_port, None
    try:
        return ports.hold_free_port()
    except OSError as error:
        raise SpawnFailed(f"unable to choose a MASTER_PORT: {error}", hint="--master-port 29500") from error


class Part(Protocol):
    """What does its work now and then: `wake(now)` does what is due, `next_wake()` says when it wants to be called."""

    @property
    def wake(self) -> Callable[[float], None]: ...
    @property
    def next_wake(self) -> Callable[[], float | None]: ...
