"""Boot Debian's user-mode Linux on this machine's files and run tests in it: cgroup2 with its memory controller, Yama, a
kernel that has no PIDFD_GET_INFO. For machines whose own memory controller is v1's, or where nobody may make groups.

`python tests/uml/boot.py [TEST…]`; ends with pytest's status, and with 0 and the reason where it cannot boot.
The machine is one processor, some ten times slower than the host: what is meant to run in it is listed here.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
KERNEL = "linux.uml"
MEMORY = "1536M"
LIMIT_S = 1200
TESTS = (
    "tests/linux/test_cgroup.py",
    "tests/linux/test_memory.py",
    "tests/linux/test_footprint.py",
    "tests/linux/test_kmsg.py",
    "tests/linux/test_exitorder.py",
    "tests/linux/test_glance.py",
    "tests/linux/test_roster.py::test_how_a_grandchild_ended_that_its_parent_reaps",
    "tests/linux/test_roster.py::test_where_only_statistics_tell_how_it_ended",
    "tests/adopt/test_foreign.py",
    "tests/adopt/test_memory.py",
    "tests/matrix/test_cgroup2.py",
    "tests/run/test_memory.py::test_victim_and_grower_in_groups_of_their_own",
    "tests/runs/test_killed_together.py::test_the_kernel_kills_the_group_as_a_whole",
    "tests/runs/test_termination.py::test_the_kernel_kills_everything_when_memory_runs_out",
    "tests/runs/test_stacks.py::test_where_only_some_may_trace",
    "tests/watch/test_memory.py",
    "tests/watch/test_watch.py::test_a_worker_dies_and_the_engine_hangs",
    "tests/watch/test_watch.py::test_deep_and_far_from_its_parents",
)


def kernel() -> str | None:
    """The kernel's program; installed from Debian's packages where that is possible without asking anybody."""
    if shutil.which(KERNEL) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-yqq", "user-mode-linux"], stdout=subprocess.DEVNULL)
    return shutil.which(KERNEL)


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def main(tests: list[str]) -> int:
    """Boot, test, power off."""
    program = kernel()
    if program is None:
        print(f"skipped: there is no `{KERNEL}`; on Debian: apt install user-mode-linux")
        return 0
    command = [
        program, f"mem={MEMORY}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "quiet", "loglevel=3",
        "con=null", "con0=null,fd:1", f"init={ROOT}/tests/uml/init.sh",
        # What the kernel does not know becomes init's environment.
        f"RG_PYTHON={sys.executable}", f"RG_ROOT={ROOT}", f"RG_TESTS={','.join(tests or TESTS)}",
    ]  # fmt: skip
    if os.geteuid() == 0 and shutil.which("unshare"):
        # The guest's processes are processes of this machine: whatever ends us ends them.
        command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *command]
    machine = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace",
        preexec_fn=_die_with_us,  # noqa: PLW1509  # one thread
    )  # fmt: skip
    limit = threading.Timer(LIMIT_S, machine.kill)
    limit.start()
    assert machine.stdout is not None
    status, booted = None, False
    try:
        for line in machine.stdout:
            if told := re.match(r"pytest ended with (\d+)", line):
                status = int(told[1])
            print(line, end="", flush=True)
            booted = booted or line.startswith("tests begin")
        machine.wait()
    finally:
        limit.cancel()
        machine.kill()
    if status is None and booted:
        print(f"the machine ended before its tests did, or was ended after {LIMIT_S} s")
        return 1
    if status is None:
        print("skipped: user-mode Linux does not boot here (does this machine allow ptrace?)")
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
