"""The warm server: imports what the program will import, once, and forks each rank when it is asked.

It is the rank's own interpreter, started with the rank's own words by `bootstrap.py` when RANKGUARD_WARM names the
socket to the supervisor; so `/proc/PID/cmdline` and `sys.orig_argv` of a rank are what they are under exec. A rank is
forked through a middle process that ends at once: the supervisor, a subreaper, becomes its true parent.

What cannot be forked safely is not: after each module and before every fork there is one thread, no child, no
descriptor that was not there before, no CUDA driver that has been initialised; and no module may have read a variable
that differs between the ranks. Else the supervisor is told which module it was, and executes the ranks.

Standard library only, none of ours can be imported. The other half: `launchers/warm.py`. What to import: `imports.py`.
Sources: fork(2), prctl(2), the measured hazards in docs/warm-start.md.
"""

import errno
import os
import sys

__rankguard_frame__ = True

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MESSAGE_MOST = 1 << 20
FDS_MOST = 250
"""SCM_MAX_FD is 253 (unix(7))."""
FORK, PID_TOLD = -2, -1
"""In the place of a stage: the fork itself failed; what follows is the rank's pid."""
PR_SET_PDEATHSIG, PR_SET_PTRACER = 1, 0x59616D61
SIGKILL = 9
_CUDA_ERROR_NOT_INITIALIZED = 3


class Refused(Exception):  # a decision, not an error
    """Ranks cannot be forked from this process; the text says which module is at fault."""


def serve(fd: int, find: "Callable[[list[str]], list[str]]") -> None:
    """Import, tell, and fork; returns in each rank, ready to run the program. `find(arguments)`: modules to import."""
    os.set_inheritable(fd, False)
    del os.environ["RANKGUARD_WARM"]
    import json
    import socket

    line = socket.socket(fileno=fd)
    order = json.loads(line.recv(MESSAGE_MOST))
    said = _Said()
    try:
        modules = order["modules"] if order["modules"] is not None else _found(find(order["program"]))
        took = _import(modules, frozenset(order["differ"]))
        answer: dict[str, Any] = {"is": "ready", "modules": took}
    except Refused as refused:
        answer = {"is": "refused", "because": str(refused)}
    printed = said.give_back()
    _still()
    line.send(json.dumps(answer).encode())
    if answer["is"] == "refused":
        os._exit(0)
    while True:
        data, fds, _flags, _address = socket.recv_fds(line, MESSAGE_MOST, FDS_MOST)
        if not data:
            os._exit(0)  # the supervisor needs us no longer
        asked = json.loads(data)
        if _fork(fds[0], order["supervisor"]):
            line.detach()
            asked["env"] = order["env"] | asked["env"]
            _become(asked, fds, order["supervisor"], order["env"], printed)
            return
        for each in fds:
            os.close(each)


# ── Importing ────────────────────────────────────────────────────────────────────────────────────────────────────


def _found(modules: "list[str]") -> "list[str]":
    if not modules:
        raise Refused("the program imports no installed package at its top level")
    return modules


def _import(modules: "list[str]", differ: "frozenset[str]") -> "list[str]":
    """Import one after another, and look after each whether a fork is still safe; those that could be imported."""
    import importlib

    read = _watch_environment()
    fds = _open_fds()
    taken = []
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001  # the program will meet it again, or catches it
            if name.partition(".")[0] not in sys.modules:
                continue
        except BaseException as error:  # noqa: BLE001  # SystemExit at import
            raise Refused(f"importing {name} raised {type(error).__name__}") from None
        taken.append(name)
        if doubt := _doubt(fds):
            raise Refused(f"after importing {name} {doubt}")
        if both := sorted(read & differ):
            raise Refused(f"{name} reads {both[0]} when it is imported, which differs between the ranks")
    type(os.environ).stop(os.environ)  # type: ignore[attr-defined]  # ours, set above
    return taken


def _doubt(fds: "set[int]") -> "str | None":
    """Why a fork would not be safe now; null when nothing speaks against it."""
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        return f"there are {threads} threads"
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        if file.read().strip():
            return "there is a child process"
    for fd in sorted(_open_fds() - fds):
        try:
            return f"{os.readlink(f'/proc/self/fd/{fd}')} is open"
        except OSError:
            continue
    return _cuda()


def _cuda() -> "str | None":
    """The driver itself is asked: a framework does not know of what another library has initialised."""
    with open("/proc/self/maps") as maps:
        paths = {line.split(None, 5)[5].strip() for line in maps if "libcuda.so" in line}
    if paths:
        import ctypes

        count = ctypes.c_int()
        if ctypes.CDLL(min(paths)).cuDeviceGetCount(ctypes.byref(count)) != _CUDA_ERROR_NOT_INITIALIZED:
            return "the CUDA driver is initialised"
    cuda = sys.modules.get("torch.cuda")
    if cuda is not None and (cuda.is_initialized() or cuda._is_in_bad_fork()):  # noqa: SLF001  # torch's only word on it
        return "torch has initialised CUDA"
    return None


def _open_fds() -> "set[int]":
    return {int(name) for name in os.listdir("/proc/self/fd")}


def _watch_environment() -> "set[str]":
    """The names that are read from `os.environ` from now on."""
    plain, names = type(os.environ), set()

    class Watched(plain):  # type: ignore[misc, valid-type]
        def __getitem__(self, name: str) -> str:
            names.add(name)
            return str(super().__getitem__(name))

        def stop(self) -> None:
            self.__class__ = plain  # type: ignore[assignment]

    os.environ.__class__ = Watched
    return names


def _still() -> None:
    """Nothing that has been imported is walked by a collection any more, so its pages stay shared."""
    import gc

    gc.collect()
    gc.freeze()


class _Said:
    """What modules print while they are imported: each rank would have printed it."""

    def __init__(self) -> None:
        self._kept = [os.memfd_create(name) for name in ("out", "err")]
        self._own = [os.dup(1), os.dup(2)]
        for target, kept in enumerate(self._kept, 1):
            os.dup2(kept, target, inheritable=True)
        for fd in (*self._kept, *self._own):
            os.set_inheritable(fd, False)

    def give_back(self) -> "tuple[bytes, bytes]":
        """Of stdout and stderr."""
        said = []
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        for target, (kept, own) in enumerate(zip(self._kept, self._own, strict=True), 1):
            said.append(os.pread(kept, 1 << 20, 0))
            os.dup2(own, target, inheritable=True)
            os.close(kept)
            os.close(own)
        return said[0], said[1]


# ── Forking ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _fork(news: int, supervisor: int) -> bool:
    """True in the rank, once the supervisor is its parent. What cannot be forked is told to `news`, and executed."""
    if len(os.listdir("/proc/self/task")) != 1:
        os.write(news, _record(FORK, errno.EDEADLK))  # a thread may hold a lock that nobody would release in the rank
        return False
    try:
        if middle := os.fork():
            os.waitpid(middle, 0)
            return False
    except OSError as error:
        os.write(news, _record(FORK, error.errno or 0))
        return False
    middle = os.getpid()
    try:
        if os.fork():
            os._exit(0)
    except OSError as error:
        os.write(news, _record(FORK, error.errno or 0))
        os._exit(0)
    while (parent := os.getppid()) == middle:  # it is gone in a moment: the kernel has it ended already
        os.sched_yield()
    if parent != supervisor:
        os._exit(128 + SIGKILL)  # it has gone meanwhile
    return True


def _become(
    asked: "dict[str, Any]", fds: "list[int]", supervisor: int, given: "dict[str, str]", printed: "tuple[bytes, bytes]"
) -> None:
    """As `linux/spawn.py` makes an executed child: the same steps in the same order, where a fork has not done them."""
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:
        os._exit(128 + SIGKILL)
    news, joins = fds[0], fds[1 : 1 + asked["joins"]]
    os.write(news, _record(PID_TOLD, os.getpid()))
    stage = 0
    try:
        for fd in joins:
            os.write(fd, b"0")
        stage = 1
        os.setsid()
        prctl(PR_SET_PTRACER, supervisor, 0, 0, 0)
        stage = 4
        news = _arrange(fds[1 + asked["joins"] :], news)
        for fd, said in ((1, printed[0]), (2, printed[1])):
            if said:
                os.write(fd, said)
    except OSError as error:
        os.write(news, _record(stage, error.errno or 0))
        os._exit(127)
    _take_environment(asked["env"], given)
    _be_another()
    os.close(news)


def _arrange(given: "list[int]", news: int) -> int:
    """`given` become 0, 1, 2, 3, …; nothing else stays open but the news, high up."""
    import fcntl

    above = len(given) + 3
    news = fcntl.fcntl(news, fcntl.F_DUPFD_CLOEXEC, above)
    sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in given]
    for target, source in enumerate(sources):
        os.dup2(source, target, inheritable=True)
    os.closerange(len(given), news)
    for fd in _open_fds():
        if fd > news:
            try:
                os.close(fd)
            except OSError:
                continue  # the listing's own
    return news


def _take_environment(env: "dict[str, str]", given: "dict[str, str]") -> None:
    """The rank's own, where the server still has what it was `given`: a wrapper of the interpreter or an imported module
    may have changed a variable, and would have done so in the rank.
    """
    changed = {name for name in {*os.environ, *given} if os.environ.get(name) != given.get(name)}
    if "WATCHDOG_USEC" in env:
        env["WATCHDOG_PID"] = str(os.getpid())
    for name in [name for name in os.environ if name not in env and name not in changed]:
        del os.environ[name]
    for name, value in env.items():
        if name not in changed and os.environ.get(name) != value:
            os.environ[name] = value


def _be_another() -> None:
    """What a process draws once, from the kernel's randomness or from its own identity: not the server's."""
    if (numpy := sys.modules.get("numpy.random")) is not None:
        numpy.seed()
    if (process := sys.modules.get("multiprocessing.process")) is not None:
        process.current_process().authkey = os.urandom(32)
    if (threading := sys.modules.get("threading")) is not None:
        threading.main_thread()._set_native_id()  # noqa: SLF001  # CPython's own hook forgets it until 3.13


def _record(stage: int, value: int) -> bytes:
    return stage.to_bytes(4, sys.byteorder, signed=True) + value.to_bytes(4, sys.byteorder, signed=True)
