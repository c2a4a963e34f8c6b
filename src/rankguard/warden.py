"""The warden: the process above the supervisor. When supervisor or front is gone it ends the job, or keeps it.

Executed by the front as a file (`python -I -S warden.py`), imports nothing of the rest and loads nothing heavy: it
becomes a subreaper, forks the supervisor, and waits on two pidfds. Whatever the supervisor's tree held falls to it as
orphans, sessions and double forks notwithstanding (prctl(2), PR_SET_CHILD_SUBREAPER), and it kills until the kernel
says that it has no child (waitid(2): ECHILD). The supervisor tells it through a socket which folders and cgroups to
remove then.

Under `--on-lost keep` it does not end the engine when the supervisor is gone, but what `tini` does (`keep.py`).

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
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from rankguard.keep import Kept

CONTROL, FRONT = 3, 4
SUBREAPER = 36
FRONT_GONE_S, VERDICT_S = 0.4, 5.0
"""The supervisor ends the job by itself when the front is gone, and writes the verdict. After the first, its processes are
ended from here; after the second it is, too: a machine under load may be slow, and somebody wants to know why."""
AGAIN_S, BOUND_S = 0.05, 10.0
_AF_UNIX, _SOCK_SEQPACKET, _SOCK_CLOEXEC = 1, 5, 0o2000000


def main() -> None:
    """Become the warden; the supervisor is the child."""
    package, front_pid = sys.argv[1], int(sys.argv[2])
    os.closerange(FRONT + 1, _highest_fd() + 1)
    for fd in (CONTROL, FRONT):
        os.set_inheritable(fd, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0) != 0 or gone(FRONT):
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
    notes, kept, wanted = b"", None, False
    until: float | None = None
    last = 0.0
    while True:
        ready = {fd for fd, _event in poll.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000)}
        if told in ready and not (more := os.read(told, 65536) if kept is None else kept.read(told)):
            poll.unregister(told)
        elif told in ready:
            if more.startswith(b"keep "):
                kept, wanted, until = _keeper(float(more.split()[1])), True, None
            notes += more
            continue  # all that it said, before its end
        if ours in ready:
            break
        if FRONT in ready:
            poll.unregister(FRONT)
            last = time.monotonic() + FRONT_GONE_S + VERDICT_S
            until = None if wanted else last - VERDICT_S
        if until is not None and time.monotonic() >= until:
            if until >= last:
                break
            end_below(spared=supervisor)
            until = min(last, until + AGAIN_S)
    if wanted and _failed(supervisor):
        if kept is None:
            os._exit(125)  # the front is the next above
        kept.keep()
    end_tree()
    remove(notes.decode(errors="surrogateescape").splitlines())


def _keeper(grace: float) -> "Kept | None":
    """Loaded while all is well, by those wardens alone that may need it."""
    try:
        sys.path.append(sys.argv[1])
        from rankguard.keep import Kept

        return Kept(grace)
    except Exception:  # noqa: BLE001  # whatever it is, no engine is to end of it
        return None


def _failed(supervisor: int) -> bool:
    """It did not end by itself when all was done. Reaped."""
    return os.waitpid(supervisor, 0)[1] != 0


def end_tree() -> None:
    """Kill every descendant until no child is left, or the bound is over."""
    until = time.monotonic() + BOUND_S
    pause = 0.0005
    while time.monotonic() < until:
        end_below()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        # Nothing here can be waited for by pidfd alone: a grandchild becomes a child at any moment.
        signal.sigtimedwait({signal.SIGCHLD}, pause)
        pause = min(pause * 2, 0.02)


def end_below(spared: int | None = None) -> None:
    """Kill every descendant that there is now, but one."""
    for pid in reversed(descendants(os.getpid())):
        if pid != spared:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


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


def descendants(pid: int) -> list[int]:
    """Everything below a process, parents before children."""
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


def gone(pidfd: int) -> bool:
    """Whether it has ended."""
    return wait(pidfd, 0)


def wait(fd: int, seconds: float, event: int = select.POLLIN) -> bool:
    """Whether a descriptor is ready within so many seconds."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(seconds * 1000))


if __name__ == "__main__":
    main()
