"""A rank program: everything that a program may look at in its own process, as JSON in `FOLDER/RANK.json`.

What is not here may differ under a warm start, and does: docs/warm-start.md.
"""

import atexit
import builtins
import ctypes
import faulthandler
import gc
import json
import locale
import logging
import os
import signal
import socket
import sys
import threading
import warnings

import heavy  # noqa: F401  # what a warm start imports first


def descriptors() -> dict[str, tuple[str, bool]]:
    found = {}
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the listing's own
            continue
        found[name] = (target.partition(":")[0], os.get_inheritable(int(name)))
    return found


def read(name: str) -> str:
    with open(f"/proc/self/{name}", "rb") as file:
        return file.read().decode()


def prctl(option: int) -> int:
    """An option that answers by what the call returns (prctl(2))."""
    return ctypes.CDLL(None).prctl(option, 0, 0, 0, 0)


def told(option: int) -> int:
    """An option that writes its answer to where it is told."""
    value = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(option, ctypes.byref(value), 0, 0, 0)
    return value.value


PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_GET_KEEPCAPS, PR_GET_SECUREBITS, PR_GET_TIMERSLACK = 2, 3, 7, 27, 30
PR_GET_CHILD_SUBREAPER, PR_GET_THP_DISABLE = 37, 42
KEYCTL, GET_KEYRING_ID = 250, 0  # of x86-64; session: -3, process: -2, user's session: -5


def keyrings() -> list[int]:
    """Which keyrings there are already; none is made."""
    if os.uname().machine != "x86_64":
        return []
    return [ctypes.CDLL(None).syscall(KEYCTL, GET_KEYRING_ID, which, 0) for which in (-3, -2, -5)]


status = dict(line.split(":\t", 1) for line in read("status").splitlines() if ":\t" in line)
main = sys.modules["__main__"]
PROBES = {
    "descriptors": descriptors(),
    "signals": [status[name] for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd")],
    "handlers": {each.name: str(signal.getsignal(each)) for each in signal.Signals},
    "umask": os.umask(0o22),
    "cwd": os.getcwd(),
    "argv": sys.argv,
    "orig_argv": sys.orig_argv,
    "path": sys.path,
    "flags": str(sys.flags),
    "main": [sorted(vars(main)), main.__file__, main.__name__, str(main.__spec__), main.__doc__],
    "environment": dict(sorted(os.environ.items())),
    "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "title": [read("cmdline"), read("comm")],
    "oom_score_adj": read("oom_score_adj"),
    "limits": read("limits"),
    "parent": open(f"/proc/{os.getppid()}/comm").read(),  # noqa: SIM115
    "thread": [
        threading.active_count(),
        threading.main_thread() is threading.current_thread(),
        threading.main_thread().native_id == os.getpid(),
    ],
    "streams": [
        [s.name, s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty()]
        for s in (sys.stdin, sys.stdout, sys.stderr)
    ],
    "gc": [gc.get_threshold(), gc.isenabled()],
    "hooks": [sys.excepthook is sys.__excepthook__, faulthandler.is_enabled(), threading.excepthook.__name__],
    "exit": atexit._ncallbacks(),  # the interpreter's own word
    "wakeup": signal.set_wakeup_fd(-1),
    "timers": [signal.getitimer(each) for each in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
    "interpreter": [
        *(sys.warnoptions, sys._xoptions, [str(each) for each in warnings.filters], sys.getrecursionlimit()),
        *(sys.getswitchinterval(), sys.dont_write_bytecode, sys.getdlopenflags(), sys.getfilesystemencoding()),
        *(sys.gettrace() is None, sys.getprofile() is None, threading.stack_size(), sys.flags.safe_path),
        *(
            sys.displayhook is sys.__displayhook__,
            sys.breakpointhook is sys.__breakpointhook__,
            sys.prefix,
            sys.executable,
        ),
        *(sorted(vars(builtins)), [each.__qualname__ for each in sys.path_hooks], sys.platlibdir, sys.pycache_prefix),
        *([getattr(each, "__name__", type(each).__name__) for each in sys.meta_path],),
    ],
    "locale": [locale.setlocale(locale.LC_ALL), locale.getpreferredencoding()],
    "logging": [
        logging.root.level,
        logging.root.handlers,
        logging.raiseExceptions,
        sorted(logging.root.manager.loggerDict),
    ],
    "asyncio": ["asyncio" in sys.modules, "multiprocessing" in sys.modules, socket.getdefaulttimeout()],
    "scheduling": [os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, os.getpriority(os.PRIO_PROCESS, 0)],
    "process": [
        *(told(PR_GET_PDEATHSIG), prctl(PR_GET_DUMPABLE), prctl(PR_GET_KEEPCAPS), prctl(PR_GET_SECUREBITS)),
        *(prctl(PR_GET_TIMERSLACK), told(PR_GET_CHILD_SUBREAPER), prctl(PR_GET_THP_DISABLE), keyrings()),
        *(
            read("coredump_filter"),
            read("personality"),
            read("loginuid"),
            os.getgroups(),
            os.readlink("/proc/self/root"),
        ),
        *(sorted(os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")), status["Threads"]),
        read("stat").rpartition(")")[2].split()[4],  # the terminal
    ],
    "cgroup": read("cgroup"),
    "processors": sorted(os.sched_getaffinity(0)),
    "privileges": [os.getresuid(), os.getresgid(), status["CapEff"], status["NoNewPrivs"], status["Seccomp"]],
}

with open(f"{sys.argv[1]}/{os.environ['RANK']}.json", "w") as out:
    json.dump(PROBES, out)
