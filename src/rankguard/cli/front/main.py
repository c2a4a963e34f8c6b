"""The front of a job on a terminal: forwards signals, shows progress and, at the end, the report.

It may be PID 1: then it also reaps whatever falls to it. It is never in the way: supervisor and warden act by themselves.
"""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rankguard.cli.front.deaf import PATIENCE_S, Deaf
from rankguard.cli.front.hand import Hand
from rankguard.cli.front.progress import Progress
from rankguard.cli.front.signals import Signals
from rankguard.cli.front.view import View, view
from rankguard.cli.front.voice import Voice
from rankguard.cli.say import in_color
from rankguard.client import Client
from rankguard.errors import SpawnFailed
from rankguard.jobspec import JobSpec
from rankguard.linux import tree
from rankguard.linux.console import Console
from rankguard.model import Verdict
from rankguard.record import prepare
from rankguard.runs.folder import run_name

if TYPE_CHECKING:
    from rankguard.cli.agent import Leash
    from rankguard.cli.front.keeper import Keeper, Kept
    from rankguard.cli.front.service import Service

TEXT_S, JSON_S = 5.0, 10.0
"""How long the last words wait for a reader that does not read; it never changes the exit status."""


class Front:
    """The terminal's side of one job.

    Of an agent, `leash` tells that whoever placed it is gone, and `passed` are descriptors for its ranks (3, 4 …).
    """

    def __init__(
        self, asked: SimpleNamespace, spec: JobSpec, leash: "Leash | None" = None, passed: Sequence[int] = ()
    ) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # `outset.begin` has done so, where it was called
        self.asked, self.spec, self._leash, self._passed = asked, spec, leash, passed
        self._out, self._err = Console(1), Console(2)
        self.verdict: Verdict | None = None
        self._signals = Signals(
            asked,
            say=self._say,
            step_aside=self.step_aside,
            come_back=self.come_back,
            stays=self._stays,
            on_child=self._reap_strays,
            on_resize=self._resized,
            on_end=self._asked_to_end,
        )
        self._deaf = Deaf()
        self._began = time.monotonic()
        self._progress = self._new_progress()
        self._voice = Voice(self._err, spec.log_format == "json")
        self._story: Callable[[str], Iterable[str]] | None = None
        if spec.verbose:
            from rankguard.cli.front.verbose import story

            self._story = story(spec)
        self._view: View | None = None
        self._hand = Hand(spec)
        self._service = self._make_service()
        self._kept: Kept | None = None
        self._keeper: Keeper | None = None
        if spec.keeps:
            from rankguard.cli.front import keeper  # no start without it waits for it
            from rankguard.linux.libc import become_subreaper

            become_subreaper()  # what the warden leaves is ours
            self._kept = keeper.Kept()

    def run(self) -> int:
        """Until the verdict is out and nothing is left."""
        try:
            if not self.asked.quiet:
                self._say(self._hand.first_line())
            self.client = Client(self.spec, passed=self._passed, front_is_ours=True)
            self._voice.ask = self.client.send
            self._say_where()
            self._say_previous()
            self._view = self._new_view()
            self._prepare()
            self._loop()
        except SpawnFailed as error:
            self.verdict = self._not_begun(error)
        assert self.verdict is not None
        return self._report(self.verdict)

    def _make_service(self) -> "Service | None":
        if "NOTIFY_SOCKET" not in os.environ:
            return None
        from rankguard.cli.front.service import service  # under systemd alone

        return service(self.spec, os.environ, self._began)

    def _not_begun(self, error: SpawnFailed) -> Verdict:
        if self._kept is not None and self.spec.watch is not None:
            return self._keep(self._kept, f"rankguard could not begin ({error.statement})", None)
        from rankguard.lost import verdict_never_begun

        return verdict_never_begun(self.spec, error)

    def _loop(self) -> None:
        poll = select.poll()
        poll.register(self.client, select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        if self._leash is not None:
            poll.register(self._leash, select.POLLIN)
        self._reap_strays()
        while self.verdict is None:
            if self._err.pending:
                poll.register(self._err, select.POLLOUT)
            else:
                with contextlib.suppress(KeyError):
                    poll.unregister(self._err)
            due = self._due_at()
            # A long environment does not go through the socket at once.
            self.client.wire.flush()
            poll.modify(self.client, select.POLLIN | (select.POLLOUT if self.client.wire.pending else 0))
            ready = poll.poll(None if due is None else max(0.0, due - time.monotonic()) * 1000)
            if self._leash is not None and any(fd == self._leash.fileno() for fd, _event in ready):
                self._let_go(poll, self._leash)
            self._err.flush()
            if self._kept is None:
                self._signals.act(self.client)
            self._receive(0)
            if self.client.closed and self.verdict is None:
                self._lost(None)
            elif self._kept is not None:  # only now: with a supervisor that is gone they would be, too
                self._signals.act(self.client)
            self._look(time.monotonic())
        self.client.wait_gone()
        self._voice.alone()

    def _let_go(self, poll: select.poll, leash: "Leash") -> None:
        if leash.is_let_go():
            from rankguard.cli.agent import GONE

            poll.unregister(leash)
            self.client.stop(signal.SIGTERM, by=f"{GONE}: {leash.why}" if leash.why else GONE)

    def _receive(self, timeout: float) -> None:
        for message, fds in self.client.receive(timeout):
            if self._kept is not None and self._kept.take(message, fds):
                continue
            for fd in fds:
                os.close(fd)
            self._on_message(message)

    def _due_at(self) -> float | None:
        """When something is due that no news wakes us for."""
        service = self._service.due if self._service is not None else None
        return min((at for at in (self._look_due_at(), self._deaf.due, service) if at is not None), default=None)

    def _look_due_at(self) -> float | None:
        """When a look at the start is due: for the view, or for a line where there is none."""
        if self._view is not None and self._view.up:
            return self._view.due_at()
        waits = (self._progress.due_at(), self._view.due_at() if self._view is not None else None)
        return min((at for at in waits if at is not None), default=None)

    def _look(self, now: float) -> None:
        if self.verdict is None and self._deaf.ends(now, self._supervisors_parent):
            theirs = self.spec.watch is not None and self.spec.watch.attaches
            at_once = self._deaf.impatient
            goes_on = theirs or (self._kept is not None and not at_once)
            what = "it is ended now, and the engine goes on" if goes_on else "it and all ranks are ended now"
            self._say(f"warning: the supervisor has not answered for {PATIENCE_S:g} s: {what}")
            self._lost(None, at_once=at_once)
            return
        if self._service is not None:
            self._service.tick(now, self.client.send)
        if self._view is not None:
            self._view.tick(now)
        if (self._view is None or not self._view.up) and self._progress.asks(now):
            self.client.send({"do": "progress"})

    def _supervisors_parent(self) -> int:
        """The warden; we are, when that is gone."""
        return self.client.warden_pid if self._kept is None or not self.client.wait_gone(0) else os.getpid()

    def step_aside(self, seconds: float = 0.5) -> None:
        """Take the view off the terminal before somebody else gets it (we are about to be stopped)."""
        self._hand.step_aside()
        if self._view is None:
            return
        self._view.hold()
        until = time.monotonic() + seconds
        while self._view.leaving and (left := until - time.monotonic()) > 0 and not self.client.closed:
            self._receive(left)

    def come_back(self) -> None:
        """The terminal is ours again; whether we are in its foreground is looked at before anything is drawn."""
        self._hand.come_back()
        if self._view is not None:
            self._view.go_on(time.monotonic())

    def _asked_to_end(self, number: int) -> None:
        """And it was passed on."""
        if self._keeper is not None:
            return
        now = time.monotonic()
        if self._kept is not None:
            self._deaf.asked(now, self.client.send)
        if number == signal.SIGINT:
            self._deaf.interrupted(now, self.client.send)

    def _stays(self) -> bool:
        return self._hand.stays()

    def _resized(self) -> None:
        if self._view is not None:
            self._view.resized(time.monotonic())

    def _reap_strays(self) -> None:
        if os.getpid() == 1 and self._keeper is None:
            kept = self._kept.pids() if self._kept is not None else set()
            tree.reap_strays({self.client.warden_pid, *kept})

    def _on_message(self, message: dict[str, Any]) -> None:
        self._deaf.heard(time.monotonic(), answer=message["is"] == "pong")
        self._overhear(message)
        match message["is"]:
            case "finished":
                self.verdict = Verdict.from_dict(message["verdict"])
            case "spawn-failed":
                self.client.wait_gone()
                raise SpawnFailed(message["statement"], message.get("errno"), message["code"], message["hint"])
            case "bug":
                self._lost(message["text"])
            case "told":
                self._told(message)
            case "glimpse" | "spoken" | "cleared" if self._view is not None:
                self._view.answered(message, time.monotonic())
            case "said":
                self._voice.said(message["number"])
            case "progress" | "journal":
                for line in self._lines(message):
                    self._say(line)
            case "stacks":
                self._voice.say(message["text"].rstrip("\n"))
            case "payload":
                self._progress.ready(message["rank"], time.monotonic())

    def _overhear(self, message: dict[str, Any]) -> None:
        if self._service is not None:
            self._service.heard(message, time.monotonic())
        if self._kept is not None:
            self._kept.hear(message)

    def _told(self, message: dict[str, Any]) -> None:
        if message["what"] == "restarting":
            self._begin_again(message["text"])
            return
        if self._view is not None:
            self._view.told(message["what"], time.monotonic())
        self._say(self._progress.told(message, time.monotonic()))
        self._signals.told(self.client, message["what"])
        self._hand.told(message["what"])

    def _begin_again(self, because: str) -> None:
        """An attempt has failed, and the next one begins: nobody is ready yet."""
        if self.asked.report != "none":
            self._say(because)
        self._began = time.monotonic()
        self._progress = self._new_progress()
        self._view = self._new_view()

    def _new_view(self) -> View | None:
        """Not of one node's part of a job: node 0 shows all ranks."""
        if self.spec.shown_elsewhere:
            return None
        return view(self.asked, self.spec, self._began, self.client.send, os.environ)

    def _new_progress(self) -> Progress:
        asked, spec = self.asked, self.spec
        quiet = asked.quiet or asked.report == "none" or spec.debug_rank is not None
        part = spec.shown_elsewhere
        return Progress(spec.nprocs, self._began, quiet=quiet, watched=spec.watch is not None, part=part)

    def _lines(self, message: dict[str, Any]) -> Iterable[str | None]:
        """What is said of a start that takes long, and of decisions (`-v`)."""
        if message["is"] == "progress":
            return [self._progress.line(message, time.monotonic())]
        return [] if self._story is None else self._story(message["text"])

    def _lost(self, bug: str | None, *, at_once: bool = False) -> None:
        if self._kept is not None:
            why = (
                "the supervisor was lost" if bug is None else f"the supervisor failed ({bug.rstrip().splitlines()[-1]})"
            )
            self.verdict = self._keep(self._kept, why, bug, at_once=at_once)
            return
        from rankguard.lost import verdict_without_supervisor
        from rankguard.report.redact import job_redactor

        gone = self.client.wait_gone()
        if self.spec.debug_rank is None:
            self._voice.new_line()
        self._take_back()
        self._voice.alone()
        self.verdict = verdict_without_supervisor(self.spec, bug, gone=gone)
        if bug is not None and not self.verdict.hints:  # no file holds it
            lines = job_redactor(self.spec).text(bug).splitlines()
            self._err.write("".join(f"  | {line}\n" for line in lines).encode(errors="replace"))

    def _keep(self, kept: "Kept", why: str, bug: str | None, *, at_once: bool = False) -> Verdict:
        """What `tini` does, until the engine has ended."""
        from rankguard.cli.front.keeper import Keeper

        self._voice.new_line()
        self._voice.alone()
        client = getattr(self, "client", None)  # it may be what could not begin
        self._keeper = Keeper(self.spec, kept, client, self._signals, (self._out, self._err), self._say)
        return self._keeper.run(why, bug, at_once=at_once)

    def _say(self, line: str | None) -> None:
        if line is not None:
            self._voice.say(f"rankguard: {line}")

    def _say_where(self) -> None:
        """Where the page is: a port that was chosen for the user has to be told. And the output, if it is not here."""
        asked, share = self.spec.http, self.spec.share
        if share is not None and self.spec.shown_elsewhere and not self.asked.quiet:
            from rankguard.nodes.tcp import shown

            self._say(f"what the ranks of this node print is shown by node 0, at {shown(share.host, share.port)}")
        if asked is not None and (not self.asked.quiet or asked.endswith(":0")):
            self._say(f"serving http://{self.client.http}/ (probes, metrics, state)")

    def _say_previous(self) -> None:
        """While our own processes start, so that it delays nothing."""
        if self.asked.quiet or self.asked.report == "none":
            return
        from rankguard.runs.previous import previous

        if (told := previous(self.spec)) is not None:
            self._say(f"warning: {told}")

    def _prepare(self) -> None:
        """What the end needs, loaded while our own processes start: it would else stand between the job's end and ours."""
        if self.asked.report == "text":
            import rankguard.report.text  # noqa: F401  # for its module
        prepare(Verdict)

    def _take_back(self) -> None:
        if first := self._hand.take_back():
            self._err.write(first)

    def _report(self, verdict: Verdict) -> int:
        self._take_back()
        # One verdict of several machines is told once, by node 0; one that had to do without node 0 has its own.
        if self.asked.on_verdict is not None and verdict.run_id == self.spec.run_id:
            self._tell_on_verdict(verdict)
        if self.asked.report == "json":
            self._out.write(json.dumps(verdict.to_dict()).encode() + b"\n", whole=True)
            self._out.flush_within(JSON_S)
        elif self.asked.report == "text":
            from rankguard.report.text import final_report

            as_json = self.spec.log_format == "json"
            text = final_report(
                verdict,
                color=in_color(2) and not as_json,
                width=_width(),
                saved=run_name(self.spec.run_dir, self.spec.run_id),
                home=os.environ.get("HOME"),
            )
            if as_json:
                from rankguard.report.jsonlines import reported

                text = reported(verdict.outcome, text)
            self._err.write(text.encode(errors="replace") + b"\n", whole=True)
        self._err.flush_within(TEXT_S)
        return verdict.exit_code

    def _tell_on_verdict(self, verdict: Verdict) -> None:
        from rankguard.cli.front.on_verdict import tell
        from rankguard.cli.say import message

        self._err.flush_within(TEXT_S)
        wrong = tell(self.asked.on_verdict, verdict, self.spec, self._signals.fileno(), self._signals.came)
        if wrong is not None:
            self._err.write(message("warning", wrong).encode(errors="replace"))


def _width() -> int:
    """Of the terminal that the report goes to; 100 elsewhere."""
    try:
        return max(60, os.get_terminal_size(2).columns)
    except OSError:
        return 100
