"""Debian's Slurm on the hosts of a rig: slurmctld on the first, a slurmd on each, a munged for all of them.

Each slurmd has a host of its own, so this needs no Slurm that was built for several on one machine, and no file of this
machine's: configuration, key, state and logs are in one folder. Slurm's own processes live in the hosts, except for munged.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.nodes.rig import Host

NEEDED = ("slurmctld", "slurmd", "srun", "scancel", "munged")
CONF = """
ClusterName=rig
SlurmctldHost={first.name}({first.address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/linear
ReturnToService=2
KillWait=10
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
"""


class Slurm:
    """A cluster of `hosts`. A block: it is taken down at the end, with its jobs."""

    def __init__(self, hosts: Sequence[Host], folder: Path) -> None:
        self._hosts, self._folder = hosts, folder
        self._munged: subprocess.Popen[bytes] | None = None
        self._daemons: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def popen(self, words: Sequence[str], **how: Any) -> subprocess.Popen[Any]:
        """A command of Slurm's, on the first host."""
        return self._hosts[0].popen(words, **({"env": self.env()} | how))

    def run(self, *words: str) -> str:
        """Its output, when it succeeds."""
        done = self.popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        out, _none = done.communicate(timeout=30)
        assert done.returncode == 0, f"{words}: {done.returncode} {out}"
        return str(out)

    def close(self) -> None:
        for daemon in self._daemons:
            daemon.terminate()
        for daemon in self._daemons:
            daemon.wait(timeout=30)
        if self._munged is not None:
            self._munged.terminate()
            self._munged.wait(timeout=30)

    def _start(self) -> None:
        secret, run = self._folder / "munge" / "key", self._folder / "munge"
        run.mkdir(mode=0o711)
        (self._folder / "state").mkdir()
        secret.touch(mode=0o600)
        secret.write_bytes(os.urandom(128))
        words = [f"--{name}-file={run}/{name}" for name in ("key", "pid", "log", "seed")]
        words += ["--foreground", f"--socket={run}/socket"]
        words += ["--force"]  # its socket is in a folder that is ours alone
        with open(self._folder / "munged.log", "wb") as log:
            self._munged = subprocess.Popen(["munged", *words], stderr=log)
        conf = CONF.format(first=self._hosts[0], folder=self._folder)
        for host in self._hosts:
            conf += f"NodeName={host.name} NodeAddr={host.address} CPUs={os.cpu_count()} State=UNKNOWN\n"
        conf += "PartitionName=all Nodes=ALL Default=YES State=UP\n"
        (self._folder / "slurm.conf").write_text(conf)
        (self._folder / "cgroup.conf").write_text("")
        self._until("munged", (run / "socket").exists)
        env = self.env()
        log = open(self._folder / "daemons.log", "wb")  # noqa: SIM115 - for as long as they live
        with log:
            self._daemons.append(self._hosts[0].popen(["slurmctld", "-D", "-i"], env=env, stdout=log, stderr=log))
            for host in self._hosts:
                words = ["slurmd", "-D", "-N", host.name]
                self._daemons.append(host.popen(words, env=env, stdout=log, stderr=log))
        self.until_idle()

    def until_idle(self) -> None:
        """Wait until no node has anything to do."""
        wanted = ["idle"] * len(self._hosts)
        self._until("the nodes", lambda: self._states() == wanted)

    def _states(self) -> list[str]:
        done = self.popen(
            ["sinfo", "-h", "-N", "-o", "%T"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        return list(done.communicate(timeout=30)[0].split())

    def _until(self, what: str, there: Any, limit: float = 30.0) -> None:
        until = time.monotonic() + limit
        while not there():
            assert time.monotonic() < until, f"{what} did not come within {limit} s: {self.logs()}"

    def logs(self) -> str:
        """The end of every log."""
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(self._folder.glob("*.log")))

    def env(self, **more: str) -> dict[str, str]:
        return self._hosts[0].env(SLURM_CONF=str(self._folder / "slurm.conf"), **more)


def why_not() -> str | None:
    """Why there is no Slurm; null when there is."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    return f"there is no {', '.join(missing)}: install Slurm (on Debian: slurm-wlm)" if missing else None
