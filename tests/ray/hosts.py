"""A Ray cluster on the hosts of a rig: a raylet on each, the head on the first. Its end is the rig's, or `stop`.

Ray's processes live in the hosts, and so do those that Ray starts. Needs Ray in this Python. Read next: `../nodes/rig.py`.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.nodes.rig import Host, Rig

PORT = 6379
ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
}


def start(rig: Rig, cpus: int) -> str:
    """Its address. Each node has so many CPUs, as far as Ray knows. Raises `OSError`."""
    head = rig.hosts[0].address
    for host in rig.hosts:
        first = host is rig.hosts[0]
        where = ["--head", f"--port={PORT}", "--include-dashboard=false"] if first else [f"--address={head}:{PORT}"]
        words = [str(Path(sys.executable).parent / "ray"), "start", *where, f"--node-ip-address={host.address}"]
        words += [f"--num-cpus={cpus}", "--object-store-memory=100000000", "--disable-usage-stats"]
        words += [f"--temp-dir={rig.folder}/{host.name}/ray"] if first else []
        done = host.popen(words, env=host.env(**ENV), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out, _none = done.communicate(timeout=120)
        if done.returncode:
            raise OSError(f"Ray cannot be started on {host.name}: {out.decode(errors='replace')[-1000:]}")
    return f"{head}:{PORT}"


def raylet(host: Host) -> int:
    """The process."""
    [pid] = [pid for pid, line in host.processes().items() if "/raylet/raylet " in line]
    return pid


def stop(rig: Rig) -> None:
    """Kill all that lives on the hosts."""
    for host in rig.hosts:
        while found := host.processes():
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
