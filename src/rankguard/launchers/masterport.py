"""MASTER_PORT of a job: the one that is given, or a free one that is held until the job ends. Not its use: `environment.py`."""

from socket import socket

from rankguard.errors import SpawnFailed
from rankguard.jobspec import JobSpec
from rankguard.linux import ports


def master_port(spec: JobSpec) -> tuple[int, socket | None]:
    """The port that is given, or a free one with what holds it: each attempt has its own, since what an earlier one left
    on its port is not known. Raises `SpawnFailed`.
    """
    if spec.watch is not None:
        return 0, None  # an engine has its own
    if spec.master_port is not None:
        return spec.master_port, None
    try:
        return ports.hold_free_port()
    except OSError as error:
        raise SpawnFailed(f"unable to choose a MASTER_PORT: {error}", hint="--master-port 29500") from error
