"""The supervisor: the process that is every rank's parent, from the front's first message to the verdict.

Forked by the warden before anything was loaded (`../warden.py`); single-threaded; subreaper. What a run has as a whole
is made here, and each attempt at the job (`attempt.py`) stands on it; mostly there is one. The only one that writes the
run's files. It never blocks on the front, on a reader of the ranks' output or on a rank.
Read next: `attempt.py`, `../driver.py` (the loop), `restarts.py` (once more?), `../client.py` (the front).
"""

import contextlib
import gc
import itertools
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from selectors import EVENT_READ, EpollSelector
from typing import TYPE_CHECKING, Any

from rankguard.core import story
from rankguard.driver import URGENT
from rankguard.errors import SpawnFailed
from rankguard.facts import Degraded, Fact, FrontLost, WardenLost
from rankguard.jobspec import JobSpec
from rankguard.launchers.limits import ensure_fds
from rankguard.launchers.terminal import Terminal
from rankguard.launchers.warmstart import WarmStart
from rankguard.linux import lock
from rankguard.linux.awake import Awake
from rankguard.linux.files import devnull
from rankguard.linux.libc import ALL_SIGNALS, become_subreaper, set_name
from rankguard.linux.memory import MemoryDomain
from rankguard.linux.signals import SignalQueue
from rankguard.model import Verdict
from rankguard.private import CONTROL, PREFIX, private_parents
from rankguard.record import from_data
from rankguard.report.files import RunFiles
from rankguard.report.redact import for_telling, job_redactor
from rankguard.report.terminationlog import TerminationLog
from rankguard.report.unkept import say_unkept
from rankguard.supervisor.attempt import LiveAttempt
from rankguard.supervisor.backpressure import Backpressure
from rankguard.supervisor.consoles import consoles, losses, terminal_of
from rankguard.supervisor.control import Control
from rankguard.supervisor.failopen import DEAF, DESK, FailOpen
from rankguard.supervisor.ground import Ground
from rankguard.supervisor.memorylog import MemoryLog
from rankguard.wire import Message, Wire

if TYPE_CHECKING:
    from rankguard.launchers.fleet import Fleet
    from rankguard.model import Attempt
    from rankguard.supervisor.failopen import Part
    from rankguard.supervisor.keeping import Keeping
    from rankguard.supervisor.nodes.uplink import Uplink
    from rankguard.supervisor.nodes.watchlink import WatchLink
    from rankguard.supervisor.nodes.world import WorldAttempt
    from rankguard.supervisor.page import Page
    from rankguard.supervisor.restarts import Restarter

clock = time.monotonic
FLUSH_S = 2.0
IDLE_S = 60.0
"""The longest sleep while all that is awaited is news."""


def main(control: int, front: int, front_pid: int, warden: int, tell: int) -> None:
    """Run one job; the process ends here. Called in the warden's child."""
    set_name("rankguard-sup")
    become_subreaper()
    signals = SignalQueue(ALL_SIGNALS)
    wire = Wire(socket.socket(fileno=control))
    supervisor = None
    try:
        message, fds = _first_message(wire, front)
        ours = frozenset({os.getpid(), os.getppid(), *([front_pid] if message["front_is_ours"] else ())})
        supervisor = Supervisor(wire, signals, from_data(JobSpec, message["spec"]), fds, ours, tell, front_pid)
        supervisor.run(front, warden)
        code = 0
    except SpawnFailed as error:
        told = {"statement": error.statement, "errno": error.errno, "hint": error.hint, "code": error.exit_code}
        wire.send({"is": "spawn-failed"} | told)
        code = 0
    except BaseException:  # noqa: BLE001  # whatever it was, it has to be told
        from traceback import format_exc

        # The warden ends whatever is left, or keeps it; the front says what happened.
        text = format_exc()
        if supervisor is not None:
            with contextlib.suppress(Exception):
                supervisor.last_words()
        wire.send({"is": "bug", "text": text})
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
    """One run: what its attempts have in common. `run` is its life."""

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
        few_fds = not ensure_fds(
            spec.nprocs if spec.nodes is None else 2 * spec.nodes.count, page=spec.http is not None
        )
        self._wire, self._signals, self._tell = wire, signals, tell
        self._warden_pid, self._front_pid = os.getppid(), front_pid
        self._keeping: Keeping | None = None
        self._unkept: list[str] = []
        keep = spec.on_lost == "keep"
        self._failopen = FailOpen(self._on_fault, keep=keep)
        stdin, out, err, *passed = fds
        keeping = self._make_keeping(spec, out, err) if spec.keeps else None
        self._files = files = RunFiles(spec.run_dir, lock.hold)
        if files.folder is None:  # two runs never share one
            spec = spec.replace(run_dir=None)
        self._redactor = redactor = job_redactor(spec)
        self._run_id = spec.run_id
        self._selector = EpollSelector()
        self._page = self._make_page(spec, passed.pop(0), files) if spec.http is not None else None
        terminal = Terminal(spec, (stdin, out, err), front_pid)
        self._consoles = consoles(spec, out, err)
        on_terminal = terminal_of(err) is not None
        for fd in (out, err):
            os.close(fd)
        if spec.verbose:
            files.readers.append(lambda text: wire.send({"is": "journal", "text": text}))
        files.append(story.first_line(for_telling(spec, redactor)))
        say_unkept(spec)
        self._private_dir = self._make_private_dir()
        self._reading = Backpressure(self._selector, self._consoles, wire, self._on_message, self._pause)
        self._restarter = self._make_restarter(spec)
        self._warm = WarmStart(spec, self._note_in_journal, redactor.text)
        self._last_word = TerminationLog(spec.termination_log, redactor.text)
        self._uplink = self._make_uplink(spec)
        self._fleet = self._make_fleet(spec)
        self._course = MemoryLog(files, spec.nprocs, few_fds=few_fds)
        if self._page is not None:
            self._course.tell = self._page.look
            self._page.aside(rules=redactor.rules())
        self._ground = Ground(
            spec=spec,
            wire=wire,
            files=files,
            selector=self._selector,
            consoles=self._consoles,
            on_terminal=on_terminal,
            terminal=terminal,
            passed=tuple(passed),
            private_dir=self._private_dir,
            memory=MemoryDomain(),
            redact=redactor.text,
            ours=ours,
            few_fds=few_fds,
            note=self._note,
            reading=self._reading,
            warm=self._warm,
            awake=Awake(),
            stacks=itertools.count(1),
            pids=set(),
            last_word=self._last_word,
            heals=self._heals,
            failopen=self._failopen,
            keeping=keeping,
            page=self._page,
            uplink=self._uplink,
            fleet=self._fleet,
            course=self._course,
        )
        self._attempt = self._make_attempt(())
        self._control = Control(self._private_dir, self._selector, self._ask, few_fds=few_fds)
        if self._control.error is None:
            files.link(CONTROL, self._control.address)
        else:
            files.append(story.note(self._control.error))

    def _make_uplink(self, spec: JobSpec) -> "Uplink | WatchLink | None":
        """To the coordinator of a job that is on several machines."""
        if spec.share is None:
            return None
        if spec.watch is not None:
            from rankguard.supervisor.nodes.watchlink import WatchLink

            return WatchLink(spec, self._selector, clock, self._told)
        from rankguard.supervisor.nodes.uplink import Uplink  # no start on one machine waits for it

        return Uplink(spec, self._selector, clock, self._tell_joining)

    def _make_fleet(self, spec: JobSpec) -> "Fleet | None":
        """The nodes of such a job, in its coordinator."""
        if spec.nodes is None:
            return None
        from rankguard.launchers.fleet import Fleet

        return Fleet(spec, self._selector, clock, self._tell_joining)

    def _tell_joining(self, text: str) -> None:
        self._told("joining", text)

    def _told(self, what: str, text: str) -> None:
        """Of other nodes: who has joined, a warning (`note`)."""
        self._wire.send({"is": "told", "what": what, "rank": None, "text": text})
        self._note_in_journal(text)

    def _make_attempt(self, before: "tuple[Attempt, ...]") -> "LiveAttempt | WorldAttempt":
        if self._fleet is None:
            return LiveAttempt(self._ground, before)
        from rankguard.supervisor.nodes.world import WorldAttempt

        return WorldAttempt(self._ground, before)

    def _make_page(self, spec: JobSpec, listening: int, files: RunFiles) -> "Page":
        from rankguard.supervisor.page import Page  # no start without `--http` waits for it

        assert spec.http is not None
        return Page(listening, spec.http, files, self._selector)

    def _make_keeping(self, spec: JobSpec, out: int, err: int) -> "Keeping":
        """From here on front and warden keep what is started."""
        from rankguard.supervisor.keeping import Keeping  # no start without `--on-lost keep` waits for it

        null = devnull()
        shown = {"prefix": (out, err), "stderr": (err, err), "none": (null, null)}[spec.console]
        self._keeping = Keeping(self._wire, self._tell, shown, spec.grace, self._unkept.append)
        os.close(null)
        return self._keeping

    def _make_restarter(self, spec: JobSpec) -> "Restarter | None":
        if not spec.max_restarts or spec.share is not None:  # of all nodes at once, when the coordinator says so
            return None
        from rankguard.supervisor.restarts import Restarter  # no start without restarts waits for it

        return Restarter(spec, self._files, self._wire)

    # ── What others must know of if we are killed ────────────────────────────────────────────────────────────────

    def _note_in_journal(self, text: str) -> None:
        self._files.append(story.note(text))

    def _note(self, line: str) -> None:
        """What the warden is to remove if we cannot."""
        if self._keeping is not None:
            self._keeping.note(line)
        with contextlib.suppress(OSError):
            os.write(self._tell, f"{line}\n".encode(errors="surrogateescape"))

    def _make_private_dir(self) -> str:
        """A short private folder for the notify sockets: AF_UNIX paths end at 107 bytes, and run folders may be on NFS."""
        for parent in private_parents():
            path = f"{parent}/{PREFIX}{self._run_id}"
            self._note(f"folder {path}")
            with contextlib.suppress(OSError):
                os.mkdir(path, 0o700)
                return path
        return f"@rankguard-{self._run_id}"

    def _remove_private_dir(self) -> None:
        if not self._private_dir.startswith("@"):
            with contextlib.suppress(OSError):
                for name in os.listdir(self._private_dir):
                    os.unlink(f"{self._private_dir}/{name}")
                os.rmdir(self._private_dir)

    # ── The life of the run ──────────────────────────────────────────────────────────────────────────────────────

    def run(self, front: int, warden: int) -> None:
        """From launch to verdict."""
        watch = self._selector.register
        watch(self._signals, EVENT_READ, (URGENT, self._on_signals))
        watch(self._wire, EVENT_READ, (URGENT, self._on_message))
        watch(front, EVENT_READ, (URGENT, lambda now: self._lost(front, FrontLost(now, self._front_pid))))
        watch(warden, EVENT_READ, (URGENT, lambda now: self._lost(warden, WardenLost(now, self._warden_pid))))
        gc.freeze()  # what has been loaded stays: no collection walks it while a rank dies
        for statement in self._unkept:
            self._attempt.driver.warn(statement)
        final = self._attempt.run()
        if self._restarter is not None:
            final = self._go_on(final, self._restarter)
        if self._uplink is not None:
            final = self._end_with_all(final, self._uplink)
        if self._fleet is not None:
            self._fleet.finish(final.to_dict())
        self._warm.close()
        self._control.close()
        self._remove_private_dir()
        for console in self._consoles:
            if console is not None:
                console.flush_within(FLUSH_S)
        final = final.replace(warnings=(*final.warnings, *losses(self._consoles)))
        final = self._with_unwritten(final)
        self._course.close()
        self._files.finish(final)
        self._last_word.write(lambda theirs: _last_word_of(final, theirs))
        if self._uplink is not None:
            self._uplink.close()
        # What went wrong just now cannot be in what could not be written.
        told = self._with_unwritten(final).to_dict()
        if self._page is not None:
            self._page.finish(told)
        self._wire.send({"is": "finished", "verdict": told})
        self._wire.flush()
        if final.outcome == "failed":
            self._keep_tails(final)
        if self._page is not None:
            self._page.close()
        if self._fleet is not None:
            self._fleet.close()

    def _end_with_all(self, final: Verdict, uplink: "Uplink | WatchLink") -> Verdict:
        """Our node is done: another attempt when the coordinator says so, and in the end the verdict of the whole job."""
        failed: tuple[Attempt, ...] = ()
        while uplink.lost is None and uplink.final is None:
            uplink.done(self._attempt.job, final)
            while uplink.waits:
                self._turn(clock() + IDLE_S, uplink, goes_on=lambda: uplink.waits)
            if uplink.again:
                from rankguard.supervisor.restarts import attempt_of

                failed = (*failed, attempt_of(final, len(failed), self._attempt.lasted_s))
                self._attempt.close()
                self._attempt = self._make_attempt(failed)
                final = self._attempt.run()
        return uplink.final or uplink.alone(final, self._attempt.job)

    def _keep_tails(self, final: Verdict) -> None:
        from rankguard.supervisor.tails import keep_tails  # no start waits for it

        with contextlib.suppress(Exception):  # it is a comfort, and all else is done
            keep_tails(self._files, self._attempt.job, final, self._ground.redact)

    def _with_unwritten(self, final: Verdict) -> Verdict:
        """What could not be written, of the run's files and of the last word."""
        told = (self._files.error, self._last_word.error)
        new = tuple(error for error in told if error is not None and error not in final.warnings)
        return final.replace(warnings=(*final.warnings, *new))

    def _go_on(self, final: Verdict, restarter: "Restarter") -> Verdict:
        """Attempt after attempt, until one does not fail or is the last; its verdict."""
        while final.outcome == "failed":
            before = self._attempt
            delay = restarter.after(final, before.wishes.last, before.lasted_s)
            if delay is not None:
                self._tell_page(resting=f"{final.statement}; all ranks are started again")
                self._rest(delay)
                if before.wishes.asked_to_end is None:
                    restarter.begin()
                else:
                    restarter.give_up("it was asked to end before it was started again")
            if restarter.given_up is not None:
                self._tell_page(given_up=True, resting=None)
                final = final.replace(not_restarted=restarter.given_up)
                break
            before.close()
            self._tell_page(heals=None, resting=None)
            try:
                self._attempt = self._make_attempt(restarter.failed)
            except SpawnFailed as error:
                final = final.replace(not_restarted=f"it could not be: {error.statement}")
                break
            final = self._attempt.run(before.wishes.carried())
        return restarter.with_what_is_left(final)

    def _heals(self, failed: Verdict) -> bool:
        heals = (
            self._restarter is not None and self._attempt.wishes.last is None and self._restarter.heals(failed, clock())
        )
        self._tell_page(heals=heals)
        return heals

    def _tell_page(self, **told: Any) -> None:
        if self._page is not None:
            self._page.aside(**told)

    def _rest(self, seconds: float) -> None:
        """Between two attempts: answer the front, write what is shown, end the rest when asked to end."""
        until = clock() + seconds
        if self._page is not None:
            self._page.warn = self._page.gone = self._page.note
        while self._attempt.wishes.asked_to_end is None and clock() < until:
            self._turn(until, self._fleet)

    def _turn(self, until: float, *parts: "Part | None", goes_on: Callable[[], bool] = lambda: True) -> None:
        """One turn of the loop while no attempt runs, until there is news or something is due, or what was due ends it."""
        now, due = clock(), [until]
        for part in (self._reading, self._page, *parts):
            if part is not None:
                part.wake(now)
                due += [at for at in (part.next_wake(),) if at is not None]
        if not goes_on():
            return
        news = self._selector.select(max(0.0, min(due) - now))
        for key, _events in sorted(news, key=lambda entry: entry[0].data[0]):
            key.data[1](clock())

    def _on_fault(self, part: str, statement: str, details: str) -> None:
        """A part of ours is switched off: told in the journal and on stderr, as far as these work."""
        with contextlib.suppress(Exception):
            self._files.append(story.note(details))
        self._attempt.driver.emit(Degraded(clock(), part, statement, DEAF.get(part, ())))
        if DESK in self._failopen.off or self._wire.closed:
            self._say(statement)

    def _say(self, statement: str) -> None:
        """Nobody else can."""
        console = self._consoles[1]
        if console is not None:
            console.write(f"rankguard: warning: rankguard degraded: {statement}\n".encode(errors="replace"))

    def last_words(self) -> None:
        """We are about to end, and the engine goes on: what it has printed by now is shown before what follows."""
        for console in self._consoles:
            if console is not None:
                console.flush_within(FLUSH_S)

    # ── News ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_signals(self, now: float) -> None:
        for received in self._signals.drain():
            if received.signal == signal.SIGCHLD:
                self._attempt.on_child(now)
            else:
                self._attempt.on_signal(received, now)

    def _on_message(self, now: float) -> None:
        self._attempt.desk.on_message(now)
        if self._attempt.desk.front_is_gone(now, self._front_pid):
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._wire)

    def _ask(self, message: Message, now: float, reply: Callable[[Message], None]) -> None:
        """Of another terminal, whose user is ours."""
        if message["do"] == "rules":  # for a page that it makes of the files of ranks
            reply({"is": "rules", "rules": self._redactor.rules()})
            return
        self._attempt.desk.ask(message, now, reply)

    def _lost(self, fd: int, fact: Fact) -> None:
        self._selector.unregister(fd)
        if isinstance(fact, FrontLost) and self._keeping is not None:
            self._say("the front was lost; the engine is kept (--on-lost keep), and nobody is left to answer to")
        self._attempt.take(fact)

    def _pause(self, paused: bool, now: float) -> None:
        self._attempt.pause(paused, now)


def _last_word_of(final: Verdict, theirs: bytes) -> bytes:
    from rankguard.report.termination import of_verdict  # no start waits for it

    return of_verdict(final, theirs)
