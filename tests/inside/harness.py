"""The supervisor's side of a rank, as little of it as the tests of `inside/` need."""

import itertools
import json
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import rankguard.inside

BOOTSTRAP = str(Path(rankguard.inside.__file__).with_name("bootstrap.py"))
SRC = str(Path(rankguard.inside.__file__).parents[2])
HANGS = 60
_numbers = itertools.count()
_ours = uuid.uuid4().hex[:12]  # containers that share a network count their processes alike


class Supervisor:
    """A real datagram socket, and what arrived on it. A message is in its queue before the sender goes on."""

    def __init__(self, address=None):
        self.address = address or f"@rankguard-test-{_ours}-{next(_numbers)}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.address[1:] if self.address.startswith("@") else self.address)
        self.socket.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def datagrams(self):
        """All that have come, with the descriptors that came along."""
        found = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 1 << 20, 4)
            except BlockingIOError:
                return found
            found.append((data, fds))

    def messages(self):
        return [dict(line.split("=", 1) for line in data.decode().split("\n")) for data, _ in self.datagrams()]

    def exceptions(self):
        found = self.messages()
        assert all(list(message) == ["X_RANKGUARD_EXCEPTION"] for message in found)
        return [json.loads(message["X_RANKGUARD_EXCEPTION"]) for message in found]

    def exception(self):
        [found] = self.exceptions()
        return found


def environment(supervisor=None, **more):
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    env = {name: os.environ[name] for name in names if name in os.environ}
    env |= {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "RANKGUARD_RUN_ID": "7f3a"}
    if supervisor is not None:
        env["NOTIFY_SOCKET"] = supervisor.address
    return {name: value for name, value in (env | more).items() if value is not None}


def python(*arguments, cwd, env=None, **more):
    """Runs Python to its end."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd, env=env or environment(), capture_output=True, text=True, timeout=HANGS, **({"stdin": subprocess.DEVNULL} | more),
    )  # fmt: skip


def rank(*arguments, cwd, flags=(), **more):
    """Runs a program as a rank: `arguments` are its own."""
    return python(*flags, BOOTSTRAP, *arguments, cwd=cwd, **more)


def outcome(done):
    return {"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def start_function(shipment, supervisor=None, flags=(), cwd=None, **env):
    """A rank that runs a shipment, with its descriptors where the supervisor puts them: 3, 4, 5, …"""
    wanted = [shipment.memfd, *shipment.fds]
    high = [os.dup2(fd, 400 + i, inheritable=False) for i, fd in enumerate(wanted)]
    out, err = os.pipe(), os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, out[1], 1), (os.POSIX_SPAWN_DUP2, err[1], 2)]
    actions += [(os.POSIX_SPAWN_DUP2, fd, 3 + i) for i, fd in enumerate(high)]
    try:
        pid = os.posix_spawn(
            sys.executable, [sys.executable, *flags, BOOTSTRAP, "--function", "3"], environment(supervisor, **env),
            file_actions=actions,
        )  # fmt: skip
    finally:
        for fd in (*high, out[1], err[1]):
            os.close(fd)
    return Started(pid, out[0], err[0])


class Started:
    """A rank whose output is read to its end by `wait`."""

    def __init__(self, pid, out, err):
        self.pid, self._out, self._err = pid, out, err

    def wait(self):
        with open(self._out) as out, open(self._err) as err:
            stdout, stderr = out.read(), err.read()
        _, status = os.waitpid(self.pid, 0)
        return subprocess.CompletedProcess(self.pid, os.waitstatus_to_exitcode(status), stdout, stderr)
