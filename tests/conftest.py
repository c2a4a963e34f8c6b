"""What every test stands on: an environment that says nothing of ranks, and no process left at the end.

pytest is made a subreaper, so that a process which escapes everything else becomes its child and is seen.
"""

import contextlib
import ctypes
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import select
import signal
from collections.abc import Callable, Collection, Iterator

import pytest
from hypothesis import HealthCheck, settings

PR_SET_CHILD_SUBREAPER = 36
LAUNCHERS = (
    "RANKGUARD_", "PET_", "TORCHELASTIC_", "TORCH_", "MASTER_", "GROUP_", "ROLE_", "LOCAL_",
    "SLURM_", "LWS_", "JOB_COMPLETION_",
)  # fmt: skip
SINGLE = ("RANK", "WORLD_SIZE", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "OMP_NUM_THREADS", "PYTHONUNBUFFERED")


def pytest_configure() -> None:
    """Before anything of ours is imported: forget who launched us, and what they ignored (nohup, a shell's `&`)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for name in list(os.environ):
        if name.startswith(LAUNCHERS) or name in SINGLE:
            del os.environ[name]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "unable to become a subreaper")


# How long an example takes says how busy the machine is. The same examples each time; with EXAMPLES others each time.
settings.register_profile(
    "rankguard", deadline=None, derandomize="EXAMPLES" not in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("rankguard")


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["RANKGUARD_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture
def wait_for_exit() -> Callable[..., None]:
    """`wait_for_exit(pid)` returns when the process has ended (it need not be our child); fails after `timeout`."""

    def wait(pid: int, timeout: float = 10.0) -> None:
        if not _ended(pid, timeout):
            pytest.fail(f"process {pid} ({_describe(pid)}) is alive after {timeout} s")

    return wait


# ── Nothing is left ──────────────────────────────────────────────────────────────────────────────────────────────────

_seen: dict[int, str] = {}  # process → the test after which it was first seen
_left: list[str] = []


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Remember which test a process came from; whether it stays is asked at the end."""
    for pid in _alive():
        _seen.setdefault(pid, nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what the tests left behind, and fail for it."""
    server, tracker = multiprocessing.forkserver._forkserver, multiprocessing.resource_tracker._resource_tracker
    _end_what_is_left(
        but={server._forkserver_pid, tracker._pid}
    )  # what was forked of us holds the pipes that end those
    server._stop()  # theirs, and meant to live until the interpreter ends
    tracker._stop()
    _end_what_is_left()
    if _left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _end_what_is_left(but: Collection[int | None] = ()) -> None:
    for pid in [pid for pid in _alive() if pid not in but]:
        what = _describe(pid)
        if not _ended(pid, 1.0):  # one that is being torn down by the kernel is not left
            _left.append(f"{pid} {what}, first seen after {_seen.get(pid, 'the last test')}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name them."""
    if _left:
        terminalreporter.section("processes left behind by the tests", red=True)
        for line in _left:
            terminalreporter.line(line)


def _alive(of: str = "self") -> Iterator[int]:
    """Every process below us that is not a zombie, parents first."""
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{of}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{of}/task/{task}/children") as children:
                for pid in children.read().split():
                    if _state(pid) not in "ZX":
                        yield int(pid)
                    yield from _alive(pid)


def _state(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _describe(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", errors="replace") as cmdline:
            return cmdline.read().replace("\0", " ").strip()[:200] or "no command line"
    except OSError:
        return "gone"


def _ended(pid: int, timeout: float) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        waiter = select.poll()
        waiter.register(pidfd, select.POLLIN)
        return bool(waiter.poll(timeout * 1000))
    finally:
        os.close(pidfd)
