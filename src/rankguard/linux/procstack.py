"""What the kernel tells of every thread of a process: state, system call, what that is about, wait channel. No frames.

Works for any program and needs no leave to trace: where a system call may not be read (proc_pid_syscall(5) asks for as
much as ptrace does) the wait channel remains, and of a process that is none of ours the state.

Sources: proc_pid_stat(5), proc_pid_syscall(5), proc_pid_wchan(5), proc_pid_status(5), proc_locks(5).
Read next: `stacks.py` (frames, and who asks), `../stacks.py` (the nouns).
"""

import os
from collections.abc import Iterable
from functools import partial
from itertools import islice

from rankguard.linux import sockets, tree
from rankguard.linux.files import listed, read_text
from rankguard.stacks import Stack, Thread

_THREADS, _BELOW = 64, 16
_SYSCALLS = {
    "x86_64": {
        0: "read", 1: "write", 7: "poll", 20: "writev", 23: "select", 35: "nanosleep", 42: "connect", 43: "accept",
        44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 61: "wait4", 34: "pause", 72: "fcntl", 73: "flock",
        74: "fsync", 128: "rt_sigtimedwait", 130: "rt_sigsuspend", 202: "futex", 230: "clock_nanosleep",
        232: "epoll_wait", 247: "waitid", 270: "pselect6", 271: "ppoll", 281: "epoll_pwait", 288: "accept4",
        257: "openat", 262: "newfstatat", 16: "ioctl",
    },
    "aarch64": {
        63: "read", 64: "write", 66: "writev", 72: "pselect6", 73: "ppoll", 22: "epoll_pwait", 25: "fcntl", 29: "ioctl",
        32: "flock", 56: "openat", 79: "newfstatat", 82: "fsync", 95: "waitid", 98: "futex", 101: "nanosleep",
        115: "clock_nanosleep", 133: "rt_sigsuspend", 137: "rt_sigtimedwait", 202: "accept", 203: "connect",
        206: "sendto", 207: "recvfrom", 211: "sendmsg", 212: "recvmsg", 242: "accept4", 260: "wait4",
    },
}  # fmt: skip
"""The calls in which programs wait; any other is told by its number (asm/unistd_64.h, asm-generic/unistd.h)."""

_OF_A_FILE = frozenset(
    [
        "accept", "accept4", "connect", "fcntl", "flock", "fsync", "ioctl", "read", "recvfrom", "recvmsg", "sendmsg",
        "sendto", "write", "writev",
    ]
)  # fmt: skip
"""Those whose first argument is a file descriptor."""
_FOR_A_CHILD = frozenset(["wait4", "waitid"])
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Python programs that work for another one: never what a rank is about."""
_STANDARD = {0: "stdin", 1: "stdout", 2: "stderr"}


def kernel_stack(pid: int) -> Stack | None:
    """What the kernel tells of a process; None when it is gone."""
    status = read_text(f"/proc/{pid}/status")
    if status is None:
        return None
    tids = sorted(map(int, listed(f"/proc/{pid}/task")), key=lambda tid: (tid != pid, tid))
    threads = tuple(filter(None, map(partial(_thread, pid), tids[:_THREADS])))
    if not threads or threads[0].tid != pid:
        return None
    tracer = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("TracerPid:")), 0)
    return Stack(pid=pid, name=threads[0].name, threads=threads, tracer=tracer or None)


def python_of(pid: int) -> int | None:
    """The process that runs the program's Python: this one, else the first below it (a shell script that starts one).

    One that waits for a child of its own is no more than a shell: then the Python that it waits for, if there is one.
    """
    own = _is_python(pid)
    if own:
        main = _thread(pid, pid)
        if main is None or main.waits_in not in _FOR_A_CHILD:
            return pid
    below = (each for each in tree.descendants(pid)[:_BELOW] if _is_python(each) and not _helps(each))
    return next(below, pid if own else None)


def pythons_below(pid: int, most: int) -> list[int]:
    """Python processes that this one has started (workers of a data loader), multiprocessing's own left out."""
    return pythons(tree.descendants(pid)[:_BELOW], most)


def pythons(pids: Iterable[int], most: int) -> list[int]:
    """Those of `pids` that run Python, multiprocessing's own helpers left out."""
    return list(islice((pid for pid in pids if _is_python(pid) and not _helps(pid)), most))


def _thread(pid: int, tid: int) -> Thread | None:
    folder = f"/proc/{pid}/task/{tid}"
    text = read_text(f"{folder}/stat")
    if text is None or ")" not in text:
        return None
    name, state = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2]
    if state not in "SD":
        return Thread(tid, name, state)
    words = (read_text(f"{folder}/syscall") or "").split()
    number = int(words[0]) if words and words[0].isdecimal() else None
    call = None if number is None else _SYSCALLS.get(os.uname().machine, {}).get(number)
    channel = (read_text(f"{folder}/wchan") or "0").strip()
    channel = "" if channel == "0" else channel
    waits_in = call or channel or (None if number is None else f"system call {number}")
    on = _file_of(pid, int(words[1], 16), whom=tid == pid) if call in _OF_A_FILE and len(words) > 1 else None
    locked_by = _lock_holder(pid) if call in ("fcntl", "flock") else None
    kernel = channel if state == "D" and channel else None
    return Thread(tid, name, state, waits_in=waits_in, waits_on=on, locked_by=locked_by, channel=kernel)


def _file_of(pid: int, fd: int, *, whom: bool) -> str | None:
    """`/shared/cache.lock`, `stdin (pipe:[4711])`, `socket:[4712]`; null where it may not be seen. With `whom` the other end
    of a connection, which costs a look through all of them: `a TCP socket to 10.0.0.5:443`.
    """
    try:
        target = os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return None
    target = sockets.named(pid, target) if whom else target
    return f"{_STANDARD[fd]} ({target})" if fd in _STANDARD else target


def _lock_holder(pid: int) -> int | None:
    """The process whose lock this one waits for: `7: -> FLOCK …` waits for what `7: FLOCK …` has."""
    holders: dict[str, int] = {}
    for line in (read_text("/proc/locks") or "").splitlines():
        words = line.split()
        if len(words) < 6:
            continue
        try:
            if words[1] != "->":
                holders[words[0]] = int(words[4])
            elif int(words[5]) == pid:
                return holders.get(words[0]) or None
        except ValueError:
            continue
    return None


def _is_python(pid: int) -> bool:
    try:
        if os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("python"):
            return True
    except OSError:
        return False
    return "/libpython3" in (read_text(f"/proc/{pid}/maps") or "")


def _helps(pid: int) -> bool:
    words = read_text(f"/proc/{pid}/cmdline") or ""
    return any(name in words for name in _HELPERS)
