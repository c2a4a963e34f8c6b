"""What it costs to look at the memory of all ranks: one sweep over N processes, by files that stay open and by files that
are opened each time, and the closer look of which each sweep makes as many as fit into 4 ms.

`python bench/sampling.py [N …]` (8 256 1000). CPU time, the median of 20 sweeps.
"""

import contextlib
import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable

from rankguard.linux.footprint import Footprint
from rankguard.linux.hierarchies import below, own_groups, remove_group
from rankguard.linux.memory import MemoryDomain


def main(counts: list[int]) -> None:
    """One row a count."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("ranks   kept, ms (us each)   opened, ms   in own groups, ms   closer, us each   limits, ms   CPU at 1 Hz")
    for count in counts:
        with contextlib.ExitStack() as stack:
            groups, pids = _groups(count, stack), []
            for number in range(count):
                pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
                stack.callback(_end, pid)
                pids.append(pid)
                if groups:
                    with open(f"{groups}/{number}/cgroup.procs", "w") as procs:
                        procs.write(str(pid))
            kept = [Footprint(pid) for pid in pids]
            opened = [Footprint(pid, keep=False) for pid in pids]
            grouped = [Footprint(pid, f"{groups}/{number}") for number, pid in enumerate(pids)] if groups else []
            closer = _median(lambda all_=grouped or kept: [each.look_closer() for each in all_], 3)
            sweeps = [_median(lambda many=many: [each.read() for each in many]) for many in (kept, opened, grouped)]
            domain = _median(MemoryDomain().shared_states)
            for each in (*kept, *grouped):
                each.close()
            in_groups = f"{sweeps[2]:.2f}" if groups else "-"
            used = (sweeps[2] if groups else sweeps[0]) + domain + min(4.0, closer)
            print(
                f"{count:5}   {sweeps[0]:9.2f} ({sweeps[0] / count * 1e3:4.1f})   {sweeps[1]:10.2f}   {in_groups:>17}"
                f"   {closer / count * 1e3:15.0f}   {domain:10.2f}   {used / 10:9.2f} %"
            )


def _median(work: Callable[[], object], times: int = 20) -> float:
    """Milliseconds of this thread's own CPU time, so that a busy machine does not count."""
    took = []
    for _ in range(times):
        began = time.thread_time()
        work()
        took.append(time.thread_time() - began)
    return statistics.median(took) * 1e3


def _groups(count: int, stack: contextlib.ExitStack) -> str | None:
    """Memory groups 0 … count - 1, where they can be made."""
    own = own_groups()
    if "memory" not in own:
        return None
    path = f"{own['memory'].path}/rankguard-bench-{os.getpid()}"
    try:
        os.mkdir(path)
        stack.callback(lambda: [remove_group(each) for each in below(path)])
        for number in range(count):
            os.mkdir(f"{path}/{number}")
    except OSError:
        return None
    return path


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [8, 256, 1000])
