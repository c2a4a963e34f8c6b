"""When the supervisor is gone and the engine is to be kept (`--on-lost keep`): what `tini` does, in the front.

Signals go to the engine, its output to where it went, its exit status becomes ours; nothing is watched any more. The
warden, which is the engine's parent then, reaps it and writes down how it ended; without a warden we are the parent, as
the next subreaper above. An engine that had not been started yet is started, with our own streams.
Read next: `../../warden.py`, `../../supervisor/keeping.py`, docs/decisions/0013-fail-open.md.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from rankguard.cli.front.signals import Signals
from rankguard.client import GONE_S, Client
from rankguard.jobspec import JobSpec
from rankguard.keep import SLOT, Slots
from rankguard.kept import Ends, Told, verdict_of_kept
from rankguard.linux import spawn, tree
from rankguard.linux.console import Console
from rankguard.linux.libc import ALL_SIGNALS
from rankguard.model import Verdict
from rankguard.warden import remove
from rankguard.wire import Message

_READ = 64 << 10
_SETTLE_S = 0.05
FLUSH_S = 5.0
"""For a reader that does not read."""


class Kept:
    """What the front holds while all is well, in case that it has to go on alone."""

    def __init__(self) -> None:
        self.slots: Slots | None = None
        self.pipes: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self.told = Told()
        """What is known of the job that its journal may not tell."""

    def take(self, message: Message, fds: Sequence[int]) -> bool:
        """Whether this message, and what came with it, was for us."""
        if message["is"] == "kept" and message["what"] == "slots" and fds:
            self.slots = Slots(fds[0])
        elif message["is"] == "kept" and len(fds) == 2:
            self.pipes.append((fds[0], fds[1]))
        elif message["is"] == "note":
            self.notes.append(message["text"])
        else:
            return False
        return True

    def hear(self, message: Message) -> None:
        """What the supervisor told of the job."""
        if message["is"] != "told":
            return
        now = time.monotonic()
        if message["what"] == "stopping":
            self.told.stopping = True
        elif message["what"] == "failed":
            self.told.failed, self.told.failed_at = message["text"] or "a failure", now
        elif message["what"] == "judged":
            self.told.failure = Verdict.from_dict(message["verdict"])

    def pids(self) -> set[int]:
        """Of what was started and has not ended."""
        if self.slots is None:
            return set()
        return {pid for at, pid in self.slots.pids().items() if self.slots.status(at) is None}


class Keeper:
    """Of one engine. `run` is its life; it takes what `Signals` asks of a client. `say` writes a line of ours."""

    def __init__(
        self,
        spec: JobSpec,
        kept: Kept,
        client: Client | None,
        signals: Signals,
        consoles: tuple[Console, Console],
        say: Callable[[str], None],
    ) -> None:
        self._spec, self._kept, self._client, self._signals, self._say = spec, kept, client, signals, say
        out, err = consoles
        shown = {"prefix": (out, err), "stderr": (err, err)}.get(spec.console)
        self._pipes: dict[int, Console | None] = {}
        for pair in kept.pipes:
            for fd, console in zip(pair, shown or (None, None), strict=True):
                os.set_blocking(fd, False)
                self._pipes[fd] = console
        self._consoles = tuple(dict.fromkeys(consoles))
        self._asked = client.asked if client is not None else []
        self._orphans = client is None
        """The warden is gone: what is left of the engine is ours."""
        self._pidfds: dict[int, int] = {}
        self._kill_at: float | None = None
        self._ended_at: float | None = None
        self._interrupts = sum(number == signal.SIGINT for _at, number, _sender in self._asked)
        self._suspended = False

    # ── Its life ─────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, why: str, bug: str | None, *, at_once: bool = False) -> Verdict:
        """Until the engine has ended and nothing of it is left. `why` our supervisor is gone; `at_once`: end it."""
        told = self._kept.told
        if self._started():
            self._say(f"warning: {why}; the engine is kept (--on-lost keep), and nothing is watched any more")
            self._catch_up(at_once=at_once)
            self._loop()
        else:
            why += "; the engine was started without being watched"
            self._say(f"warning: {why} (--on-lost keep)")
            if not self._asked:
                self._begin()
                self._loop()
        told.why, told.bug = why, bug
        return verdict_of_kept(self._spec, self._endings(), told)

    def _started(self) -> bool:
        """The warden waits for one that is being born, so it is asked by its end."""
        until = time.monotonic() + GONE_S
        while not self._kept.pids() and not self._ended() and self._client is not None and time.monotonic() < until:
            if self._client.wait_gone(_SETTLE_S):
                self._orphans = True
                break
        for _ in range(20):  # a child of nobody but us, which writes its pid in a moment
            if self._orphans:
                self.reap()
            if self._kept.pids() or self._ended() or not tree.children(os.getpid()):
                break
            time.sleep(_SETTLE_S)
        return bool(self._kept.pids()) or self._ended()

    def _ended(self) -> bool:
        slots = self._kept.slots
        return slots is not None and bool(slots.pids()) and slots.all_ended()

    def _catch_up(self, *, at_once: bool) -> None:
        """What was asked before, and may not have reached the engine; clocks that ran go on."""
        for pid in self._kept.pids():
            with contextlib.suppress(OSError):
                self._pidfds[pid] = os.pidfd_open(pid)
        told, asked = self._kept.told, self._asked
        if asked:
            first, number, sender = asked[0]
            told.asked = (first, number, sender)
            if not told.stopping:
                self._send(number)
            self._run_out(first, self._spec.shutdown_timeout)
        elif told.failed_at is not None:
            self._run_out(told.failed_at, self._spec.grace)
        if at_once or self._interrupts > 1:
            self._kill_at = time.monotonic()

    def _begin(self) -> None:
        """Start what nobody has started. Where even that cannot be, the engine takes our place."""
        try:
            self._start()
        except OSError as error:
            self._become(error.strerror or str(error))
        failed = self._kept.told.not_executed
        if failed is not None and failed[0] not in ("exec", "chdir"):
            self._become(os.strerror(failed[1]))

    def _become(self, why: str) -> None:
        self._say(
            f"warning: no process can be started ({why}): the engine takes the place of rankguard, without a verdict"
        )
        for console in self._consoles:
            console.flush_within(FLUSH_S)
        if self._spec.console == "stderr":
            os.dup2(2, 1)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        for number in ALL_SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_DFL, None):
                signal.signal(number, signal.SIG_DFL)
        if self._spec.ignore_hup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chdir(self._spec.cwd)
        os.execvpe(self._spec.argv[0], self._spec.argv, dict(self._spec.env))  # no shell is meant

    def _start(self) -> None:
        """With our own streams, without a pipe. Raises `OSError`."""
        spec, slots = self._spec, os.memfd_create("rankguard-slots", os.MFD_CLOEXEC)
        err = os.dup(2)
        out = err if spec.console == "stderr" else os.dup(1)
        command = spawn.Command(
            argv=spec.argv,
            env=spec.env,
            cwd=spec.cwd,
            stdio=(0, out, err),
            nofile=spec.nofile,
            ignore=(signal.SIGHUP,) if spec.ignore_hup else (),
            announce=slots,
            announce_at=0,
            dies_with_us=False,
        )
        started = spawn.spawn(command)
        os.pwrite(slots, SLOT.pack(started.pid, 0, 0), 0)
        os.set_blocking(started.news, True)
        self._kept.told.not_executed = spawn.failure(started.news)
        self._kept.slots, self._orphans = Slots(slots), True
        self._pidfds = {started.pid: started.pidfd}

    def _loop(self) -> None:
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        warden = self._client.warden if self._client is not None and not self._orphans else -1
        if warden >= 0:
            poll.register(warden, select.POLLIN)
        while not self._over():
            now = time.monotonic()
            self._watch(poll, now)
            wait = None if self._kill_at is None else max(0.0, self._kill_at - now)
            if self._ended_at is not None:  # what it has left behind; of its ends the kernel tells
                wait = min(0.1, wait or 0.1)
            ready = {fd for fd, _event in poll.poll(None if wait is None else wait * 1000)}
            self._signals.act(self)  # type: ignore[arg-type]  # it asks us what it asks of a client
            if warden in ready:
                poll.unregister(warden)
                self._orphans = True
            for fd in ready & self._pipes.keys():
                self._pump(fd)
            for console in self._consoles:
                console.flush()
            if self._orphans:
                self.reap()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill()
        for fd in list(self._pipes):
            while self._pump(fd):
                pass
        for console in self._consoles:
            console.flush_within(FLUSH_S)

    def _watch(self, poll: select.poll, now: float) -> None:
        for fd, console in self._pipes.items():
            full = console is not None and console.wants_pause(now)
            with contextlib.suppress(KeyError):
                poll.unregister(fd)
            if not full:
                poll.register(fd, select.POLLIN)
        for console in self._consoles:
            with contextlib.suppress(KeyError, OSError):
                poll.unregister(console)
            if console.pending:
                with contextlib.suppress(OSError):
                    poll.register(console, select.POLLOUT)

    def _over(self) -> bool:
        """It has ended, and nothing is left. Its parent ends what it has left behind: the warden, or we."""
        if not self._ended():
            return self._orphans and not self._kept.pids()
        if not self._orphans:
            return False
        now = time.monotonic()
        if self._ended_at is None:
            self._ended_at = now
            tree.signal_all(signal.SIGTERM, signal.SIGCONT)
        if not tree.children(os.getpid()):
            remove(self._kept.notes)
            return True
        if now - self._ended_at > self._spec.grace:
            tree.kill_all(())
        return now - self._ended_at > self._spec.grace + GONE_S

    def _pump(self, fd: int) -> bool:
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        console = self._pipes[fd]
        if not data:
            del self._pipes[fd]
            os.close(fd)
        elif console is not None:
            console.write(data)
        return bool(data)

    def reap(self) -> None:
        """All that have ended, and how the engine did."""
        slots = self._kept.slots
        known = {} if slots is None else {pid: at for at, pid in slots.pids().items()}
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if slots is not None and pid in known:
                    slots.ended(known[pid], pid, status)

    def _endings(self) -> Ends:
        slots = self._kept.slots
        return {} if slots is None else {at // SLOT.size: (pid, slots.status(at)) for at, pid in slots.pids().items()}

    # ── Asked (`Signals` takes us for a client) ──────────────────────────────────────────────────────────────────

    def stop(self, number: int, *, sender: Message | None = None) -> None:
        """A signal that ends: to the engine, and the clock of a request begins. The second SIGINT ends all at once."""
        now, told = time.monotonic(), self._kept.told
        told.asked = told.asked or (now, number, sender)
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            self._kill_at = now
            return
        self._send(number)
        self._run_out(now, self._spec.shutdown_timeout)

    def send(self, message: dict[str, Any]) -> None:
        """What else the front asks; most of it nobody can answer any more."""
        match message["do"]:
            case "signal":
                self._send(message["signal"])
            case "suspend":
                self._suspended = True
                self._send(signal.SIGSTOP)
                self._signals.told(self, "suspended")  # type: ignore[arg-type]  # as above
            case "resume":
                self._send(signal.SIGCONT)
            case "stacks":
                self._say("warning: no stacks can be had: nothing is watched any more")

    def _run_out(self, since: float, seconds: float) -> None:
        if seconds > 0 and self._kill_at is None:
            self._kill_at = since + seconds

    def _send(self, number: int) -> None:
        for pidfd in self._pidfds.values():
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(pidfd, number)

    def _kill(self) -> None:
        """Its time is over."""
        self._kill_at = None
        self._send(signal.SIGKILL)
        above = os.getpid() if self._orphans or self._client is None else self._client.warden_pid
        for pid in reversed(tree.descendants(above)):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
