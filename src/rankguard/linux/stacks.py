"""What processes are doing right now: Python frames by py-spy, and what the kernel tells of every thread.

Nothing runs inside the process that is looked at. `py-spy dump` is a child program of ours, a few at once, each with a
bound; its end is news of its pidfd and its output is in memory, so nobody waits for it. py-spy pauses a process while it
reads (about 10 ms) so that what it reads belongs together; one that is stopped, traced or in a system call that cannot
be interrupted is read without a pause, since it would not come to rest. Where py-spy is missing or may not trace, the
kernel's own words remain: state, system call, wait channel.

Sources: proc_pid_stat(5), proc_pid_syscall(5), proc_pid_wchan(5), proc_pid_status(5), `py-spy dump --help` (0.4).
Read next: `../stacks.py` (the nouns), `../supervisor/snapshots.py` (who asks).
"""

import contextlib
import json
import os
import select
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from selectors import EVENT_READ, BaseSelector
from typing import Any

from rankguard.linux import spawn, tree
from rankguard.linux.files import read_text
from rankguard.stacks import Frame, Stack, Thread

AT_ONCE, BOUND_S = 4, 10.0
_SLICE = 4
"""Processes looked at between two looks at the news."""
_THREADS, _FRAMES, _OUTPUT = 64, 200, 16 << 20
_BELOW = 16
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


def find_py_spy() -> str | None:
    """The program: beside this Python (it came with rankguard), else on PATH."""
    from shutil import which

    beside = os.path.join(os.path.dirname(sys.executable or ""), "py-spy")
    return beside if os.access(beside, os.X_OK) else which("py-spy")


def kernel_stack(pid: int) -> Stack | None:
    """What the kernel tells of a process; None when it is gone."""
    status = read_text(f"/proc/{pid}/status")
    if status is None:
        return None
    try:
        tids = sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return None
    threads = tuple(filter(None, map(partial(_thread, pid), tids[:_THREADS])))
    main = [thread for thread in threads if thread.tid == pid]
    if not main:
        return None
    tracer = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("TracerPid:")), 0)
    others = tuple(thread for thread in threads if thread.tid != pid)
    return Stack(pid=pid, name=main[0].name, threads=(*main, *others), tracer=tracer or None)


def python_of(pid: int) -> int | None:
    """The process that runs Python: this one, else the first below it (a shell script that starts one)."""
    return next((each for each in [pid, *tree.descendants(pid)[:_BELOW]] if _is_python(each)), None)


def with_frames(known: Stack, dump: list[dict[str, Any]]) -> Stack:
    """The kernel's view of a process with the frames that `py-spy dump --json` tells. Raises on a shape we do not know."""
    told = {thread["os_thread_id"] or known.pid: thread for thread in dump}
    by_tid = {thread.tid: thread for thread in known.threads}
    threads = []
    for tid, thread in told.items():
        seen = by_tid.pop(tid, None) or Thread(tid, "?", "?")
        frames = tuple(
            Frame(str(frame["name"]), frame["filename"], frame["line"] or None) for frame in thread["frames"][:_FRAMES]
        )
        threads.append(
            seen.replace(
                name=str(thread["thread_name"] or seen.name),
                frames=frames,
                active=bool(thread["active"]),
                holds_gil=bool(thread["owns_gil"]),
            )
        )
    threads += by_tid.values()  # those that no Python runs in
    return known.replace(
        threads=tuple(sorted(threads, key=lambda thread: (thread.tid != known.pid, not thread.frames)))
    )


class _Round:
    """Processes by a key of the caller's, and what has been found of them."""

    def __init__(self, pids: Mapping[int, int], done: Callable[[dict[int, Stack]], None]) -> None:
        self.todo = deque(pids.items())
        self.found: dict[int, Stack] = {}
        self.running = 0
        self.done = done


class _Dump:
    """One py-spy at work on one process."""

    __slots__ = ("err", "key", "known", "out", "pidfd", "round", "until")

    def __init__(self, of: _Round, key: int, known: Stack, until: float) -> None:
        self.round, self.key, self.known, self.until = of, key, known, until
        self.pidfd = self.out = self.err = -1


class Sampler:
    """Takes stacks without blocking: `take` queues, the selector's news and `wake` do the work, `done` gets the result.

    `priority` is that of our news in the driver's selector; `clock` its clock (seconds).
    """

    def __init__(self, selector: BaseSelector, priority: int, clock: Callable[[], float]) -> None:
        self._selector, self._priority, self._clock = selector, priority, clock
        self._rounds: deque[_Round] = deque()
        self._running: dict[int, _Dump] = {}
        self._program: str | None = None
        self._looked_for_it = False

    def take(self, pids: Mapping[int, int], done: Callable[[dict[int, Stack]], None]) -> dict[int, Stack]:
        """Stacks of the processes `pids` (key → pid); `done` gets them by key, those that are gone left out.

        Returned is what `done` will get, and what has been found of it at any time.
        """
        if not self._looked_for_it:
            self._looked_for_it, self._program = True, find_py_spy()
        self._rounds.append(_Round(pids, done))
        return self._rounds[-1].found

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        if self._can_go_on():
            return 0.0
        return min((dump.until for dump in self._running.values()), default=None)

    def wake(self, now: float) -> None:
        """Look at the next processes; end what takes too long."""
        for dump in list(self._running.values()):
            if dump.until <= now:
                self._end(dump)
                self._finish(dump, f"py-spy took longer than {BOUND_S:g} s")
        for _ in range(_SLICE):
            if self._can_go_on():
                current = self._rounds[0]
                if current.todo:
                    self._look(current, *current.todo.popleft(), now)
                self._when_done(current)

    def close(self) -> None:
        """End every program of ours, and wait for its end (they are killed: milliseconds)."""
        for dump in list(self._running.values()):
            self._end(dump)
            self._forget(dump)
        self._rounds.clear()

    def _can_go_on(self) -> bool:
        if not self._rounds:
            return False
        first = self._rounds[0]
        return len(self._running) < AT_ONCE if first.todo else not first.running

    def _when_done(self, current: _Round) -> None:
        if not current.todo and not current.running and self._rounds and self._rounds[0] is current:
            self._rounds.popleft()
            current.done(current.found)

    def _look(self, current: _Round, key: int, pid: int, now: float) -> None:
        known = kernel_stack(pid)
        if known is None:
            return
        python = python_of(pid)
        if python is None:
            current.found[key] = known
        elif self._program is None:
            current.found[key] = known.replace(lacks="no py-spy is installed")
        else:
            below = kernel_stack(python) if python != pid else None
            known = below.replace(child_of=pid) if below is not None else known
            try:
                self._dump(current, key, known, now)
            except OSError as error:
                current.found[key] = known.replace(lacks=f"unable to execute py-spy: {error.strerror}")

    def _dump(self, current: _Round, key: int, known: Stack, now: float) -> None:
        assert self._program is not None
        dump = _Dump(current, key, known, now + BOUND_S)
        pause = () if known.tracer is None and known.main.state not in "DTt" else ("--nonblocking",)
        argv = (self._program, "dump", "--json", *pause, "--pid", str(known.pid))
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        opened = [null]
        try:
            for _ in range(2):
                opened.append(os.memfd_create("rankguard-stacks", os.MFD_CLOEXEC))  # noqa: PERF401  # each must be closed
            _null, dump.out, dump.err = opened
            env = {"PATH": os.defpath, "RUST_BACKTRACE": "0", "LC_ALL": "C.UTF-8"}
            started = spawn.spawn(spawn.Command(argv=argv, env=env, cwd="/", stdio=(null, dump.out, dump.err)))
        except OSError:
            for fd in opened[1:]:
                os.close(fd)
            raise
        finally:
            os.close(null)
        os.close(started.news)
        dump.pidfd = started.pidfd
        self._running[dump.pidfd] = dump
        current.running += 1
        self._selector.register(dump.pidfd, EVENT_READ, (self._priority, partial(self._on_end, dump)))

    def _on_end(self, dump: _Dump, now: float) -> None:
        if dump.pidfd in self._running:
            self._finish(dump, None)

    def _finish(self, dump: _Dump, lacks: str | None) -> None:
        """What it has found, or why nothing."""
        known = dump.known
        try:
            dump.round.found[dump.key] = with_frames(known, json.loads(_content(dump.out)))
        except (ValueError, TypeError, KeyError):
            lacks = lacks or _why(_content(dump.err).decode(errors="replace"))
            dump.round.found[dump.key] = known.replace(lacks=lacks)
        self._forget(dump)
        self._when_done(dump.round)

    def _end(self, dump: _Dump) -> None:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(dump.pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(dump.pidfd, select.POLLIN)
        poll.poll(50)

    def _forget(self, dump: _Dump) -> None:
        if self._running.pop(dump.pidfd, None) is None:
            return
        dump.round.running -= 1
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(dump.pidfd)
        with contextlib.suppress(ChildProcessError):  # whoever reaps strays may have come first
            os.waitid(os.P_PIDFD, dump.pidfd, os.WEXITED | os.WNOHANG)
        for fd in (dump.pidfd, dump.out, dump.err):
            os.close(fd)


# ── What the kernel tells ────────────────────────────────────────────────────────────────────────────────────────


def _thread(pid: int, tid: int) -> Thread | None:
    folder = f"/proc/{pid}/task/{tid}"
    text = read_text(f"{folder}/stat")
    if text is None or ")" not in text:
        return None
    name, state = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2]
    return Thread(tid, name, state, waits_in=_waits_in(folder) if state in "SD" else None)


def _waits_in(folder: str) -> str | None:
    """The system call by its name, else the kernel's function; null where neither may be read."""
    words = (read_text(f"{folder}/syscall") or "").split()
    if words and words[0].isdecimal():
        name = _SYSCALLS.get(os.uname().machine, {}).get(int(words[0]))
        if name is not None:
            return name
    channel = (read_text(f"{folder}/wchan") or "0").strip()
    if channel not in ("0", ""):
        return channel
    return f"system call {words[0]}" if words and words[0].isdecimal() else None


def _is_python(pid: int) -> bool:
    try:
        if os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("python"):
            return True
    except OSError:
        return False
    return "/libpython3" in (read_text(f"/proc/{pid}/maps") or "")


def _content(fd: int) -> bytes:
    return os.pread(fd, _OUTPUT, 0)


def _why(said: str) -> str:
    """py-spy's reason: its last cause, else its error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    causes = [line.partition(": ")[2] for line in lines if line[:1].isdecimal() and ": " in line]
    reason = causes[-1] if causes else next((line.removeprefix("Error: ") for line in lines), "it said nothing")
    return f"py-spy: {reason[:200]}"
