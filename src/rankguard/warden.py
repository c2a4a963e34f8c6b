"""The warden: the process above the supervisor. When supervisor or front is gone it ends the job, or keeps it.

Executed by the front as a file (`python -I -S warden.py`), imports nothing of the rest and loads nothing heavy: it
becomes a subreaper, forks the supervisor, and waits on two pidfds. Whatever the supervisor's tree held falls to it as
orphans, sessions and double forks notwithstanding (prctl(2), PR_SET_CHILD_SUBREAPER), and it kills until the kernel
says that it has no child (waitid(2): ECHILD). The supervisor tells it through a socket which folders and cgroups to
remove then.

Under `--on-lost keep` that socket also brings what the engine needs of us: the read ends of its output, and the file of
`Slots`, in which each process that was started has written its pid. When the supervisor is gone, the warden is what `tini`
is: it reaps, passes signals on, writes down how the engine ended, and ends what that has left behind. The front, while
there is one, shows the output and answers; else the warden pumps that, too.

File descriptors: 3 the control socket (the supervisor's), 4 a pidfd of the front. Arguments: the folder that holds
the package, the front's pid. Read next: `supervisor/main.py`, docs/decisions/0001-three-processes.md.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import struct
import sys
import time
from typing import NoReturn

CONTROL, FRONT = 3, 4
SUBREAPER = 36
FRONT_GONE_S = 0.4
"""The supervisor ends the job by itself when the front is gone, and writes the verdict; then it is made to."""
BOUND_S = 10.0
DRAIN_S = 2.0
SLOT = struct.Struct("iii")
_AF_UNIX, _SOCK_SEQPACKET, _SOCK_CLOEXEC = 1, 5, 0o2000000


def main() -> None:
    """Become the warden; the supervisor is the child."""
    package, front_pid = sys.argv[1], int(sys.argv[2])
    os.closerange(FRONT + 1, _highest_fd() + 1)
    for fd in (CONTROL, FRONT):
        os.set_inheritable(fd, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0) != 0 or _gone(FRONT):
        os._exit(125)
    own = os.pidfd_open(os.getpid())
    told, tell = _packets()
    try:
        supervisor = os.fork()
    except OSError as error:
        _cannot_fork(error)
    if supervisor == 0:
        os.close(told)
        _supervise(package, front_pid, own, tell)
    os.close(CONTROL)
    os.close(own)
    os.close(tell)
    for fd in (0, 1, 2):  # a reader of the job's output must not wait for us
        os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    watch(supervisor, told)
    os._exit(0)


def _cannot_fork(error: OSError) -> NoReturn:
    """Tell the front (`wire.py`: length, number of descriptors, JSON) and end."""
    said = f"unable to start rankguard's own processes: fork: {error.strerror}"
    body = json.dumps({"is": "spawn-failed", "statement": said, "hint": "see `ulimit -u`", "code": 125}).encode()
    os.write(CONTROL, struct.pack(">IB", len(body), 0) + body)
    os._exit(125)


def _supervise(package: str, front_pid: int, warden: int, tell: int) -> None:
    try:
        sys.path.append(package)  # behind the standard library: other packages lie there, backports among them
        from rankguard.supervisor.main import main as supervise

        supervise(CONTROL, FRONT, front_pid, warden, tell)
    except BaseException:  # noqa: BLE001  # nobody else is there to tell it
        import traceback

        traceback.print_exc()
    finally:
        os._exit(125)


def _packets() -> tuple[int, int]:
    """Two ends of a socket that keeps packets apart. `socket` is a module that most wardens never need."""
    pair = (ctypes.c_int * 2)()
    if ctypes.CDLL(None).socketpair(_AF_UNIX, _SOCK_SEQPACKET | _SOCK_CLOEXEC, 0, pair) != 0:
        os._exit(125)
    return pair[0], pair[1]


def watch(supervisor: int, told: int) -> None:
    """Wait until the supervisor or the front is gone, then leave nothing behind, or keep the engine."""
    ours = os.pidfd_open(supervisor)
    poll = select.poll()
    for fd in (ours, FRONT, told):
        poll.register(fd, select.POLLIN)
    notes, kept = b"", Kept()
    until: float | None = None
    while True:
        ready = {fd for fd, _event in poll.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000)}
        if told in ready and not (more := kept.read(told)):
            poll.unregister(told)
        elif told in ready:
            notes += more
            continue  # all that it said, before its end
        if ours in ready:
            break
        if FRONT in ready:
            poll.unregister(FRONT)
            until = time.monotonic() + FRONT_GONE_S
        if until is not None and time.monotonic() >= until and not kept.wanted:
            break
        until = None if kept.wanted else until
    if kept.wanted and _failed(supervisor):
        kept.keep()
    end_tree()
    remove(notes.decode(errors="surrogateescape").splitlines())


def _failed(supervisor: int) -> bool:
    """It did not end by itself when all was done. Reaped."""
    return os.waitpid(supervisor, 0)[1] != 0


class Slots:
    """A file with a place for each process that was started: its pid, whether it has ended, its wait status."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pids(self) -> dict[int, int]:
        """Place → pid of each that was started."""
        size = os.fstat(self._fd).st_size
        found = {at: self._get(at)[0] for at in range(0, size, SLOT.size)}
        return {at: pid for at, pid in found.items() if pid}

    def status(self, at: int) -> int | None:
        """The wait status of one that was reaped."""
        _pid, ended, status = self._get(at)
        return status if ended else None

    def ended(self, at: int, pid: int, status: int) -> None:
        os.pwrite(self._fd, SLOT.pack(pid, 1, status), at)

    def all_ended(self) -> bool:
        return all(self.status(at) is not None for at in self.pids())

    def _get(self, at: int) -> tuple[int, int, int]:
        raw = os.pread(self._fd, SLOT.size, at)
        pid, ended, status = SLOT.unpack(raw.ljust(SLOT.size, b"\0"))  # a pid alone, written by the process itself
        return pid, ended, status


class Kept:
    """What is held for `--on-lost keep`, from when the supervisor says that (`wanted`) until it is gone."""

    def __init__(self) -> None:
        self.wanted = False
        self.grace = 5.0
        self._slots: Slots | None = None
        self._pumps: tuple[Pump, ...] = ()

    def read(self, told: int) -> bytes:
        """One packet of the supervisor's: a note (returned), or what to hold. Empty at its end."""
        if not self.wanted:
            data = os.read(told, 65536)
            if data.startswith(b"keep "):
                self.wanted, self.grace = True, float(data.split()[1])
            return data
        import socket  # this one needs it, most do not

        with socket.socket(fileno=os.dup(told)) as end:
            data, fds, _flags, _address = socket.recv_fds(end, 65536, 8)
        with contextlib.suppress(OSError):
            if data.startswith(b"slots") and fds:
                self._slots = Slots(fds[0])
            elif data.startswith(b"pipes") and len(fds) == 4:
                self._pumps += (Pump(fds[0], fds[2]), Pump(fds[1], fds[3]))
        return data

    def keep(self) -> None:
        """Until the engine has ended by itself, and what it left behind had its time to."""
        if self._slots is None or not self._begun():
            return
        libc, mask = ctypes.CDLL(None), (ctypes.c_ulong * 16)(~0)
        signals = libc.signalfd(-1, ctypes.byref(mask), os.O_NONBLOCK | os.O_CLOEXEC)
        poll = select.poll()
        poll.register(FRONT, select.POLLIN)
        if signals >= 0:
            poll.register(signals, select.POLLIN)
        alone: tuple[Pump, ...] = ()
        while not self._reap(self._slots):
            for each in alone:
                each.register(poll)
            ready = {fd for fd, _event in poll.poll(None if signals >= 0 else 100)}
            if FRONT in ready:
                poll.unregister(FRONT)
                alone = self._pumps
            if signals in ready:
                self._pass_on(signals)
            for each in alone:
                each.move()
        for each in self._pumps if _gone(FRONT) else ():
            each.drain(DRAIN_S)
        ask_to_end(self.grace)

    def _begun(self) -> bool:
        """Whether there is anybody to keep. One that is being born writes its pid in a moment."""
        assert self._slots is not None
        for _ in range(100):
            if self._slots.pids():
                return True
            if not _descendants(os.getpid()):
                break
            time.sleep(0.01)
        return False

    def _reap(self, slots: Slots) -> bool:
        """All that have ended. True when the engine has."""
        known = {pid: at for at, pid in slots.pids().items()}
        try:
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                pid, status = os.waitpid(ended.si_pid, os.WNOHANG)
                if pid in known:
                    slots.ended(known[pid], pid, status)
        except ChildProcessError:
            return True
        return slots.all_ended()

    def _pass_on(self, signals: int) -> None:
        """Signals that are sent to us are for the engine: nobody else is there to take them."""
        while True:
            try:
                number = int.from_bytes(os.read(signals, 128)[:4], sys.byteorder)
            except BlockingIOError:
                return
            if number not in (signal.SIGCHLD, signal.SIGPIPE) and self._slots is not None:
                for at, pid in self._slots.pids().items():
                    if self._slots.status(at) is None:
                        with contextlib.suppress(OSError):
                            os.kill(pid, number)


class Pump:
    """What a pipe holds, to where it is shown. A slow reader makes the engine wait, as it would without us."""

    def __init__(self, pipe: int, console: int) -> None:
        self.pipe, self._console = pipe, console
        self._data = b""
        self.open = True

    def register(self, poll: select.poll) -> None:
        """What to wait for next."""
        for fd in (self.pipe, self._console):
            with contextlib.suppress(KeyError):
                poll.unregister(fd)
        if self._data:
            poll.register(self._console, select.POLLOUT)
        elif self.open:
            poll.register(self.pipe, select.POLLIN)

    def move(self) -> None:
        """As much as there is room for: what poll(2) calls room is 4,096 bytes at least (pipe(7))."""
        try:
            if not self._data:
                self._data = os.read(self.pipe, 4096)
                self.open = bool(self._data)
            if self._data and _wait(self._console, 0, select.POLLOUT):
                self._data = self._data[os.write(self._console, self._data) :]
        except BlockingIOError:
            return
        except OSError:  # its reader is gone
            self._data = b""

    def drain(self, seconds: float) -> None:
        """What is left, if its reader takes it in time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not self._data and not (self.open and _wait(self.pipe, 0)):
                return
            if not self._data or _wait(self._console, left, select.POLLOUT):
                self.move()


def ask_to_end(seconds: float) -> None:
    """SIGTERM to what the engine has left behind, and a while for it."""
    for pid in reversed(_descendants(os.getpid())):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            signal.sigtimedwait({signal.SIGCHLD}, 0.02)
    except ChildProcessError:
        return


def end_tree() -> None:
    """Kill every descendant until no child is left, or the bound is over."""
    until = time.monotonic() + BOUND_S
    pause = 0.0005
    while time.monotonic() < until:
        for pid in reversed(_descendants(os.getpid())):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        # Nothing here can be waited for by pidfd alone: a grandchild becomes a child at any moment.
        signal.sigtimedwait({signal.SIGCHLD}, pause)
        pause = min(pause * 2, 0.02)


def remove(notes: list[str]) -> None:
    """Remove the cgroups (`cgroup PATH`) and the private folders (`folder PATH`) that the supervisor had made."""
    for note in notes:
        kind, _, path = note.partition(" ")
        for folder, _folders, files in os.walk(path, topdown=False):
            if kind == "folder":
                for name in files:
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(folder, name))
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    queue = [pid]
    while queue:
        below = []
        for parent in queue:
            try:
                for thread in os.listdir(f"/proc/{parent}/task"):
                    with open(f"/proc/{parent}/task/{thread}/children", "rb") as file:
                        below += [int(child) for child in file.read().split()]
            except OSError:
                continue
        found += below
        queue = below
    return found


def _highest_fd() -> int:
    try:
        return max(int(name) for name in os.listdir("/proc/self/fd"))
    except (OSError, ValueError):
        return 1024


def _gone(pidfd: int) -> bool:
    return _wait(pidfd, 0)


def _wait(fd: int, seconds: float, event: int = select.POLLIN) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(seconds * 1000))


if __name__ == "__main__":
    main()
