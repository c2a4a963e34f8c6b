import os
import select
import signal

import pytest

from rankguard.linux import child
from rankguard.linux.foreign import pid_of, reaped_ending, zombie_ending
from rankguard.model import Ending

REAPED_IS_TOLD = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)


@pytest.mark.parametrize(
    ("end", "ending"),
    [
        (lambda: os._exit(7), Ending("exit", code=7)),
        (lambda: os._exit(0), Ending("exit", code=0)),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), child.by_signal(9)),
    ],
)
def test_before_and_after_the_reap(end, ending):
    pid = os.fork()
    if pid == 0:
        end()
    pidfd = os.pidfd_open(pid)
    select.select([pidfd], [], [])
    assert (zombie_ending(pid, pidfd), reaped_ending(pidfd), pid_of(pidfd)) == (ending, None, pid)
    os.waitpid(pid, 0)
    assert (zombie_ending(pid, pidfd), pid_of(pidfd)) == (None, None)
    assert reaped_ending(pidfd) == (ending if REAPED_IS_TOLD else None)
    os.close(pidfd)


def test_one_that_lives():
    pidfd = os.pidfd_open(os.getpid())
    assert (zombie_ending(os.getpid(), pidfd), reaped_ending(pidfd)) == (None, None)
    os.close(pidfd)


@pytest.mark.skipif(os.getuid() != 0, reason="needs to be root to become somebody who may not look")
def test_without_the_right_nothing_is_guessed():
    """The kernel prints 0 as the code of a stranger's zombie."""
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    pidfd = os.pidfd_open(pid)
    select.select([pidfd], [], [])
    asker = os.fork()
    if asker == 0:
        os.setresuid(65534, 65534, 65534)
        os._exit(0 if zombie_ending(pid, pidfd) is None else 1)
    assert os.waitpid(asker, 0)[1] == 0
    os.close(pidfd)
    os.waitpid(pid, 0)
