"""`rankguard agent`: the front of one node's part of a job, for whoever places agents; nobody types it, no help names it.

stdin: one line, the job as `record.to_data` makes it. Then stdin stays open: its end means that whoever placed this agent
is gone (a line before may say why), and the ranks end as after a SIGTERM. It prints nothing but its own faults; the exit status is the verdict's.
Read next: `front/main.py`; `../supervisor/nodes/uplink.py` (its supervisor's link to the coordinator).
"""

import fcntl
import json
import os
from collections.abc import Sequence
from types import SimpleNamespace

from rankguard.cli.arguments import parse
from rankguard.errors import UsageError
from rankguard.facts import LET_GO
from rankguard.jobspec import JobSpec
from rankguard.linux.files import devnull
from rankguard.record import from_data
from rankguard.runs.folder import make_run_dir, new_run_id

GONE = LET_GO
_MOST = 256 << 20
"""Bytes of a job: a function's arguments are in it."""
_HIGH = 10


def agent(words: Sequence[str]) -> int:
    """Run one node's part; the exit status. Raises `UsageError` and `SpawnFailed` before anything is started."""
    if words or os.isatty(0):
        raise UsageError("`rankguard agent` is started by rankguard itself", "rankguard run --nnodes N")
    leash = Leash()
    spec = _job(leash.first_line()).replace(run_id=new_run_id())  # two agents may be on one machine
    if spec.run_dir is None:
        spec = spec.replace(run_dir=make_run_dir(_folder(spec))[0])
    passed = []
    if spec.cargo is not None:
        from rankguard.launchers.function import unpack

        passed = [unpack(spec.cargo)]
        spec = spec.replace(cargo=None)
    from rankguard.cli.front.main import Front

    return Front(_asked(), spec, leash, passed).run()


class Leash:
    """Our stdin: a line of news, then a sign of life of whoever placed us. The ranks get another one."""

    def __init__(self) -> None:
        self._fd = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        null = devnull()
        os.dup2(null, 0)
        os.close(null)
        self.why = ""
        """What was said before the end, cut to one line."""

    def fileno(self) -> int:
        return self._fd

    def first_line(self) -> bytes:
        """Raises `UsageError` when there is none."""
        read = bytearray()
        while b"\n" not in read:
            got = os.read(self._fd, 1 << 20)
            read += got
            if not got or len(read) > _MOST:
                raise UsageError("`rankguard agent`: expected a job on stdin, in one line", "rankguard run --nnodes N")
        return bytes(read[: read.index(b"\n")])

    def is_let_go(self) -> bool:
        """There is news, and it is the end."""
        try:
            said = os.read(self._fd, 4096)
        except OSError:
            return True
        self.why = " ".join(said.decode(errors="replace").split())[:200] or self.why
        return not said


def _job(line: bytes) -> JobSpec:
    try:
        return from_data(JobSpec, json.loads(line))
    except (ValueError, TypeError, LookupError, RecursionError, AttributeError) as error:
        raise UsageError(f"`rankguard agent`: expected a job on stdin ({type(error).__name__})") from error


def _folder(spec: JobSpec) -> str:
    """Beside those of other nodes, where they have one disk in common."""
    return spec.run_id if spec.share is None else f"{spec.run_id}-node-{spec.share.node}"


def _asked() -> SimpleNamespace:
    """As of a command that says nothing."""
    return parse(["--report", "none", "--quiet", "agent"], {})
