"""`--on-verdict CMD`: a command of the user's with the verdict on its stdin, after the job has ended.

It delays nothing but the report's text (at most `BOUND_S`, and a signal to us ends the waiting), changes no exit status,
and has a group of its own, which is ended with it; if we are killed meanwhile, a keeper ends the group. What it prints goes
to stderr, stdout included, since our stdout may be the verdict's.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from rankguard.jobspec import JobSpec
from rankguard.linux import child, spawn
from rankguard.model import Verdict

BOUND_S = 10.0
_STOP = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


def tell(command: str, verdict: Verdict, spec: JobSpec, signals: int, came: Callable[[], frozenset[int]]) -> str | None:
    """Run it to its end. → what went wrong, if anything did; the command itself may hold secrets and is not repeated.

    `signals`: a descriptor that is readable when `came()` has something: the signals that came to us.
    """
    keeper, announce = 0, -1
    with contextlib.suppress(OSError):  # no process to be had: it goes without
        keeper, announce = _keep()
    try:
        started = _start(command, verdict, spec, announce)
    except OSError as error:
        _let_go(keeper)
        return f"unable to execute the command of `--on-verdict`: {error.strerror}"
    finally:
        if announce >= 0:
            os.close(announce)
    why = None
    try:
        why = _wait(started.pidfd, signals, came)
        if why is None:
            status = os.waitid(os.P_PIDFD, started.pidfd, os.WEXITED | os.WNOWAIT)
            if status is not None and (status.si_code != os.CLD_EXITED or status.si_status != 0):
                ended = child.look(started.pidfd)
                how = ended.signal if ended is not None and ended.signal else f"exit code {status.si_status}"
                why = f"ended with {how}"
    finally:
        # It is not reaped yet, so its group is still its own.
        with contextlib.suppress(OSError):
            os.killpg(started.pid, signal.SIGKILL)
        _let_go(keeper)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, started.pidfd, os.WEXITED)
        os.close(started.news)
        os.close(started.pidfd)
    return None if why is None else f"the command of `--on-verdict` {why}"


def _start(command: str, verdict: Verdict, spec: JobSpec, announce: int) -> spawn.Started:
    stdin = os.memfd_create("rankguard-verdict", os.MFD_CLOEXEC)  # a file: who does not read it holds nobody up
    try:
        data = memoryview(verdict.to_json().encode() + b"\n")
        while data:
            data = data[os.write(stdin, data) :]
        os.lseek(stdin, 0, os.SEEK_SET)
        env = {"RANKGUARD_RUN_ID": verdict.run_id, "RANKGUARD_EXIT_CODE": str(verdict.exit_code)}
        env |= {"RANKGUARD_RUN_DIR": spec.run_dir} if spec.run_dir is not None else {}
        argv = ("/bin/sh", "-c", command)
        env = dict(os.environ) | env
        return spawn.spawn(spawn.Command(argv=argv, env=env, cwd=_cwd(), stdio=(stdin, 2, 2), announce=announce))
    finally:
        os.close(stdin)


def _keep() -> tuple[int, int]:
    """A child of ours that ends the command's group when we are gone, what its shell had started too. It is there before
    the command is, which tells it its group. → its pid, and where to tell.
    """
    front = os.pidfd_open(os.getpid())
    told, tell = os.pipe2(os.O_CLOEXEC)
    try:
        keeper = os.fork()  # the front has one thread
        if keeper == 0:
            _end_with(front, told)
        os.setpgid(keeper, keeper)  # whoever kills our group does not kill it
    except OSError:
        os.close(tell)
        raise
    finally:
        os.close(front)
        os.close(told)
    return keeper, tell


def _end_with(front: int, told: int) -> NoReturn:
    with contextlib.suppress(BaseException):
        low, high = sorted((front, told))
        for first, last in ((0, low), (low + 1, high), (high + 1, os.sysconf("SC_OPEN_MAX"))):
            os.closerange(first, last)  # nobody's output waits for us
        poll = select.poll()
        poll.register(front, select.POLLIN)
        poll.poll()
        if group := os.read(told, 16):
            os.killpg(int(group), signal.SIGKILL)
    os._exit(0)


def _let_go(keeper: int) -> None:
    if keeper:
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _wait(pidfd: int, signals: int, came: Callable[[], frozenset[int]]) -> str | None:
    """Until it has ended. → why it is to be ended instead."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(signals, select.POLLIN)
    until = time.monotonic() + BOUND_S
    while (left := until - time.monotonic()) > 0:
        ready = {fd for fd, _event in poll.poll(left * 1000)}
        if pidfd in ready:
            return None
        if signals in ready and (stop := came() & _STOP):
            return f"was ended, because {signal.Signals(min(stop)).name} came"
    return f"took longer than {BOUND_S:g} s and was ended"
