"""`rankguard run`: the front of a job on a terminal.

It starts the supervisor, forwards signals, shows progress and, at the end, the report. It may be PID 1: then it also
reaps whatever falls to it. It is never in the way: supervisor and warden act by themselves.
"""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from rankguard import inside
from rankguard.cli.arguments import count_ranks, parse, rank_command
from rankguard.cli.progress import Progress
from rankguard.client import Client
from rankguard.errors import SpawnFailed, UsageError
from rankguard.linux import tree
from rankguard.linux.console import Console
from rankguard.linux.libc import ALL_SIGNALS
from rankguard.linux.signals import Received, SignalQueue
from rankguard.model import JobSpec, Verdict
from rankguard.record import to_data
from rankguard.report.redact import Redactor
from rankguard.runs import make_run_dir, new_run_id, run_name

TEXT_S, JSON_S = 5.0, 10.0
"""How long the last words wait for a reader that does not read; it never changes the exit status."""
STOP = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
PASS_ON = frozenset({signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH})
LEFT_ALONE = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


def run(words: Sequence[str]) -> int:
    """Parse, launch, watch, report; the exit status."""
    try:
        asked = parse(words)
        spec, warning = specify(asked)
    except UsageError as error:
        print(f"error: {error.statement}", file=sys.stderr)
        print(f"try:   {error.hint or 'rankguard run --help'}", file=sys.stderr)
        return 2
    except SpawnFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except SystemExit as error:  # --help
        return int(error.code or 0)
    if warning is not None:
        print(f"warning: {warning}", file=sys.stderr)
    return Front(asked, spec).run()


def specify(asked: Namespace) -> tuple[JobSpec, str | None]:
    """The job that is asked for, and a warning. Raises `UsageError`."""
    nprocs = count_ranks(asked.nproc_per_node)
    redactor = Redactor(asked.redact)
    argv, python = rank_command(
        asked.program, asked.args, [sys.executable, inside.BOOTSTRAP], module=asked.module, no_python=asked.no_python
    )
    run_id = new_run_id()
    folder, warning = make_run_dir(run_id, asked.run_dir)
    spec = JobSpec(
        run_id=run_id,
        command=tuple(redactor.argv([asked.program, *asked.args])),
        argv=tuple(argv),
        nprocs=nprocs,
        env=dict(os.environ),
        cwd=_cwd(),
        role=asked.role,
        node=socket.gethostname(),
        python=python,
        ready_timeout=asked.ready_timeout,
        grace=asked.grace,
        shutdown_timeout=asked.shutdown_timeout,
        run_dir=folder,
        log_max=asked.log_max,
        console="stderr" if asked.report == "json" else "prefix",
        prefix=asked.log_line_prefix_template,
        stdin_rank=_stdin_rank(asked.stdin, nprocs),
        master_addr=asked.master_addr,
        master_port=asked.master_port,
        ignore_hup=signal.getsignal(signal.SIGHUP) == signal.SIG_IGN,
        nofile=resource.getrlimit(resource.RLIMIT_NOFILE),
        labels=dict(asked.label),
        redact=tuple(asked.redact),
        exit_codes=asked.exit_codes,
    )
    return spec, warning


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        raise SpawnFailed(f"the current folder cannot be used: {error.strerror}", error.errno, 126) from None


def _stdin_rank(asked: str, nprocs: int) -> int | None:
    if asked == "none":
        return None
    if asked == "auto":
        try:
            return 0 if os.isatty(0) else None
        except OSError:
            return None
    if not asked.isdecimal() or int(asked) >= nprocs:
        raise UsageError(f"`--stdin {asked}`: not a rank of this job", f"0 to {nprocs - 1}, or `none`")
    return int(asked)


class Front:
    """The terminal's side of one job."""

    def __init__(self, asked: Namespace, spec: JobSpec) -> None:
        self.asked, self.spec = asked, spec
        self._out, self._err = Console(1), Console(2)
        self.verdict: Verdict | None = None
        self._signals = SignalQueue(ALL_SIGNALS - LEFT_ALONE - _ignored())
        self._began = time.monotonic()
        self._progress = Progress(spec.nprocs, self._began, quiet=asked.quiet or asked.report == "none")
        self._init = os.getpid() == 1

    def run(self) -> int:
        """Until the verdict is out and nothing is left."""
        try:
            self.client = Client(self.spec, front_is_ours=True)
            self._loop()
        except SpawnFailed as error:
            from rankguard.lost import verdict_never_begun

            self.verdict = verdict_never_begun(self.spec, error)
        assert self.verdict is not None
        return self._report(self.verdict)

    def _loop(self) -> None:
        poll = select.poll()
        poll.register(self.client, select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        if self._init:
            self._reap_strays()
        while self.verdict is None:
            if self._err.pending:
                poll.register(self._err, select.POLLOUT)
            else:
                with contextlib.suppress(KeyError):
                    poll.unregister(self._err)
            due = self._progress.due_at()
            poll.poll(None if due is None else max(0.0, due - time.monotonic()) * 1000)
            self._err.flush()
            for received in self._signals.drain():
                self._on_signal(received)
            for message, fds in self.client.receive():
                for fd in fds:
                    os.close(fd)
                self._on_message(message)
            if self.client.closed and self.verdict is None:
                self._lost(None)
            if self._progress.asks(time.monotonic()):
                self.client.send({"do": "progress"})
        self.client.wait_gone()

    def _on_signal(self, received: Received) -> None:
        number = received.signal
        if number == signal.SIGCHLD:
            if self._init:
                self._reap_strays()
        elif number in STOP:
            self.client.stop(number, sender=to_data(received.sender))
        elif number in PASS_ON:
            self.client.send({"do": "signal", "signal": int(number)})

    def _reap_strays(self) -> None:
        tree.reap_strays({self.client.warden_pid})

    def _on_message(self, message: dict[str, Any]) -> None:
        match message["is"]:
            case "finished":
                self.verdict = Verdict.from_dict(message["verdict"])
            case "spawn-failed":
                self.client.wait_gone()
                raise SpawnFailed(message["statement"], exit_code=message["code"], hint=message["hint"])
            case "bug":
                self._lost(message["text"])
            case "told":
                self._say(self._progress.told(message, time.monotonic()))
            case "progress":
                self._say(self._progress.line(message, time.monotonic()))
            case "payload":
                self._progress.ready(message["rank"], time.monotonic())

    def _lost(self, bug: str | None) -> None:
        from rankguard.lost import verdict_without_supervisor

        gone = self.client.wait_gone()
        if bug is not None:
            self._err.write(bug.encode(errors="replace"))
        self.verdict = verdict_without_supervisor(self.spec, bug, gone=gone)

    def _say(self, line: str | None) -> None:
        if line is not None:
            self._err.write(f"rankguard: {line}\n".encode(errors="replace"))

    def _report(self, verdict: Verdict) -> int:
        if self.asked.report == "json":
            self._out.write(json.dumps(verdict.to_dict()).encode() + b"\n", whole=True)
            self._out.flush_within(JSON_S)
        elif self.asked.report == "text":
            from rankguard.report.text import final_report

            text = final_report(
                verdict, color=self._color(), width=_width(), saved=run_name(self.spec.run_dir, self.spec.run_id)
            )
            self._err.write(text.encode(errors="replace") + b"\n", whole=True)
        self._err.flush_within(TEXT_S)
        return verdict.exit_code

    def _color(self) -> bool:
        plain = self.asked.no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "dumb")
        try:
            return not plain and os.isatty(2)
        except OSError:
            return False


def _width() -> int:
    """Of the terminal that the report goes to; 100 elsewhere."""
    try:
        return max(60, os.get_terminal_size(2).columns)
    except OSError:
        return 100


def _ignored() -> frozenset[int]:
    """A SIGHUP that was ignored when we started stays ignored (nohup)."""
    return frozenset({signal.SIGHUP}) if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else frozenset()
