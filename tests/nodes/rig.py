"""Several machines on one: hosts with a network, a host name, mounts and shared memory of their own, that can be cut off.

    with Rig(4, folder) as rig:
        first = rig.hosts[0].popen([sys.executable, "-m", "rankguard", …])
        rig.hosts[2].cut()

What a host cannot have of its own here is its clock, its processes' numbers and its control groups: all hosts see the
machine's. A process belongs to the host whose network it is in, whatever else it does (`Host.processes`).

Leaving the block kills what lives in the hosts and takes them away; so does the end of the process that made them
(`switchyard.py`). Root only. Read next: `jobs.py`, which starts rankguard on each.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

HERE = Path(__file__).resolve().parent
SRC = HERE.parent.parent / "src"
PYTHON = (sys.executable, "-I", "-S")
NAMES = tuple(f"host-{letter}" for letter in "abcdefghijklmnop")


class Rig:
    """So many hosts on one switch: `hosts[0]` is `host-a` at 10.77.0.1. A block."""

    def __init__(self, count: int, folder: Path) -> None:
        self.folder = folder
        self.hosts: list[Host] = []
        self._count = count
        self._yard: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        words = [*PYTHON, str(HERE / "switchyard.py"), str(self.folder), *NAMES[: self._count]]
        self._yard = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._yard.stdout is not None
        told = self._yard.stdout.readline()
        if not told:
            self.close()
            raise OSError("the hosts cannot be made: see stderr")
        made = json.loads(told)
        self.hosts = [Host(made["pid"], each, self.folder / each["name"]) for each in made["hosts"]]
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the process that keeps the hosts."""
        assert self._yard is not None
        return self._yard.pid

    def close(self) -> None:
        """Kill what lives in the hosts, and take them away."""
        for host in self.hosts:
            host.forget()
        if self._yard is not None:
            self._yard.communicate()  # closes its stdin, and returns when it has ended

    def repair(self) -> None:
        """All lines whole and quick again."""
        for host in self.hosts:
            host.mend()
            host.shape()


class Host:
    """One of them. `made`: as `switchyard.py` told it."""

    def __init__(self, yard: int, made: Mapping[str, Any], folder: Path) -> None:
        self.name, self.address = str(made["name"]), str(made["address"])
        self.home = folder / "runs"
        self.folder = folder
        self._port, self._yard = str(made["port"]), f"/proc/{yard}/ns/net"
        self._enter = [
            "nsenter", *(f"--{_OPTION[kind]}=/proc/{yard}/fd/{fd}" for kind, fd in made["fds"].items()), "--wdns",
        ]  # fmt: skip
        self._network = os.stat(f"/proc/{yard}/fd/{made['fds']['net']}").st_ino
        self._wire: subprocess.Popen[str] | None = None
        self._started: list[subprocess.Popen[Any]] = []
        self._is_cut = ""
        (folder / "tmp").mkdir(parents=True)
        self.home.mkdir()

    def env(self, **more: str) -> dict[str, str]:
        """Ours, without what is said about runs in it, and with this checkout's rankguard."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RANK", "PYTEST", "XDG_"))}
        own = {"PYTHONPATH": str(SRC), "RANKGUARD_HOME": str(self.home), "TMPDIR": str(self.folder / "tmp")}
        return kept | own | {"GLOO_SOCKET_IFNAME": "eth0"} | more

    def popen(self, words: Sequence[str], env: Mapping[str, str] | None = None, **how: Any) -> subprocess.Popen[Any]:
        """Start a command here, in a session of its own; its pid is the command's. It is killed when the rig is closed."""
        how = {"stdin": subprocess.DEVNULL, "start_new_session": True, "cwd": self.folder} | how
        child = subprocess.Popen(
            [*self._enter[:-1], f"--wdns={how['cwd']}", "--", *words], env=dict(env or self.env()), **how
        )
        self._started.append(child)
        return child

    def run(self, *words: str) -> str:
        """The output of a command that is run here, and succeeds."""
        done = self.popen(words, stdout=subprocess.PIPE, text=True)
        out, _err = done.communicate()
        assert done.returncode == 0, f"{words} on {self.name}: {done.returncode}"
        return str(out)

    def processes(self) -> dict[int, str]:
        """What lives here, zombies left out: pid → command line. A process that is being taken down by the kernel counts."""
        found = {}
        for name in os.listdir("/proc"):
            if name.isdecimal():
                try:
                    if os.stat(f"/proc/{name}/ns/net").st_ino == self._network:
                        found[int(name)] = command_line(int(name))
                except OSError:  # it has ended
                    pass
        return found

    def cut(self, *, silently: bool = False) -> None:
        """Nothing comes or goes any more. `silently`: the host's own interface sees no change, as when a switch further on fails."""
        self.mend()
        self._is_cut = self._at_switch
        self._switch("nomaster" if silently else "down")

    def mend(self) -> None:
        """The line is whole again."""
        if self._is_cut:
            self._switch("master", "br0", "up")
            self._is_cut = ""

    def shape(self, delay_ms: float = 0, loss: float = 0, rate: float = 0) -> None:
        """Each way: so late, so many per cent lost, so many bytes a second at most (0: no bound). All 0: as it was."""
        assert not self._is_cut, "shape it before it is cut"
        if self._wire is not None:
            self._wire.kill()
            self._wire.communicate()
            self._wire = None
            self._ip("link", "del", f"{self._port}x")
            self._switch("master", "br0", "up")
        if delay_ms or loss or rate:
            self._ip("link", "add", f"{self._port}x", "type", "veth", "peer", "name", f"{self._port}y")
            self._ip("link", "set", f"{self._port}y", "up")
            self._switch("nomaster", "up")
            self._ip("link", "set", f"{self._port}x", "master", "br0", "up")
            words = [*PYTHON, str(HERE / "wire.py"), self._port, f"{self._port}y", str(delay_ms), str(loss), str(rate)]
            self._wire = subprocess.Popen(
                ["nsenter", f"--net={self._yard}", "--", *words], stdout=subprocess.PIPE, text=True
            )
            assert self._wire.stdout is not None
            assert self._wire.stdout.readline() == "carrying\n"

    def forget(self) -> None:
        """What was started here is killed and reaped, its pipes are closed; the line is whole."""
        for child in self._started:
            if child.poll() is None:
                child.kill()
        for child in self._started:
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    stream.close()
        self._started.clear()
        self.mend()
        self.shape()

    @property
    def _at_switch(self) -> str:
        """Our port, or the far end of the bad line to it."""
        return self._port if self._wire is None else f"{self._port}x"

    def _switch(self, *how: str) -> None:
        self._ip("link", "set", self._is_cut or self._port, *how)

    def _ip(self, *words: str) -> None:
        subprocess.run(["nsenter", f"--net={self._yard}", "--", "ip", *words], check=True)


_OPTION = {"net": "net", "uts": "uts", "ipc": "ipc", "mnt": "mount"}


def command_line(pid: int) -> str:
    """Of a process; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", errors="replace") as file:
            return file.read().replace("\0", " ").strip()
    except OSError:
        return ""


@functools.cache
def why_not() -> str | None:
    """Why no hosts can be made here; null when they can."""
    if os.getuid() != 0:
        return "hosts in network namespaces need root"
    script = "ip link add try0 type bridge && ip link add try1 type veth peer name try2 && mount -t tmpfs none /mnt"
    try:
        tried = subprocess.run(
            ["unshare", "--net", "--uts", "--ipc", "--mount", "sh", "-c", script], capture_output=True, text=True
        )
    except OSError as error:
        return f"hosts cannot be made: {error}"
    return None if tried.returncode == 0 else f"hosts cannot be made: {tried.stderr.strip()}"


needs_hosts = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
