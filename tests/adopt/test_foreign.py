import os
import select
import signal

import pytest
from tests.adopt.programs import until

from rankguard.linux import child, memory
from rankguard.linux.foreign import glance, pid_of, reaped_ending, zombie_ending
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


def test_a_glance_is_as_good_as_a_look():
    pid = os.fork()
    if pid == 0:
        signal.pause()
    until(lambda: child.state(pid)[0] == "S")  # its memory no longer grows
    how, held = glance(pid)
    assert (how, child.dying(pid)) == (None, None)
    assert held.peak_bytes == memory.rank_memory(pid).peak_bytes > 0
    os.kill(pid, signal.SIGSTOP)
    until(lambda: child.state(pid)[0] == "T")
    assert glance(pid)[0] is None
    os.kill(pid, signal.SIGKILL)
    until(lambda: child.state(pid)[0] == "Z")
    assert (glance(pid)[0], child.dying(pid)) == ("zombie", "zombie")
    os.waitpid(pid, 0)
    assert glance(pid) == ("zombie", memory.Memory())


def test_a_glance_at_one_on_its_way_out():
    """Large memory takes a while to be given back: it is seen exiting, with a SIGKILL pending before that."""
    seen = set()
    for _ in range(20):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            memory = bytearray(64 << 20)
            memory[::4096] = bytes([1]) * len(memory[::4096])
            os.write(writer, b"x")
            signal.pause()
        os.read(reader, 1)
        os.close(reader)
        os.close(writer)
        os.kill(pid, signal.SIGKILL)
        seen.add(glance(pid)[0])
        os.waitpid(pid, 0)
    assert seen <= {"killed", "exiting", "zombie"}
    assert seen & {"killed", "exiting"}
