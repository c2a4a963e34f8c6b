"""What one look at `/proc` says of processes that run, stop and die."""

import os
import resource
import signal

from tests.adopt.programs import until

from rankguard.linux import child
from rankguard.linux.glance import glance
from rankguard.model import Memory


def test_alive_stopped_zombie_gone():
    pid = os.fork()
    if pid == 0:
        signal.pause()
    until(lambda: child.state(pid)[0] == "S")
    how, held = glance(pid)
    assert how is None
    assert 0 < held.rss_bytes <= held.peak_bytes
    os.kill(pid, signal.SIGSTOP)
    until(lambda: child.state(pid)[0] == "T")
    assert glance(pid)[0] is None
    os.kill(pid, signal.SIGKILL)
    until(lambda: child.state(pid)[0] == "Z")
    assert glance(pid) == ("zombie", Memory())
    os.waitpid(pid, 0)
    assert glance(pid) == ("zombie", Memory())


def test_one_on_its_way_out():
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


def test_without_a_descriptor_to_spare_nobody_is_called_dead():
    pid = os.fork()
    if pid == 0:
        asked = os.fork()
        if asked == 0:
            signal.pause()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        told = glance(asked)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.kill(asked, signal.SIGKILL)
        os.waitpid(asked, 0)
        os._exit(0 if told == (None, Memory()) else 1)
    assert os.waitpid(pid, 0)[1] == 0
