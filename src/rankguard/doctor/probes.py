"""Run checks, each in a process of its own with a time limit: a dead NFS server, a hung driver or a bug costs one answer.

A child answers through a pipe and ends. One that is late is killed with everything that it started (its process group)
and not waited for: in an uninterruptible call it would not end. It dies with the doctor (PR_SET_PDEATHSIG), but for
`lasting` checks, which remove what they made first and have an alarm instead.
"""

import contextlib
import errno
import json
import os
import select
import signal
import time
from collections.abc import Sequence
from typing import NoReturn

from rankguard.doctor.check import UNKNOWN, Answer, Check, Finding, Machine, missing, unknown
from rankguard.linux.libc import PR_SET_PDEATHSIG, prctl
from rankguard.record import from_data, to_data
from rankguard.report.redact import Redactor

AT_ONCE = 8
"""Few enough for `ulimit -n 64`."""
_BROKEN = "the check itself failed"


class _Running:
    def __init__(self, check: Check, pid: int, pipe: int, limit_s: float) -> None:
        self.check, self.pid, self.pipe, self.limit_s = check, pid, pipe, limit_s
        self.until = time.monotonic() + limit_s
        self.said = b""


def examine(checks: Sequence[Check], machine: Machine) -> list[Finding]:
    """Every check's finding, in the order of `checks`."""
    ignored = signal.signal(signal.SIGCHLD, signal.SIG_DFL) == signal.SIG_IGN
    machine = machine.replace(sigchld_ignored=ignored)
    slow = _slowness()
    # Alone in our group: cgroup2 gives no memory groups below one that holds processes of others.
    answers = _round([check for check in checks if check.lasting], machine, 1, slow)
    answers |= _round([check for check in checks if not check.lasting], machine, AT_ONCE, slow)
    # Eight at a time may be more than a tight limit on processes lets through; one at a time is not.
    again = [check for check in checks if answers[check.id].found.startswith(_BROKEN)]
    answers |= _round(again, machine, 1, slow)
    redact = _redactor()
    return [_finding(check, answers[check.id], redact) for check in checks]


def _slowness() -> float:
    """How much longer than usual things take here (1 to 10), by one fork: 2 ms, or 100 under emulation or heavy load."""
    began = time.monotonic()
    try:
        pid = os.fork()
    except OSError:
        return 1.0
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return min(10.0, max(1.0, (time.monotonic() - began) / 0.01))


def _round(checks: Sequence[Check], machine: Machine, at_once: int, slow: float) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    waiting, running = list(checks), dict[int, _Running]()
    poll = select.poll()
    while waiting or running:
        while waiting and len(running) < at_once:
            try:
                started = _start(waiting[0], machine, slow)
            except OSError as error:
                if not running:
                    check = waiting.pop(0)
                    answers[check.id] = _cannot_fork(check, error)
                break
            del waiting[0]
            running[started.pipe] = started
            poll.register(started.pipe, select.POLLIN)
        nearest = min((each.until for each in running.values()), default=time.monotonic())
        for fd, _event in poll.poll(max(0.0, nearest - time.monotonic()) * 1000 + 1):
            each = running[fd]
            data = os.read(fd, 65536)
            each.said += data
            if not data:
                answers[each.check.id] = _answer(each)
                _forget(poll, running, each)
        for each in [each for each in running.values() if each.until <= time.monotonic()]:
            answers[each.check.id] = _failed(f"no answer within {each.limit_s:.2g} s")
            _kill(each.pid)
            _forget(poll, running, each)
    return answers


def _start(check: Check, machine: Machine, slow: float) -> _Running:
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        os.close(ours)
        os.close(theirs)
        raise
    if pid == 0:
        _work(check, machine, theirs, check.limit_s * slow)
    os.close(theirs)
    return _Running(check, pid, ours, check.limit_s * slow)


def _work(check: Check, machine: Machine, pipe: int, limit_s: float) -> NoReturn:
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if check.lasting:
            signal.alarm(int(limit_s) + 2)
        else:
            with contextlib.suppress(OSError):
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != machine.pid:
                os._exit(1)
        try:
            answer = check.probe(machine)
        except OSError as error:
            answer = _refused(check, error)
        except Exception as error:  # noqa: BLE001  # one answer is lost, the others are not
            answer = _failed(f"{_BROKEN}: {type(error).__name__}: {error}")
        data = json.dumps(to_data(answer)).encode()
        while data:
            data = data[os.write(pipe, data) :]
    finally:
        os._exit(0)


def _answer(each: _Running) -> Answer:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(each.pid, 0)
    try:
        return from_data(Answer, json.loads(each.said))
    except (ValueError, TypeError):
        return _failed("its process was killed")


def _cannot_fork(check: Check, error: OSError) -> Answer:
    found = f"unable to start a process: {error.strerror}"
    if check.id != "start-and-end":
        return _failed(found, "raise `ulimit -u` or pids.max")
    return missing(found, "no rank can be started", "raise `ulimit -u` or pids.max (check `process-count`)")


def _refused(check: Check, error: OSError) -> Answer:
    """A call that the kernel does not let through, and that no check foresaw: that is the answer."""
    if error.errno in (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.EACCES):
        cost = "ranks cannot be run" if check.essential else "what it looks at is not there"
        return missing(str(error), cost, "a newer kernel, or a sandbox that lets the call through (seccomp, gVisor)")
    return _failed(f"{_BROKEN}: {error}")


def _failed(found: str, cure: str = "rankguard doctor, once more; docs/doctor.md says what is looked at") -> Answer:
    return unknown(found, "it is not known whether this is there", cure)


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _forget(poll: select.poll, running: dict[int, _Running], each: _Running) -> None:
    poll.unregister(each.pipe)
    os.close(each.pipe)
    del running[each.pipe]


def _redactor() -> Redactor:
    redactor = Redactor()
    redactor.env(os.environ)
    return redactor


def _finding(check: Check, answer: Answer, redact: Redactor) -> Finding:
    def shown(text: str | None) -> str | None:
        return None if text is None else redact.text(text)

    essential = check.essential and answer.state != UNKNOWN
    return Finding(
        id=check.id,
        group=check.group,
        state=answer.state,
        found=redact.text(answer.found),
        cost=shown(answer.cost),
        cure=shown(answer.cure),
        essential=essential,
        details=answer.details,
    )
