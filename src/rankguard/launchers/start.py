"""One rank's process: its words, environment, streams, groups and processors put together; then it is executed anew, or
forked of the warm server where there is one.

Not its life (`exec.py`), not the fork itself (`../linux/spawn.py`, `warm.py`). Read next: `environment.py`.
"""

import contextlib
import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from rankguard.launchers.contract import Surroundings
from rankguard.launchers.environment import rank_argv, rank_environment
from rankguard.linux import pipes, spawn
from rankguard.linux.files import devnull
from rankguard.model import JobSpec

if TYPE_CHECKING:
    from rankguard.launchers.warm import WarmServer
    from rankguard.linux.numa import Binding


class Starter:
    """Starts the ranks of one job. `ready` says whether it can do so by now: a warm server takes its time."""

    def __init__(self, around: Surroundings) -> None:
        self._around, self._spec = around, around.spec
        self._bindings = _bindings(around.spec)
        self._warm: WarmServer | None = None
        self.ready = True

    def begin(self) -> int:
        """Before the first rank; the descriptor that is readable once `on_answer` should be called, or -1."""
        if self._spec.start != "warm":
            return -1
        from rankguard.launchers.warm import WarmServer, why_not_warm  # only for those who asked for it

        because = why_not_warm(self._spec)
        if because is None:
            try:
                self._warm = WarmServer(self._spec, self._around.port)
            except OSError as error:
                because = f"unable to start the warm server: {error.strerror or error}"
            else:
                self.ready = False
                return self._warm.fileno()
        self._executed(because)
        return -1

    def on_answer(self) -> None:
        """The warm server can fork, or cannot."""
        assert self._warm is not None
        answer = self._warm.answered()
        if answer["is"] == "ready":
            self._around.note(f"ranks are forked of a server that has imported {', '.join(answer['modules'])}")
        else:
            self.close()
            self._executed(answer["because"])
        self.ready = True

    @property
    def pids(self) -> set[int]:
        """Children of ours that are no ranks."""
        return set() if self._warm is None else {self._warm.pid}

    def close(self) -> None:
        """No rank is started any more."""
        if self._warm is not None:
            self._warm.close()
            self._warm = None

    def _executed(self, because: str) -> None:
        self._around.note(f"ranks are executed, each anew: {self._around.redact(because)}")

    def start(self, number: int, notify: str, error_file: str | None) -> "Start":
        """The process, and our ends of its output pipes (non-blocking; -1 where it has the terminal itself).

        Raises `OSError` when the machine is unable to make it; nothing is open then.
        """
        around, spec = self._around, self._spec
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            env = rank_environment(spec, number, around.port, notify, error_file)
            outputs = [-1, -1]
            streams = around.terminal.streams(number)
            if streams is None:
                ends = [-1, -1]
                for which in (0, 1):
                    outputs[which], ends[which] = pipes.output_pipe(spec.nprocs)
                    ours.callback(os.close, outputs[which])
                    theirs.callback(os.close, ends[which])
                    os.set_blocking(outputs[which], False)
                streams = ends[0], ends[1]
            join = around.groups.join_fds(number)
            for fd in join:
                theirs.callback(os.close, fd)
            stdin = around.terminal.stdin
            if spec.stdin_rank != number:
                stdin = devnull()
                theirs.callback(os.close, stdin)
            command = spawn.Command(
                argv=rank_argv(spec, number),
                env=env,
                cwd=spec.cwd,
                stdio=(stdin, *streams),
                passed=around.passed,
                join=tuple(join),
                nofile=spec.nofile,
                ignore=(1,) if spec.ignore_hup else (),
                binding=self._bindings[number] if self._bindings else None,
            )
            forked = self._forked(command)
            started = forked or spawn.spawn(command)
            ours.pop_all()
            return Start(started, (outputs[0], outputs[1]), forked is not None)

    def _forked(self, command: spawn.Command) -> spawn.Started | None:
        if self._warm is None:
            return None
        try:
            return self._warm.fork(command)
        except OSError as error:
            self.close()
            self._executed(f"the warm server was unable to fork: {error.strerror or error}")
            return None


class Start(NamedTuple):
    """A rank that has been forked: `outputs` are our ends of its stdout and stderr, `warm` says of what it was."""

    process: spawn.Started
    outputs: tuple[int, int]
    warm: bool


def not_executed(spec: JobSpec, stage: str, error: int) -> tuple[int, str]:
    """The errno that says it best, and why the child executes nothing."""
    if error == errno.EACCES and os.path.isdir(os.path.join(spec.cwd, spec.argv[0])):
        error = errno.EISDIR  # execve(2) says EACCES of a folder, which `chmod` would not cure
    said = os.strerror(error)
    if stage == "chdir":
        return error, f"unable to enter the folder `{spec.cwd}`: {said}"
    if stage == "exec":
        return error, f"unable to execute `{spec.argv[0]}`: {said}"
    return error, f"unable to prepare the process ({stage}): {said}"


def _bindings(spec: JobSpec) -> "tuple[Binding, ...]":
    """Where each rank is bound to; nowhere when that is not asked for, or not possible any more (the front has looked)."""
    if spec.numa_binding is None:
        return ()
    from rankguard.linux.numa import Impossible, bindings

    try:
        return bindings(spec.numa_binding, spec.nprocs, spec.env).ranks
    except Impossible:
        return ()
