"""One attempt at a job, from launch to verdict: the parts that live as long as it does, and the threads between them.

What lasts longer (the front's wire, the run's files, the consoles, a selector) is the `Ground` it stands on; with
`--max-restarts` one attempt follows another on it. Read next: `main.py` (the run), `../driver.py` (the loop),
`../launchers/exec.py` (the ranks), `tree.py` (how they end).
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from selectors import EVENT_READ
from typing import TYPE_CHECKING

from rankguard._version import __version__
from rankguard.core import story
from rankguard.core.job import Job
from rankguard.diagnosis.peers import peer_death
from rankguard.diagnosis.verdict import verdict
from rankguard.driver import URGENT, Driver
from rankguard.facts import (
    Degraded,
    Fact,
    JobStarted,
    Judged,
    OomSeen,
    StopRequested,
)
from rankguard.jobspec import Share
from rankguard.launchers.contract import Surroundings
from rankguard.launchers.exec import ExecRanks
from rankguard.launchers.masterport import master_port
from rankguard.linux.cgroup import JobGroups
from rankguard.linux.helper import AT_WORK
from rankguard.linux.hierarchies import groups_of, own_groups
from rankguard.linux.kmsg import KernelLog
from rankguard.linux.signals import Received
from rankguard.model import Attempt, Verdict
from rankguard.orders import Order, SignalAll, Tell
from rankguard.report.output import Output
from rankguard.report.redact import for_telling
from rankguard.supervisor import failopen
from rankguard.supervisor.ahead import Ahead
from rankguard.supervisor.desk import CANNOT_MISS, Desk
from rankguard.supervisor.failopen import Part, nothing, safe_output
from rankguard.supervisor.glimpses import Glimpses
from rankguard.supervisor.ground import Ground
from rankguard.supervisor.marked import Marked
from rankguard.supervisor.onscreen import OnScreen
from rankguard.supervisor.rehearsal import Rehearsal
from rankguard.supervisor.samples import Samples
from rankguard.supervisor.snapshots import PRIORITY as NEWS_ASIDE
from rankguard.supervisor.snapshots import Snapshots
from rankguard.supervisor.tree import JobTree
from rankguard.supervisor.wishes import Wishes
from rankguard.wire import Message

if TYPE_CHECKING:
    from rankguard.launchers.attached import AttachedTree
    from rankguard.launchers.watched import WatchedTree
    from rankguard.supervisor.examination import Examination
    from rankguard.supervisor.heldtree import HeldTree
    from rankguard.supervisor.readiness import Readiness
    from rankguard.supervisor.records import Records
    from rankguard.supervisor.survey import Survey

clock = time.monotonic


class LiveAttempt:
    """The parts of one attempt; `run` is its life, `close` lets go of all that it held. Raises `SpawnFailed`."""

    def __init__(self, ground: Ground, before: tuple[Attempt, ...]) -> None:
        self._ground = ground
        self._spec = spec = ground.spec.replace(attempt=len(before))
        self._files, self._selector = files, selector = ground.files, ground.selector
        self._wall, few = time.time(), ground.few_fds
        self.job = Job(for_telling(spec), before)
        self.wishes = Wishes(self.job, keeps=spec.keeps)
        self.port, self._port_lock = master_port(spec)
        if spec.watch is None:
            how = "given" if self._port_lock is None else "a free one"
            files.append(story.note(f"MASTER_PORT is {self.port}, {how}"))
        theirs = spec.watch is not None and spec.watch.attaches
        groups_before = groups_of((spec.watch and spec.watch.attached) or 0) if theirs else own_groups()
        self._groups = self._make_groups()
        self._screen = OnScreen(spec, ground.consoles, ground.on_terminal)
        self._output = Output(spec, self._screen.sinks, self._warn, few)
        told = safe_output(self._output, ground.consoles, ground.failopen)
        self._told = told if ground.uplink is None else ground.uplink.tee(told)
        self._said_error = self._child_ended = False
        self._survey: Survey | None = None
        self._records: Records | None = None
        guard = ground.failopen.part
        record = guard(failopen.JOURNAL, self._record, nothing)
        self.driver = Driver(self.job, selector, clock, record, self._listen, ground.awake)
        self.driver.spare = ground.failopen.spare
        self._kernel_log = KernelLog()
        self._around = around = Surroundings(
            spec=spec,
            port=self.port,
            private_dir=ground.private_dir,
            terminal=ground.terminal,
            warm=ground.warm,
            passed=ground.passed,
            groups=self._groups,
            kernel_log=self._kernel_log,
            memory=ground.memory,
            output=self._told,
            clock=clock,
            redact=ground.redact,
            peer_death=peer_death,
            note=lambda text: files.append(story.note(text)),
            on_payload=self._on_payload,
            keeper=ground.keeping,
        )
        self._readiness = self._make_readiness()
        emit = self.driver.emit if self._readiness is None else self._readiness.pass_on
        marked = Marked(emit, self._output.remarks.of, ground.redact)
        self._ranks, self._watched = self._make_ranks(around, marked.emit)
        heard_at = self._ranks.heard_at if self._watched is None else self._watched.heard_at
        self.desk = Desk(ground.wire, self.job, files, self.take, clock, heard_at, ground.heals)
        self.desk.asks |= self._screen.answer(
            Glimpses(self.job, ground.memory, heard_at, ground.wire.send), self._output
        )
        self._snapshots = Snapshots(self.job, files, selector, clock, ground.redact, ground.private_dir, ground.stacks)
        self._snapshots.tree = None if self._watched is None else self._watched.names
        self._tree = self._make_tree(few_fds=few)
        if self._tree.cleaned:
            from rankguard.report.wording import cleaned  # no start waits for it that has nothing to clean

            self._warn(cleaned(self._tree.cleaned))
        self.driver.launcher, self.driver.tree = self._watched or self._ranks, self._tree
        if self._watched is not None:
            self._tree.wait_for(self._watched.busy)
        self.driver.examine = guard("the look at a stall", self.examine, self.driver.examine)
        self.driver.muster = guard("the look at a collective", self._muster, self.driver.muster)
        self.desk.later["stacks"] = guard("stacks", self._snapshots.ask, nothing)
        self._samples = Samples(
            self.job,
            ground.memory,
            files,
            clock,
            self.driver.emit,
            self._groups,
            groups_before,
            course=ground.course,
            heard_at=heard_at,
            few_fds=few,
        )
        self.desk.sampled = guard(failopen.SAMPLES, self._samples.told, dict)
        self.driver.remember = guard(failopen.SAMPLES, self._samples.remember, self.driver.remember)
        self._ahead: Ahead | None = None
        if ground.last_word.path is not None:
            self._ahead = Ahead(ground.last_word, self.job, clock)
            self._samples.nearing, self.desk.judged = self._ahead.near, self._ahead.judged
        self._listeners = self._make_listeners()
        self._parts = self._make_parts()
        if ground.uplink is not None:
            ground.uplink.serve(self)

    def begin(self, share: Share, master_addr: str, master_port: int) -> None:
        """The ranks of this node's part may start: all nodes are there, and which ranks these are is known."""
        spec = self._spec.replace(share=share, master_addr=master_addr, master_port=master_port)
        first, last = share.first_rank, share.first_rank + spec.nprocs - 1
        said = f"node {share.node} of {share.count}: ranks {first} to {last} of {share.world_size}"
        self._files.append(story.note(f"{said}; MASTER_ADDR is {master_addr}, MASTER_PORT {master_port}"))
        self._spec = spec
        if isinstance(self._ranks, ExecRanks):
            self._ranks.release(self._around.replace(spec=spec, port=master_port))

    def sampled(self) -> Message:
        """What the ranks held when they were looked at last."""
        return self._samples.told()

    def _make_ranks(
        self, around: Surroundings, emit: Callable[[Fact], None]
    ) -> "tuple[ExecRanks | AttachedTree, WatchedTree | AttachedTree | None]":
        """The launcher of ranks, and under `rankguard watch` that of the tree."""
        plan = self._spec.watch
        if plan is None:
            return ExecRanks(around, self._selector, emit), None
        from rankguard.supervisor.naming import naming  # what only a watch needs

        if plan.attaches:
            from rankguard.launchers.attached import AttachedTree

            found = AttachedTree(around, self._selector, emit=self.driver.emit, naming=naming(plan))
            return found, found
        from rankguard.launchers.watched import WatchedTree

        watched = WatchedTree(
            around,
            self._selector,
            from_root=emit,
            from_tree=Marked(self.driver.emit, lambda _rank: self._output.remarks.of(0), self._ground.redact).of_engine,
            naming=naming(plan),
            heir=os.getpid(),
            spare=lambda: self._tree.spared | AT_WORK,
            dropped=lambda error: self._ground.failopen.drop(failopen.TREE, error),
        )
        watched.ranks = ExecRanks(around, self._selector, watched.from_root)
        return watched.ranks, watched

    def _make_tree(self, *, few_fds: bool) -> "JobTree | HeldTree":
        ranks, others = self._ranks, self._beside
        if not isinstance(ranks, ExecRanks):
            from rankguard.supervisor.heldtree import HeldTree

            return HeldTree(ranks, self._close_helpers, others)
        return JobTree(
            self.job,
            self._wall,
            self._groups,
            ranks,
            self._ground.warm,
            self._close_helpers,
            others,
            few_fds=few_fds,
            earlier=self._ground.pids,
        )

    def _beside(self) -> frozenset[int]:
        """Children of ours that are no part of the job, and outlive the attempt."""
        return frozenset().union(*(each.pids for each in (self._ground.page, self._ground.uplink) if each is not None))

    def _make_listeners(self) -> list[Callable[[Fact | Order], object]]:
        """Who is told of each fact and order once it is done; each can be done without."""
        guard, name = self._ground.failopen.part, "the look round at a failure"
        asks = self.desk.asks
        asks |= {ask: guard(f"`{ask}`", asks[ask], lambda *_args: None) for ask in asks.keys() - CANNOT_MISS}
        return [
            guard("leftovers", self._note_leftovers, nothing),
            guard(failopen.PAGE, self._wake_page, nothing),
            guard(name, self._look_round_at, nothing),
            guard("the live view", self._screen.listen, nothing),
            guard("the last word ahead", self._ahead.listen, nothing) if self._ahead is not None else nothing,
            guard(failopen.DESK, self.desk.listen, nothing),
            guard("the other nodes", self._ground.uplink.listen, nothing)
            if self._ground.uplink is not None
            else nothing,
        ]

    def _make_parts(self) -> list[Part]:
        """What the parts say is shown first, then what is shown is written."""
        ground = self._ground
        parts: list[Part] = [self._snapshots, *self._on_demand(), self._samples]
        parts += [self._output, self._screen, ground.reading, Rehearsal(self.job), *self._page_s_part()]
        return [*parts, ground.uplink] if ground.uplink is not None else parts

    def _on_demand(self) -> "Iterator[Part]":
        """Parts that most jobs do without."""
        if self._tree.shm_owners is not None:
            yield self._tree.shm_owners
        if self._spec.stall_timeout is not None:
            yield self._examination
        if self._readiness is not None:
            yield self._readiness

    def _make_readiness(self) -> "Readiness | None":
        plan = self._spec.watch
        if plan is None or not plan.probed:
            return None
        from rankguard.supervisor.readiness import Readiness  # no other start waits for it

        found = Readiness(self.job, plan, self._selector, self.driver.emit, self._ground.redact, self._pids)
        take = self._ground.failopen.part(failopen.READINESS, found.take, nothing)
        self._output.seen = take if plan.ready_log else None
        return found

    def _pids(self) -> dict[int, int]:
        """Of the engine: whoever is one of these, or below one."""
        ours = {} if self._watched is None or self.job.attached else {os.getpid(): 0}
        return dict.fromkeys(self._watched.names() if self._watched is not None else (), 0) | ours

    @cached_property
    def _examination(self) -> "Examination":
        from rankguard.supervisor.examination import Examination  # no start without a stall timeout waits for it

        uplink, signs = self._ground.uplink, self._ranks.signs
        emit = self.driver.emit
        if uplink is not None and self._spec.shown_elsewhere:
            emit = uplink.tell  # what it means is for whoever has all ranks to say
        return Examination(self.job, self._snapshots, signs, emit, self._ground.redact)

    def examine(self, number: int, now: float) -> None:
        """What all ranks are doing, as `Examined`."""
        if self._examination not in self._parts:  # somebody was not ready in time
            self._parts.insert(0, self._examination)
        if self._watched is not None:
            self._watched.tell_unreaped(now)
        self._examination.begin(number, now)

    def _close_helpers(self) -> None:
        """Programs of ours are no part of the job's tree."""
        self._snapshots.close()
        for helped in (self._records, self._readiness):
            if helped is not None:
                helped.close()

    def _muster(self, spoken: tuple[int, ...], now: float) -> None:
        from rankguard.supervisor.muster import Muster  # no start waits for it
        from rankguard.supervisor.records import Records

        remarks, redact = self._output.remarks.of, self._ground.redact
        records = self._records = Records(self._spec, self._selector, self._wall)
        muster = Muster(self.job, self._snapshots, records, self._ranks.signs, remarks, self.driver.emit, redact)
        self._parts.insert(0, muster)
        muster.begin(spoken, now)

    # ── What others must know of if we are killed ────────────────────────────────────────────────────────────────

    def _record(self, fact: Fact, orders: tuple[Order, ...]) -> None:
        """Every fact and order is on its way to the disk before it is acted on."""
        self._files.append(story.lines(fact, orders))
        if self._files.error is not None and not self._said_error:
            self._said_error = True
            self._warn(self._files.error)

    def _make_groups(self) -> JobGroups:
        """Groups of the ranks, where they can be made."""
        run_id, plan = self._spec.run_id, self._spec.watch
        if plan is not None and plan.attaches:
            return JobGroups(f"rankguard-{run_id}", 0, frozenset(), {})  # whose group it is in is not ours to choose
        for own in own_groups().values():  # told before they are made: we may be killed in between
            self._ground.note(f"cgroup {own.path}/rankguard-{run_id}")
            self._ground.note(f"cgroup {own.path}/rankguard-{run_id}.sup")
        ours = self._ground.ours | self._beside()
        groups = JobGroups.create(run_id, self._spec.nprocs, ours)
        for note in (*groups.made(), *groups.missing):
            self._files.append(story.note(note))
        return groups

    # ── Its life ─────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, carried: Iterable[Fact] = ()) -> Verdict:
        """From launch until nothing is left of it. `carried`: what was said in an earlier attempt and still holds."""
        watch, owners = self._selector.register, self._tree.shm_owners
        if owners is not None and owners.fileno() >= 0:
            watch(owners, EVENT_READ, (NEWS_ASIDE, owners.on_news))
        if self._samples.fileno() >= 0:
            watch(self._samples, EVENT_READ, (URGENT, self._samples.on_news))
        self.driver.emit(JobStarted(clock(), self._wall, self._ground.memory.state()))
        for fact in carried:
            self.take(fact)
        if self._ground.reading.paused:
            self.pause(True, clock())
        self.desk.on_message(clock())  # what was asked while we started
        self.driver.run(self.idle)
        now = clock()
        self._ranks.close(now)
        self._groups.remove()
        final = verdict(self.job.case().replace(now=now), __version__)
        self._screen.close()
        lost = self._output.finish()
        return final.replace(warnings=(*final.warnings, *lost))

    @property
    def lasted_s(self) -> float:
        """From its launch to the end of its last rank."""
        return max(0.0, (self.job.ended_at or self.job.now) - (self.job.started_at or self.job.now))

    def close(self) -> None:
        """What another attempt makes anew."""
        owners = self._tree.shm_owners
        for watched in (self._samples, *(() if owners is None else (owners,))):
            if watched.fileno() >= 0:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(watched)
        self._samples.close()
        if owners is not None:
            owners.close()
        self._kernel_log.close()
        if self._port_lock is not None:
            self._port_lock.close()
        self._ground.pids.update(rank.pid for rank in self.job.ranks if rank.pid is not None)

    def idle(self, now: float) -> float | None:
        """What was put off: each part does what is due."""
        if self._child_ended:  # what ranks left behind can wait for the news of ranks
            self._child_ended = False
            self._tree.reap_strays()
        return self._ground.failopen.wake(self._parts, now, needed=self._ground.reading)

    def pause(self, paused: bool, now: float) -> None:
        """Leave what the ranks print in their pipes, or read on."""
        self._ranks.pause_output(paused)
        self._output.hold(paused, now)

    # ── News ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, fact: Fact) -> None:
        """A fact from outside the job, for the core; what concerns further attempts is remembered."""
        self.wishes.note(fact)
        if self.job.finished and self._ground.uplink is not None:
            self._ground.uplink.listen(fact)  # the other nodes have not ended yet
        self.driver.emit(fact)

    def on_child(self, now: float) -> None:
        """SIGCHLD has come."""
        self._ranks.look_at_traced(now)
        if self._watched is not None:
            self._watched.on_child()
        self._child_ended = True

    def on_signal(self, received: Received, now: float) -> None:
        """A signal from a rank is a fact about that rank; others ask us to end."""
        pid = received.sender.pid
        if pid is not None and self._ranks.complaint(pid, received.signal, now):
            return
        if received.signal == signal.SIGHUP and self._spec.ignore_hup:
            return
        if received.signal in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.take(StopRequested(now, received.signal, received.sender, to="supervisor"))

    def _on_payload(self, rank: int, payload: bytes | None, fd: int | None) -> None:
        self.desk.payload(rank, payload, fd)
        if self._ground.uplink is not None:
            self._ground.uplink.payload(rank, payload, fd)

    def _listen(self, told: Fact | Order) -> None:
        for listener in self._listeners:
            listener(told)

    def _note_leftovers(self, told: Fact | Order) -> None:
        if isinstance(told, Tell) and told.what == "all-ready":
            self._tree.note()
        if isinstance(told, OomSeen) and self._watched is not None:
            self._watched.on_oom(clock())

    def _page_s_part(self) -> "Iterator[Part]":
        page = self._ground.page
        if page is not None:
            page.warn, page.sampled = self._warn, self._samples.told
            page.gone = lambda said: self.driver.emit(Degraded(clock(), failopen.PAGE, said))
            yield page

    def _wake_page(self, told: Fact | Order) -> None:
        if isinstance(told, SignalAll) and told.ends and self._ground.page is not None:
            self._ground.page.wake(clock())  # who asks is told at once: finding out why takes longer

    def _look_round_at(self, told: Fact | Order) -> None:
        if isinstance(told, SignalAll) and told.ends and self.job.failed_at is not None:
            self._look_round().stopping()
        elif isinstance(told, Judged) and told.rank is not None:
            self._look_round().judged(told.rank)

    def _look_round(self) -> "Survey":
        if self._survey is None:
            from rankguard.supervisor.survey import Survey  # no start waits for it

            redact, emit = self._ground.redact, self.driver.emit
            self._survey = Survey(self.job, self._spec, self.port, self._selector, NEWS_ASIDE, clock, emit, redact)
            self._tree.wait_for(self._survey.busy, self._survey.close)
            self._parts.insert(0, self._survey)
        return self._survey

    def _warn(self, statement: str) -> None:
        self.driver.warn(statement)
