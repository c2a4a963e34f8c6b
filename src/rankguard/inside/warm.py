"""The warm server: imports what the program will import, once, and forks each rank when it is asked.

It is the rank's own interpreter, started with the rank's own words by `bootstrap.py` when RANKGUARD_WARM names the
socket to the supervisor; so `/proc/PID/cmdline` and `sys.orig_argv` of a rank are what they are under exec. A rank is
forked through a middle process that ends at once: the supervisor, a subreaper, becomes its true parent.

What cannot be forked safely is not: after each module and before every fork there is one thread, no child, no
descriptor that was not there before, no CUDA driver that has been initialised, no timer, no memory that would be shared;
and no module may have read a variable that differs between the ranks. Else the supervisor is told which module it was, and executes the ranks.

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


def serve(fd: int, find: "Callable[[list[str]], list[str]]", fresh_main: "Callable[[], Any]") -> None:
    """Import, tell, and fork; returns in each rank, ready to run the program. `find(arguments)`: modules to import."""
    os.set_inheritable(fd, False)
    del os.environ["RANKGUARD_WARM"]
    # Ours: a rank has its own, and a module that goes through all variables has read none of a rank's.
    os.environ.pop("WATCHDOG_PID", None)
    import ctypes  # noqa: F401  # what every rank will need
    import fcntl  # noqa: F401
    import json
    import socket

    line = socket.socket(fileno=fd)
    order = json.loads(line.recv(MESSAGE_MOST))
    said = _Said()
    try:
        modules = order["modules"] if order["modules"] is not None else find(order["program"])
        _watched()
        fds = said.fds | {fd}
        setting = _Setting(order["program"], order["path"], fresh_main)
        took = _import(modules, frozenset(order["differ"]), fds, order["strict"])
        setting.give_back(order["program"])
        answer: dict[str, Any] = {"is": "ready", "modules": took}
    except Refused as refused:
        answer = {"is": "refused", "because": str(refused)}
    printed = said.give_back()
    _still()
    line.send(json.dumps(answer).encode())
    if answer["is"] == "refused":
        os._exit(0)
    while True:
        data, given, _flags, _address = socket.recv_fds(line, MESSAGE_MOST, FDS_MOST)
        if not data:
            os._exit(0)  # the supervisor needs us no longer
        if doubt := _doubt({0, 1, 2, fd, *given}, quick=True):  # code that runs at a fork may have made it
            line.send(doubt.encode())
            os.write(given[0], _record(FORK, errno.EDEADLK))
        elif _fork(given[0], order["supervisor"]):
            asked = json.loads(data)
            line.detach()
            asked["env"] = order["env"] | asked["env"]
            _become(asked, given, order["supervisor"], order["env"], printed)
            return
        for each in given:
            os.close(each)


# ── Importing ────────────────────────────────────────────────────────────────────────────────────────────────────


def _watched() -> None:
    """Somebody traces or profiles this process, which the ranks would go on with as if it were they."""
    if sys.gettrace() is not None or sys.getprofile() is not None:
        raise Refused("the interpreter is traced or profiled from its start on")
    monitoring = getattr(sys, "monitoring", None)  # from 3.12 on
    if monitoring is not None and any(monitoring.get_tool(each) for each in range(6)):
        raise Refused("the interpreter is monitored from its start on")


class _Setting:
    """What modules may look at while they are imported is as in the rank: arguments, `sys.path`, the main module."""

    def __init__(self, program: "list[str]", path: "list[str]", fresh_main: "Callable[[], Any]") -> None:
        """`path`: the whole `sys.path` of ranks that run a function; empty for a program."""
        self._argv, self._main, self._path, self._own = sys.argv, sys.modules["__main__"], path, None
        main = fresh_main()
        sys.argv = list(program)
        if path:
            self._given, sys.path = sys.path, list(path)
            return
        folder = os.getcwd()
        if program[0] == "-m":
            sys.argv[1:2] = []  # as runpy has it while it looks for the module
        elif os.path.isdir(program[0]):
            folder = program[0]
        else:
            folder = os.path.dirname(os.path.realpath(program[0]))
            main.__file__ = os.path.join(os.getcwd(), program[0])
        if not sys.flags.safe_path:
            self._own = folder
            sys.path.insert(0, folder)

    def give_back(self, program: "list[str]") -> None:
        """As it was; what a module has added to `sys.path` stays."""
        if program[0] == "-m":
            package = hasattr(sys.modules.get(program[1]), "__path__")
            if (run := f"{program[1]}.__main__" if package else program[1]) in sys.modules:  # runpy would warn of that
                raise Refused(f"{run} is imported by what it imports itself")
        sys.argv, sys.modules["__main__"] = self._argv, self._main
        if self._path:
            if sys.path != self._path:
                raise Refused("a module changes sys.path when it is imported, which a function's ranks are given")
            sys.path = self._given
        elif self._own in sys.path:
            sys.path.remove(self._own)


def _import(modules: "list[str]", differ: "frozenset[str]", fds: "set[int]", strict: bool) -> "list[str]":
    """Import one after another, and look after each whether a fork is still safe; those that could be imported.

    `strict`: nobody has asked for it, so an exception and a look at the process id are reasons to refuse, too.
    """
    import importlib

    if doubt := _doubt(fds):
        raise Refused(f"before anything is imported {doubt}")
    read = _watch_environment()
    pid = _WatchedPid() if strict else None
    taken = []
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  # the program will meet it again, or catches it
            if strict and not isinstance(error, ImportError):
                raise Refused(f"importing {name} raised {type(error).__name__}") from None
            if name.partition(".")[0] not in sys.modules:
                continue
        except BaseException as error:  # noqa: BLE001  # SystemExit at import
            raise Refused(f"importing {name} raised {type(error).__name__}") from None
        taken.append(name)
        if doubt := _doubt(fds):
            raise Refused(f"after importing {name} {doubt}")
        if both := sorted(read & differ):
            raise Refused(f"{name} reads {both[0]} when it is imported, which differs between the ranks")
        if pid is not None and pid.asked:
            raise Refused(f"{name} reads the process id when it is imported")
    if pid is not None:
        pid.stop()
    type(os.environ).stop(os.environ)  # type: ignore[attr-defined]  # ours, set above
    return taken


def _doubt(fds: "set[int]", quick: bool = False) -> "str | None":
    """Why a fork would not be safe now; null when nothing speaks against it. `fds` may be open.

    `quick`: memory that is shared is not looked for again, only what code at a fork is likely to make.
    """
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        return f"there are {threads} threads"
    with open("/proc/thread-self/children") as file:
        if file.read().strip():
            return "there is a child process"
    for fd in sorted(_open_fds() - fds):
        try:
            return f"{os.readlink(f'/proc/self/fd/{fd}')} is open"
        except OSError:
            continue
    return _cuda() or (None if quick else _timer() or _shared())


def _cuda() -> "str | None":
    """The driver itself is asked: a framework does not know of what another library has initialised."""
    import ctypes

    try:
        library = ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOLOAD)  # only where somebody has loaded it (dlopen(3))
    except OSError:
        library = None
    if library is not None and library.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != _CUDA_ERROR_NOT_INITIALIZED:
        return "the CUDA driver is initialised"
    cuda = sys.modules.get("torch.cuda")
    if cuda is not None and (cuda.is_initialized() or cuda._is_in_bad_fork()):  # noqa: SLF001  # torch's only word on it
        return "torch has initialised CUDA"
    return None


def _timer() -> "str | None":
    """A fork does not inherit timers (fork(2)), an executed rank would have its own."""
    import signal

    if any(signal.getitimer(each)[0] for each in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)):
        return "a timer runs"
    return None


def _shared() -> "str | None":
    """Memory that every rank would have of its own: a semaphore or queue of multiprocessing, a GPU's."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            if line.split(None, 2)[1].startswith("rw") and line.split(None, 2)[1].endswith("s"):
                return f"memory is shared with whatever is forked ({line.split(None, 5)[5].strip()})"
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


class _WatchedPid:
    """`asked`: somebody has called `os.getpid`. What keeps the answer keeps that of a process that is no rank."""

    def __init__(self) -> None:
        self.asked, self._getpid = False, os.getpid
        plain = self._getpid

        def getpid() -> int:
            """Return the current process id."""
            # tempfile compares it each time, and draws its names anew after a fork.
            self.asked = self.asked or sys._getframe(1).f_globals.get("__name__") != "tempfile"  # noqa: SLF001
            return plain()

        os.getpid = getpid

    def stop(self) -> None:
        os.getpid = self._getpid


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
        self.fds = {0, 1, 2, *self._kept, *self._own}
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
    generator = getattr(sys.modules.get("torch"), "default_generator", None)
    if generator is not None and generator.initial_seed() >= 1 << 32:  # drawn by torch; people give small ones
        generator.seed()
    if (process := sys.modules.get("multiprocessing.process")) is not None:
        process.current_process().authkey = os.urandom(32)
    if (threading := sys.modules.get("threading")) is not None:
        threading.main_thread()._set_native_id()  # noqa: SLF001  # CPython's own hook forgets it until 3.13


def _record(stage: int, value: int) -> bytes:
    return stage.to_bytes(4, sys.byteorder, signed=True) + value.to_bytes(4, sys.byteorder, signed=True)
