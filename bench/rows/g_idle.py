"""Row g. Ten idle seconds: how often the launcher's own processes wake up.

8 and 1,000 ranks of `ranks/rest.c`, which rest. Counted are the voluntary context switches (/proc/PID/task/TID/status) of
all threads of all the launcher's own processes (front, supervisor, warden) within ten seconds: one for each time that
somebody woke one. With `--sample 0`, where nothing may happen at all, and by default, where the ranks' memory is looked at
once a second. (A rankguard that starts elsewhere on the machine wakes ours: it looks whose sockets are left over.) The
jobs stand beside one another and are looked at in the same seconds: all of them are idle.
Five windows of ten seconds. What has to be reached: none with `--sample 0`, one a sample by default.
"""

import contextlib
import math
import time

from bench.jobs import Job, wake_ups
from bench.measure import Line, NotThere, Series
from bench.setting import NPROCS, Setting

WINDOW_S, WINDOWS, REST_S = 10.0, 5, 3.0
QUICK_S = 0.5
MANY = 1000


def run(setting: Setting) -> list[Line]:
    window, windows, rest = (QUICK_S, 1, QUICK_S) if setting.quick else (WINDOW_S, WINDOWS, REST_S)
    many = NPROCS if setting.quick else MANY

    def ours(count: int, *options: object) -> list[object]:
        return [setting.rankguard, "run", "-n", count, *options, "--no-python", setting.rest, "FIFO"]

    wanted = {
        "8 ranks, `--sample 0`": (NPROCS, lambda: ours(NPROCS, "--sample", 0)),
        "8 ranks": (NPROCS, lambda: ours(NPROCS)),
        f"{many:,} ranks, `--sample 0`": (many, lambda: ours(many, "--sample", 0)),
        f"{many:,} ranks": (many, lambda: ours(many)),
        "torchrun": (NPROCS, lambda: setting.torchrun(NPROCS, "--no-python", setting.rest, "FIFO")),
        "mpirun": (NPROCS, lambda: [*setting.peers.mpirun(), "-n", NPROCS, setting.rest, "FIFO"]),
    }
    found = {name: Series(name) for name in wanted}
    with contextlib.ExitStack() as stack:
        own = {}
        for name, (count, words) in wanted.items():
            setting.tell(f"starting {name}")
            try:
                job = stack.enter_context(Job(words(), setting.folder))
                own[name] = job.own(job.here(count))
            except NotThere as why:
                found[name].missing = str(why)
            except Exception as error:  # shown in the table
                found[name].failed.append(str(error))
        time.sleep(rest)  # what comes after a start is no rest
        for number in range(windows):
            setting.tell(f"window {number + 1} of {windows}")
            before = {name: wake_ups(pids) for name, pids in own.items()}
            time.sleep(window)
            for name, pids in own.items():
                found[name].values.append(wake_ups(pids) - before[name])
        setting.tell("ending them")
    return [_line(name, found, window) for name in wanted if "rank" in name]


def _line(name: str, found: dict[str, Series], window: float) -> Line:
    ours = found[name]
    ours.name = "rankguard"
    peers = [found["torchrun"], found["mpirun"]] if name.startswith("8") else []
    sampled = "--sample" not in name
    made = Line("g", f"wake-ups in {window:g} idle seconds, {name}", "", ours, peers)
    most = math.ceil(window) if sampled else 0
    made.reach = f"≤ {most} (one a sample)" if sampled else "none"
    made.reached = None if ours.median is None else ours.median <= most
    return made
