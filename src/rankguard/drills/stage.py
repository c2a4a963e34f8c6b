"""Where a drill is played: a temporary folder, the real command, and the proof that nothing of it is left.

This process is a subreaper meanwhile, so that whatever escapes falls to it, and "no child" is the kernel's own word.
The command dies with us (PR_SET_PDEATHSIG), and rankguard ends its ranks when it is gone: a drill that is killed leaves
a folder and nothing else. Not a test runner: one drill at a time, in the foreground.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn, Self

from rankguard.errors import SpawnFailed
from rankguard.linux import tree
from rankguard.linux.libc import PR_SET_PDEATHSIG, become_subreaper, prctl
from rankguard.runs import make_run_dir, new_run_id

PREFIX = "rankguard-drill-"
"""Of temporary folders, control groups and segments; our pid follows, so that `doctor` can tell whose they were."""
START_S = 60.0
GONE_S = 15.0


class Interrupted(BaseException):  # as KeyboardInterrupt: nobody may take it for a failure
    """SIGINT, SIGTERM or SIGHUP came; `number` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stage:
    """One drill's folder and processes; a block, after which neither is there."""

    def __init__(self, name: str, ranks: int) -> None:
        self.name, self.ranks = name, ranks
        self.front: subprocess.Popen[bytes] | None = None
        self.pids: dict[int, int] = {}
        """Rank → pid, once `wait_started` has returned."""
        self.shm = f"/dev/shm/{PREFIX}{os.getpid()}"  # noqa: S108  # the place itself is the subject
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._undo.callback(signal.signal, number, signal.signal(number, _interrupted))
        become_subreaper()
        try:
            made = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", ignore_cleanup_errors=True)
        except OSError as error:
            said = f"unable to make a temporary folder: {error.strerror or error}"
            raise SpawnFailed(said, error.errno, 125, "TMPDIR=/a/folder/that/can/be/written") from error
        self.folder = self._undo.enter_context(made)
        os.mkfifo(f"{self.folder}/started")
        self._started = os.open(f"{self.folder}/started", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._undo.callback(os.close, self._started)
        self.run_id = f"drill-{self.name}-{new_run_id()}"
        self.run_dir = make_run_dir(self.run_id)[0] or f"{self.folder}/run"
        self._undo.callback(self._remove_shm)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        with contextlib.suppress(Interrupted):
            if self.front is not None and self.front.poll() is None:
                self.front.kill()
        while True:  # however often it is interrupted
            try:
                self.wait_empty()
            except Interrupted:
                continue
            break
        if isinstance(error, Interrupted | SpawnFailed):
            shutil.rmtree(self.run_dir, ignore_errors=True)
        self._undo.close()

    def fifo(self, name: str) -> None:
        """A meeting point for the ranks."""
        os.mkfifo(f"{self.folder}/{name}")

    def start(self, words: Sequence[str], wrap: Sequence[str] = ()) -> None:
        """`rankguard run WORDS…`, its output where ours goes."""
        command = [*wrap, sys.executable, "-m", "rankguard", "run", "-n", str(self.ranks), "--run-dir", self.run_dir]
        env = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        sys.stdout.flush()
        self.front = subprocess.Popen(
            [*command, *words],
            stdin=subprocess.DEVNULL,
            env=env,
            cwd=self.folder,
            preexec_fn=_die_with_us,  # noqa: PLW1509  # one thread
        )

    def wait_started(self) -> None:
        """Until every rank has said that it runs. Raises `SpawnFailed` when the command ends first."""
        assert self.front is not None
        poll = select.poll()
        poll.register(self._started, select.POLLIN)
        pidfd = os.pidfd_open(self.front.pid)
        poll.register(pidfd, select.POLLIN)
        said = b""
        until = time.monotonic() + START_S
        try:
            while said.count(b"\n") < self.ranks:
                ready = {fd for fd, _event in poll.poll(max(0.0, until - time.monotonic()) * 1000)}
                if self._started in ready:
                    said += os.read(self._started, 4096)
                elif pidfd in ready or not ready:
                    raise SpawnFailed("the ranks of the drill have not begun")
        finally:
            os.close(pidfd)
        self.pids = {int(rank): int(pid) for rank, pid in (line.split() for line in said.split(b"\n") if line)}

    def ours(self) -> tuple[int, int]:
        """The pids of the warden and of the supervisor."""
        assert self.front is not None
        warden = tree.children(self.front.pid)[0]
        return warden, tree.children(warden)[0]

    def wait(self) -> int:
        """The command's exit status; minus the signal that ended it."""
        assert self.front is not None
        return self.front.wait()

    def wait_empty(self) -> list[str]:
        """Until no process of the drill is left; what refused to end, and has been killed then."""
        if self.front is not None:
            self.front.wait()
        until = time.monotonic() + GONE_S
        while not _reaped():
            left = tree.alive()
            if left and not _wait_any(left, until - time.monotonic()):
                named = [f"{each.pid} {each.comm}" for each in tree.survivors()]
                tree.kill_all(set())
                return named
        return []

    def verdict(self) -> dict[str, Any]:
        """What the command left; empty when there is none."""
        try:
            with open(f"{self.run_dir}/verdict.json") as file:
                return dict(json.load(file))
        except (OSError, ValueError):
            return {}

    def _remove_shm(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.shm)


def _reaped() -> bool:
    """Take every ending that is there; true when the kernel says that we have no child."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _wait_any(pids: Sequence[int], seconds: float) -> bool:
    """Until one of these has ended (or had already)."""
    if seconds <= 0:
        return False
    poll = select.poll()
    opened: list[int] = []
    try:
        for pid in pids:
            try:
                opened.append(os.pidfd_open(pid))
            except OSError:
                return True
            poll.register(opened[-1], select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        for fd in opened:
            os.close(fd)


def _die_with_us() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)
