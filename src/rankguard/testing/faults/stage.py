"""Where a fault is made: a temporary folder, the real command, and the proof that nothing of it is left.

This process is a subreaper meanwhile, so that whatever escapes falls to it, and "no child" is the kernel's own word.
The command dies with us (PR_SET_PDEATHSIG), and rankguard ends its ranks when it is gone: whoever is killed here leaves
a folder and nothing else. It takes every child of this process for its own, so play in a process that has none.
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
from typing import Any, NoReturn, Self, TypeVar

from rankguard.errors import SpawnFailed
from rankguard.linux import tree
from rankguard.linux.libc import PR_SET_PDEATHSIG, become_subreaper, prctl
from rankguard.runs.folder import make_run_dir, new_run_id

_T = TypeVar("_T")
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
    """One fault's folder and processes; a block, after which neither is there.

    `output`: where the command's output goes; null for where ours goes.
    """

    def __init__(self, name: str, ranks: int, output: int | None = None) -> None:
        self.name, self.ranks, self._output = name, ranks, output
        self.front: subprocess.Popen[bytes] | None = None
        self.pids: dict[int, int] = {}
        """Rank → pid, once `wait_started` has returned."""
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
        self.shm = f"/dev/shm/{os.path.basename(self.folder)}"  # noqa: S108  # the place itself is the subject
        """A segment that is removed with the folder."""
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

    def enter(self, made: contextlib.AbstractContextManager[_T]) -> _T:
        """A block that is left when this one is, after all processes have ended."""
        return self._undo.enter_context(made)

    def forget_run(self) -> None:
        """The run leaves no folder either."""
        self._undo.callback(shutil.rmtree, self.run_dir, ignore_errors=True)

    def start(self, words: Sequence[str], wrap: Sequence[str] = ()) -> None:
        """`rankguard run WORDS…`, its output where ours goes."""
        self.begin(
            [*wrap, sys.executable, "-m", "rankguard", "run", "-n", str(self.ranks), "--run-dir", self.run_dir,
             "--termination-log", "none", *words]
        )  # fmt: skip

    def begin(self, command: Sequence[str]) -> None:
        """The command that launches the ranks, whatever it is."""
        env = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        sys.stdout.flush()
        self.front = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env=env,
            cwd=self.folder,
            preexec_fn=_die_with_us,  # noqa: PLW1509  # one thread
        )

    def wait_started(self) -> None:
        """Until every rank has said that it runs. Raises `SpawnFailed` when the command ends first."""
        said = self._hear(self._started, self.ranks)
        if said is None:
            raise SpawnFailed("the ranks of the drill have not begun")
        self.pids = {int(rank): int(pid) for rank, pid in (line.split() for line in said.split(b"\n") if line)}

    def wait_told(self, name: str) -> bool:
        """Until a rank says a line at a meeting point; false when the command ends first."""
        with contextlib.suppress(FileExistsError):
            self.fifo(name)
        fd = os.open(f"{self.folder}/{name}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return self._hear(fd, 1) is not None
        finally:
            os.close(fd)

    def _hear(self, fd: int, lines: int) -> bytes | None:
        """So many lines from a FIFO; null when the command has ended, or a minute has passed, before they were said."""
        assert self.front is not None
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        pidfd = os.pidfd_open(self.front.pid)
        poll.register(pidfd, select.POLLIN)
        said = b""
        until = time.monotonic() + START_S
        try:
            while said.count(b"\n") < lines:
                ready = {fd for fd, _event in poll.poll(max(0.0, until - time.monotonic()) * 1000)}
                if fd in ready:
                    said += os.read(fd, 4096)
                elif pidfd in ready or not ready:
                    return None
        finally:
            os.close(pidfd)
        return said

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
