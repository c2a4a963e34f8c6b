"""What the process of a container is given by the kubelet, and whether we are that process, or below it.

Read next: `../cli/lastword.py`, `../doctor/pod.py`.
"""

import os

from rankguard.linux.files import read_text

TERMINATION_LOG = "/dev/termination-log"
"""Kubernetes' own default (`terminationMessagePath`); made by the kubelet, a file for each start of a container."""


def entered() -> bool:
    """We came into the container from outside (`kubectl exec`): its last word is not ours.

    Such a process, or one above it, has no parent in this PID namespace and is not its first process. Where the PID
    namespace is the whole pod's (its first process is `pause`) that is so for every container's own process as well.
    """
    pid = str(os.getpid())
    for _ in range(1000):
        if pid == "1":
            return False
        status = (read_text(f"/proc/{pid}/status") or "").splitlines()
        parent = next((line.split()[1] for line in status if line.startswith("PPid:")), None)
        if parent is None:  # not for us to see
            return False
        if parent == "0":
            return (read_text("/proc/1/comm") or "").strip() != "pause"
        pid = parent
    return False
