"""Fork and execute one rank so that it starts clean and cannot outlive us.

The child: joins its cgroups before it executes (memory is charged to the group that a process is in when it touches
the page), leads a session of its own, dies with its parent unless it is to live on (PR_SET_PDEATHSIG, which execve(2) keeps;
a parent that died before is seen by its pid), has no signal blocked and every disposition at its default, no file
descriptor but those it is given, a raised `oom_score_adj` so that the kernel prefers it to its supervisor, and our own
limits undone.

`os.fork` and not `subprocess`: with a `preexec_fn` that is slower, and it cannot report which step failed. Safe since
the supervisor has one thread.
"""

import errno
import fcntl
import os
import resource
import signal
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rankguard.linux.libc import ALL_SIGNALS, PR_SET_PDEATHSIG, PR_SET_PTRACER, prctl
from rankguard.record import Record

if TYPE_CHECKING:
    from rankguard.linux.numa import Binding

STAGES = ("cgroup", "session", "parent", "signals", "stdio", "limits", "chdir", "exec")
_REPORT = struct.Struct("ii")
OOM_SCORE_RAISE = 300


class Command(Record):
    """What to execute, ready for the child: nothing is computed after the fork but its own pid (WATCHDOG_PID)."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    stdio: tuple[int, int, int]
    passed: tuple[int, ...] = ()
    """File descriptors that become 3, 4, … in the child."""
    join: tuple[int, ...] = ()
    """Open `cgroup.procs` files."""
    nofile: tuple[int, int] | None = None
    ignore: tuple[int, ...] = ()
    """Signals that stay ignored (SIGHUP under nohup)."""
    announce: int = -1
    """Where the child writes its pid, which is its group's and its session's, before anything of the program runs."""
    announce_at: int | None = None
    """Where in that: `announce` is then a file that has a place for each rank (`../keep.py`), written first of all."""
    dies_with_us: bool = True
    """False: it lives on when its parent is gone (`--on-lost keep`)."""
    like_us: bool = False
    """The kernel's OOM killer is not to prefer it to us: it supervises, too."""
    binding: "Binding | None" = None
    """The CPUs and the memory that the child prefers."""


class Started(Record):
    """A forked child. `news` reads as closed once it executes, or carries why it could not (see `failure`)."""

    pid: int
    pidfd: int
    news: int


def spawn(command: Command) -> Started:
    """Fork the child. Raises `OSError` when even that is refused (a limit on processes or memory)."""
    program = _find(command.argv[0], command.env, command.cwd)
    news, report = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(news)
        os.close(report)
        raise
    if pid == 0:
        _become(command, program, parent, report)
    os.close(report)
    try:
        return Started(pid, os.pidfd_open(pid), news)
    except OSError:  # a child that cannot be watched is not started
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(news)
        raise


def failure(news: int) -> tuple[str, int] | None:
    """(stage, errno) of a child that could not execute; None when it does. Call when `news` is readable."""
    data = os.read(news, _REPORT.size)
    if len(data) < _REPORT.size:
        return None
    stage, error = _REPORT.unpack(data)
    return STAGES[stage], error


def _find(name: str, env: Mapping[str, str], cwd: str) -> list[bytes]:
    """The files to try, as execvp(3) would: PATH of the child's environment, not of ours."""
    if "/" in name:
        return [os.fsencode(name)]
    folders = env.get("PATH", os.defpath).split(os.pathsep)
    return [os.fsencode(os.path.join(cwd, folder, name)) for folder in folders]


def _become(command: Command, programs: Sequence[bytes], parent: int, report: int) -> None:
    stage = 0
    try:
        if command.announce_at is not None:  # whoever takes over has to know us from now on
            os.pwrite(command.announce, struct.pack("i", os.getpid()), command.announce_at)
        if command.dies_with_us:
            prctl(
                PR_SET_PDEATHSIG, signal.SIGKILL
            )  # early: Ctrl-Z may stop us from now on, and our parents die meanwhile
            if os.getppid() != parent:
                os._exit(128 + signal.SIGKILL)
        for fd in command.join:
            os.write(fd, b"0")
        stage = 1
        os.setsid()
        if command.announce >= 0 and command.announce_at is None:
            os.write(command.announce, str(os.getpid()).encode())
        stage = 2
        _allow_tracing(parent)
        stage = 3
        for number in ALL_SIGNALS:
            if signal.getsignal(number) != signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
        for ignored in command.ignore:
            signal.signal(ignored, signal.SIG_IGN)
        stage = 4
        report = _arrange_fds(command, report)
        stage = 5
        _raise_oom_score(0 if command.like_us else OOM_SCORE_RAISE)
        if command.nofile is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, command.nofile)
        if command.binding is not None:
            _bind(command.binding)
        stage = 6
        os.chdir(command.cwd)
        stage = 7
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _execute(programs, command)
    except OSError as error:
        os.write(report, _REPORT.pack(stage, error.errno or 0))
    finally:
        os._exit(127)


def _execute(programs: Sequence[bytes], command: Command) -> None:
    """Try each file as execvp(3) does: one that may not be executed is told only when none can be."""
    env = command.env
    if "WATCHDOG_USEC" in env:
        env = {**env, "WATCHDOG_PID": str(os.getpid())}  # whose heartbeats these are to be: sd_watchdog_enabled(3)
    denied: OSError | None = None
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for program in programs:
        try:
            os.execve(program, command.argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            denied = denied or error
    raise denied or missing


def _arrange_fds(command: Command, report: int) -> int:
    """Put every descriptor where it belongs; sources are moved up first, so that none is overwritten before its turn."""
    wanted = (*command.stdio, *command.passed)
    above = len(wanted) + 3
    report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, above)
    sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in wanted]
    for target, source in enumerate(sources):
        os.dup2(source, target, inheritable=True)
    return report  # and everything else closes itself on exec


def _bind(binding: "Binding") -> None:
    """A rank that cannot be bound runs all the same, and its stderr says so."""
    from rankguard.linux.numa import bind  # loaded by whoever made the binding

    refused = bind(binding)
    if refused is not None:
        os.write(2, f"rankguard: this rank is not bound to {refused}\n".encode())


def _allow_tracing(parent: int) -> None:
    """Our parent and its children may look at our stacks where otherwise only ancestors may (Yama, PR_SET_PTRACER).

    Execution keeps it (security/yama/yama_lsm.c); a kernel without Yama says EINVAL and needs no leave.
    """
    try:
        prctl(PR_SET_PTRACER, parent)
    except OSError:
        pass


def _raise_oom_score(by: int) -> None:
    """An unprivileged process may always raise its own score (proc(5)); that it cannot is no reason not to start."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            score = min(1000, int(os.read(fd, 16)) + by)
            os.write(fd, str(score).encode())
        finally:
            os.close(fd)
    except (OSError, ValueError):
        pass
