"""The supervisor's side of a warm start: the server that has imported the program's modules, and forks of it.

`inside/warm.py` is the server. It is our child and dies with us; what it forks becomes our child as well, since we are
a subreaper and its own parent ends at once. Where anything speaks against it ranks are executed, and why is told:
here before a server is started (`why_not_warm`), by the server itself after each import. How long it lives:
`warmstart.py`.
"""

import contextlib
import errno
import json
import os
import select
import signal
import socket
import struct
from typing import Any

from rankguard.inside import BOOTSTRAP
from rankguard.jobspec import JobSpec
from rankguard.launchers.environment import rank_environment
from rankguard.linux import spawn
from rankguard.linux.files import devnull

MESSAGE_MOST = 1 << 20
ANSWER_S = 5.0
"""From a request to the pid of the rank, which takes milliseconds."""
ENDING_S = 0.5
_RECORD = struct.Struct("ii")
_PID = -1
_OF_A_RANK = ("RANK", "LOCAL_RANK", "ROLE_RANK", "NOTIFY_SOCKET", "TORCHELASTIC_ERROR_FILE", "WATCHDOG_PID")
_OF_AN_ATTEMPT = ("MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
_READ_BY_THE_LOADER = ("PYTHON", "LD_", "MALLOC_", "GLIBC_TUNABLES", "OMP_", "MKL_", "OPENBLAS_")
"""Read in C, at the start of the process or of a library, where nobody can see it."""


def why_not_warm(spec: JobSpec) -> str | None:
    """What speaks against a warm start before anything is tried; null when nothing does."""
    if not spec.python or BOOTSTRAP not in spec.argv:
        return "the ranks are not Python under rankguard's bootstrap"
    if spec.debug_rank is not None:
        return "one rank has the terminal itself"
    if spec.numa_binding is not None:
        return "ranks are bound to processors before they touch memory"
    if spec.macros and any("${local_rank}" in word for word in spec.argv):
        return "the ranks' arguments differ"
    for name in sorted(own_names(spec)):
        if name.startswith(_READ_BY_THE_LOADER):
            return f"{name} differs between the ranks"
    return None


class WarmServer:
    """One server. `fileno` is readable when it has an answer (`answered`); `fork` then makes ranks."""

    def __init__(self, spec: JobSpec, port: int) -> None:
        """Raises `OSError` when the process cannot be made."""
        differ = own_names(spec) | set(_OF_A_RANK) | set(_OF_AN_ATTEMPT if spec.max_restarts else ())
        env = {n: v for n, v in rank_environment(spec, 0, port, None, None).items() if n not in differ}
        self._env = env
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            null = devnull()
            try:
                command = spawn.Command(
                    argv=spec.argv,
                    env=env | {"RANKGUARD_WARM": "3"},
                    cwd=spec.cwd,
                    stdio=(null, null, null),
                    passed=(theirs.fileno(),),
                    nofile=spec.nofile,
                    ignore=(signal.SIGHUP,) if spec.ignore_hup else (),
                )
                self._process = spawn.spawn(command)
            finally:
                os.close(null)
        except OSError:
            self._line.close()
            raise
        finally:
            theirs.close()
        order = {
            "modules": None if spec.preload is None else list(spec.preload),
            "program": list(spec.imports_of or spec.argv[spec.argv.index(BOOTSTRAP) + 1 :]),
            "path": list(spec.import_path),
            "strict": spec.chosen,
            "differ": sorted(differ),
            "env": env,
            "supervisor": os.getpid(),
        }
        try:
            self._send(order)
        except OSError:  # an environment that no message holds (EMSGSIZE), or it has ended already
            self.end()
            os.waitid(os.P_PIDFD, self._process.pidfd, os.WEXITED)
            os.close(self._process.pidfd)
            raise

    def fileno(self) -> int:
        return self._line.fileno()

    @property
    def pid(self) -> int:
        return self._process.pid

    def answered(self) -> dict[str, Any]:
        """`{"is": "ready", "modules": […]}` or `{"is": "refused", "because": …}`; call when `fileno` is readable."""
        try:
            data = self._line.recv(MESSAGE_MOST)
        except OSError:
            data = b""
        if data:
            return dict(json.loads(data))
        return {"is": "refused", "because": f"the warm server {self._ended()}"}

    def fork(self, command: spawn.Command) -> spawn.Started:
        """One rank. Raises `OSError` when it has to be executed instead; nothing of it is alive then."""
        news, report = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            try:
                fds = (report, *command.join, *command.stdio, *command.passed)
                own = {name: value for name, value in command.env.items() if self._env.get(name) != value}
                self._send({"env": own, "joins": len(command.join)}, fds)
            finally:
                os.close(report)
            pid = self._pid(news)
            return spawn.Started(pid, os.pidfd_open(pid), news)
        except OSError:
            os.close(news)
            raise

    def is_alive(self) -> bool:
        """It has not ended."""
        return not _readable(self._process.pidfd, 0)

    def end(self) -> None:
        """Make it end; the ranks live on. `gone` says when it has."""
        self._line.close()
        os.close(self._process.news)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process.pidfd, signal.SIGKILL)

    def gone(self) -> bool:
        """After `end`: it is reaped, here or by whoever reaps strays; then it is no child of ours any more."""
        try:
            if os.waitid(os.P_PIDFD, self._process.pidfd, os.WEXITED | os.WNOHANG) is None:
                return False
        except ChildProcessError:
            pass
        os.close(self._process.pidfd)
        return True

    def _send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        socket.send_fds(self._line, [json.dumps(message).encode()], fds)

    def _pid(self, news: int) -> int:
        """What the rank itself says once it is our child. No rank is reaped meanwhile: we do nothing else."""
        if not _readable(news, ANSWER_S):
            raise OSError(0, "the warm server did not answer")
        data = os.read(news, _RECORD.size)
        if len(data) < _RECORD.size:
            raise OSError(0, f"the warm server {self._ended()}")
        told, value = _RECORD.unpack(data)
        if told != _PID:
            doubt = self._line.recv(MESSAGE_MOST).decode() if value == errno.EDEADLK else os.strerror(value)
            raise OSError(value, f"the warm server was unable to fork: {doubt}")
        return int(value)

    def _ended(self) -> str:
        """How; its line is closed a moment before it has ended."""
        _readable(self._process.pidfd, ENDING_S)
        ended = os.waitid(os.P_PIDFD, self._process.pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is None:
            return "closed its line"
        if ended.si_code == os.CLD_EXITED:
            return f"ended with exit code {ended.si_status}"
        return f"was ended by {signal.Signals(ended.si_status).name}"


def _readable(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def own_names(spec: JobSpec) -> set[str]:
    """Variables that differ between the ranks of this job, beside those that always do."""
    names = {name for env in spec.rank_env for name in env}
    if spec.virtual_local_rank:
        from rankguard.linux.devices import visible_ids

        names.update(visible_ids(spec.env)[0])
    return names
