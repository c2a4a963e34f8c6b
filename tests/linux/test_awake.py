"""Time at work and time stood still are told apart by the scheduler's own count."""

import os
import signal
import time

import pytest

from rankguard.linux.awake import Awake
from rankguard.linux.tree import reap_strays

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="a kernel without CONFIG_SCHED_INFO")


def test_work_counts():
    awake = Awake()
    began, before = awake(), time.thread_time()
    while time.thread_time() - before < 0.05:
        pass
    assert awake() - began >= 0.049  # it counts at the scheduler's ticks


def test_neither_a_sleep_nor_a_stop_counts():
    """A child that is stopped for a while, as we see it, then says how long it was awake and how much time went by."""
    said, say = os.pipe()
    go, told = os.pipe()
    child = os.fork()
    if child == 0:
        awake = Awake()
        began, at = awake(), time.monotonic()
        os.write(say, b"begun\n")
        os.read(go, 1)
        os.write(say, f"{awake() - began} {time.monotonic() - at}\n".encode())
        os._exit(0)
    try:
        assert os.read(said, 64) == b"begun\n"
        os.kill(child, signal.SIGSTOP)
        os.waitid(os.P_PID, child, os.WSTOPPED)
        stood = time.monotonic()
        while time.monotonic() - stood < 0.2:  # any time will do: what is compared is measured
            time.sleep(0.01)
        stood = time.monotonic() - stood
        os.kill(child, signal.SIGCONT)
        os.write(told, b".")
        awake, passed = map(float, os.read(said, 64).split())
        assert passed - awake >= stood / 2  # it is told to be stopped a moment before it is off its processor
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for fd in (said, say, go, told):
            os.close(fd)


def test_a_thread_that_cannot_be_asked_was_never_awake(monkeypatch):
    def refused(*_args):
        raise PermissionError

    monkeypatch.setattr(os, "open", refused)
    assert Awake()() == 0.0


def test_strays_are_reaped_and_what_is_kept_is_not():
    """Also behind one that is kept, which the kernel names first until somebody takes it."""
    pids = []
    for _ in range(3):
        if (pid := os.fork()) == 0:
            os._exit(7)
        pids.append(pid)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    kept, *strays = pids
    try:
        assert set(strays) <= set(reap_strays({kept}))
        assert os.waitid(os.P_PID, kept, os.WEXITED | os.WNOWAIT).si_status == 7
        for pid in strays:
            with pytest.raises(ChildProcessError):
                os.waitpid(pid, 0)
    finally:
        os.waitpid(kept, 0)
