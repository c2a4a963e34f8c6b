"""A rank program: everything that a program may look at in its own process, as JSON in `FOLDER/RANK.json`.

What is not here may differ under a warm start, and does: docs/warm-start.md.
"""

import faulthandler
import gc
import json
import os
import signal
import sys
import threading

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
    "processors": sorted(os.sched_getaffinity(0)),
    "privileges": [os.getresuid(), os.getresgid(), status["CapEff"], status["NoNewPrivs"], status["Seccomp"]],
}

with open(f"{sys.argv[1]}/{os.environ['RANK']}.json", "w") as out:
    json.dump(PROBES, out)
