"""The hosts are what the other tests take them for: apart from one another, joined by lines that can be cut, and mortal."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from tests.nodes.rig import HERE, SRC, Rig, needs_hosts

SERVER = """
import socket, sys
listening = socket.create_server(("", 7000))
print("listening", flush=True)
talk, _ = listening.accept()
while got := talk.recv(65536): talk.sendall(got)
"""
CLIENT = """
import socket, sys, time
talk = socket.create_connection((sys.argv[1], 7000))
size = int(sys.argv[2])
began = time.monotonic()
talk.sendall(b"x" * size)
while size: size -= len(talk.recv(65536))
print(time.monotonic() - began, flush=True)
for line in sys.stdin:
    talk.settimeout(float(line))
    talk.sendall(b"y")
    try: print(talk.recv(1), flush=True)
    except TimeoutError: print("nothing", flush=True)
talk.settimeout(60)
talk.shutdown(socket.SHUT_WR)
while talk.recv(10): pass
"""


class Talk:
    """A connection from host-b to host-a, that echoes; `took`: seconds of its first exchange, of `size` bytes."""

    def __init__(self, hosts, size=1):
        self._server = hosts[0].popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
        assert self._server.stdout.readline() == "listening\n"
        words = [sys.executable, "-c", CLIENT, hosts[0].name, str(size)]
        self._client = hosts[1].popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.took = float(self._client.stdout.readline())

    def again(self, patience=60.0):
        """Whether a byte comes back within so many seconds."""
        self._client.stdin.write(f"{patience}\n")
        self._client.stdin.flush()
        return self._client.stdout.readline() == "b'y'\n"

    def end(self):
        self._client.stdin.close()
        assert (self._client.wait(), self._server.wait()) == (0, 0)


def test_each_has_a_name_and_an_address_and_sees_the_others(hosts):
    assert [host.run("uname", "-n").strip() for host in hosts] == ["host-a", "host-b", "host-c", "host-d"]
    talk = Talk(hosts)
    assert talk.again()
    talk.end()


def test_apart_from_this_machine(hosts):
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        told = hosts[0].run(
            sys.executable, "-c", f"import socket; print(socket.socket().connect_ex(('127.0.0.1', {port})))"
        )
    assert told.strip() == "111"  # ECONNREFUSED
    hosts[0].run("touch", "/dev/shm/rig-canary")
    assert hosts[1].run("ls", "/dev/shm") == ""
    assert not os.path.exists("/dev/shm/rig-canary")
    hosts[0].run("rm", "/dev/shm/rig-canary")


def test_its_processes_are_found_wherever_they_go(hosts):
    script = (
        "import os; os.fork() or (os.setsid(), os.fork() and os._exit(0), os.execve('/bin/sleep', ['x', '60'], {}))"
    )
    child = hosts[2].popen([sys.executable, "-c", script + "; os.wait(); print('done', flush=True)"], stdout=-1)
    assert child.stdout.readline() == b"done\n"
    child.wait()
    while list((found := hosts[2].processes()).values()) != ["x 60"]:  # from fork to exec
        assert found
    assert hosts[1].processes() == {}
    os.kill(next(iter(found)), signal.SIGKILL)
    while hosts[2].processes():
        pass


def test_cut_and_mended(hosts):
    for silently in (False, True):
        talk = Talk(hosts)
        assert talk.again()
        hosts[1].cut(silently=silently)
        assert not talk.again(patience=0.2)
        hosts[1].mend()
        assert talk.again()  # TCP has kept both bytes, and brings one
        talk.end()


@pytest.mark.slow
def test_a_bad_line(hosts):
    hosts[1].shape(delay_ms=60, loss=5)
    talk = Talk(hosts, size=100_000)
    assert talk.took > 0.12
    hosts[1].shape()
    while seconds_of(talk) > 0.12:  # over the bad line none could be quicker
        pass
    talk.end()


def seconds_of(talk):
    """Of one more exchange."""
    began = time.monotonic()
    assert talk.again()
    return time.monotonic() - began


@pytest.mark.slow
def test_a_narrow_line(hosts):
    hosts[1].shape(rate=500_000)
    talk = Talk(hosts, size=100_000)
    talk.end()
    assert talk.took > 0.15


ABANDONED = """
import pathlib, sys, signal
from tests.nodes.rig import Rig
rig = Rig(2, pathlib.Path(sys.argv[1])).__enter__()
rig.hosts[1].popen(["setsid", "--fork", "sleep", "60"]).wait()
rig.hosts[1].popen(["sleep", "61"])
rig.hosts[1].shape(delay_ms=1)
while len(rig.hosts[1].processes()) < 2: pass
print(rig.pid, *rig.hosts[1].processes(), flush=True)
signal.pause()
"""


@needs_hosts
def test_nothing_outlives_whoever_made_them(tmp_path, wait_for_exit):
    env = os.environ | {"PYTHONPATH": f"{SRC}:{HERE.parent.parent}"}
    maker = subprocess.Popen([sys.executable, "-c", ABANDONED, str(tmp_path)], env=env, stdout=-1, text=True)
    pids = [int(pid) for pid in maker.stdout.readline().split()]
    assert len(pids) == 3
    maker.kill()
    maker.communicate()
    for pid in pids:
        wait_for_exit(pid)


@needs_hosts
def test_two_at_once(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    with Rig(1, tmp_path / "a") as one, Rig(1, tmp_path / "b") as other:
        child = one.hosts[0].popen(["sleep", "60"])
        while child.pid not in one.hosts[0].processes():
            pass
        assert other.hosts[0].processes() == {}
