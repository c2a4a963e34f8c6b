"""One rank's process: its words, environment, streams, groups and processors put together; then it is executed anew, or
forked of the warm server where there is one.

Not its life (`exec.py`), not the fork itself (`../linux/spawn.py`, `warmstart.py`). Read next: `environment.py`.
"""

import contextlib
import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from rankguard.facts import NOEXEC
from rankguard.jobspec import JobSpec
from rankguard.launchers.contract import Surroundings
from rankguard.launchers.environment import rank_argv, rank_environment
from rankguard.linux import pipes, spawn
from rankguard.linux.files import devnull, is_noexec

if TYPE_CHECKING:
    from rankguard.linux.numa import Binding


class Starter:
    """Starts the ranks of one attempt."""

    def __init__(self, around: Surroundings) -> None:
        self._around, self._spec = around, around.spec
        self._bindings = _bindings(around.spec)

    def prepare(self, number: int, notify: str, error_file: str | None) -> "Prepared":
        """All that a rank's process needs. Raises `OSError` when the machine is unable to make it; nothing is open then."""
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
            keeper = around.keeper
            if keeper is not None and outputs != [-1, -1]:
                keeper.hold((outputs[0], outputs[1]))
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
                announce=-1 if keeper is None else keeper.slots,
                announce_at=None if keeper is None else keeper.at(number),
                dies_with_us=keeper is None,
                binding=self._bindings[number] if self._bindings else None,
            )
            return Prepared(command, (outputs[0], outputs[1]), theirs.pop_all(), ours.pop_all())

    def start(self, prepared: "Prepared") -> "Start":
        """The process. Raises `OSError` when the machine is unable to make it; nothing is open then."""
        with prepared.theirs, prepared.ours as ours:
            forked = self._around.warm.fork(prepared.command)
            started = forked or spawn.spawn(prepared.command)
            ours.pop_all()
            return Start(started, prepared.outputs, forked is not None)


class Prepared(NamedTuple):
    """A rank to be forked. `outputs`: our ends of its output pipes (non-blocking; -1 where it has the terminal itself).

    `theirs` and `ours` close the ends of the child, and ours if it is not to be.
    """

    command: spawn.Command
    outputs: tuple[int, int]
    theirs: contextlib.ExitStack
    ours: contextlib.ExitStack


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
        why = f" ({NOEXEC})" if error == errno.EACCES and is_noexec(os.path.join(spec.cwd, spec.argv[0])) else ""
        return error, f"unable to execute `{spec.argv[0]}`: {said}{why}"
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
