"""Rank programs that fail, one function a drill: `programs.py NAME FOLDER`.

Every rank says in the FIFO `started` that it runs; rank 1 is the one that fails, the others would wait for ever.
No drill stands on a delay: who has to come after somebody else waits for it in a FIFO of FOLDER.
"""

import ctypes
import os
import resource
import signal
import sys
import threading
import time

import rankguard

CULPRIT = 1


def main() -> None:
    """Play one part."""
    name, folder = sys.argv[1], sys.argv[2]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a drill leaves no core file
    os.chdir(folder)
    me = rankguard.this_rank()
    if name not in BEFORE_STARTED:
        _started(me.rank)
    PARTS[name](me)
    signal.pause()


def _started(rank: int) -> None:
    fd = os.open("started", os.O_WRONLY)
    os.write(fd, f"{rank} {os.getpid()}\n".encode())
    os.close(fd)


def wait(me: rankguard.Rank) -> None:
    """Do nothing: somebody else will make the failure."""


def segfault(me: rankguard.Rank) -> None:
    if me.rank == CULPRIT:
        ctypes.string_at(0)


def exception(me: rankguard.Rank) -> None:
    if me.rank == CULPRIT:
        raise ValueError("shard 7 has 4095 rows, expected 4096")


def exit_early(me: rankguard.Rank) -> None:
    """Ends with 0, and nothing is wrong but that nobody can use it."""
    if me.rank == CULPRIT:
        sys.exit(0)
    me.ready()


def exit_code(me: rankguard.Rank) -> None:
    if me.rank == CULPRIT:
        sys.exit(3)


def ready_timeout(me: rankguard.Rank) -> None:
    """Waits for something that does not come, as a rank in a rendezvous does."""
    if me.rank == CULPRIT:
        me.status("waiting for the parameter server")
    else:
        me.ready()


def hang(me: rankguard.Rank) -> None:
    """Waits for a lock that nobody will release; the others wait for it."""
    if me.rank == CULPRIT:
        load_shard()
    wait_for_all()


def load_shard() -> None:
    held = threading.Lock()
    held.acquire()
    held.acquire()


def wait_for_all() -> None:
    with open("all-here") as meeting:
        meeting.read()


def reported_failure(me: rankguard.Rank) -> None:
    if me.rank == CULPRIT:
        me.failed("the checkpoint is of another model")


def complaint(me: rankguard.Rank) -> None:
    """Tells its parent by a signal, as engines do that expect a launcher which dies of it."""
    if me.rank == CULPRIT:
        os.kill(os.getppid(), signal.SIGQUIT)
        sys.exit(0)


def memory_limit(me: rankguard.Rank) -> None:
    if me.rank == CULPRIT:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        bytearray(2 << 30)


def disk_full(me: rankguard.Rank) -> None:
    if me.rank == CULPRIT:
        with open("/dev/full", "wb", buffering=0) as checkpoint:
            checkpoint.write(b"weights")


def shm_leak(me: rankguard.Rank) -> None:
    """Dies with a segment in /dev/shm that only it would have removed."""
    if me.rank == CULPRIT:
        with open(sys.argv[3], "xb") as segment:
            segment.write(bytes(1 << 20))
        os.kill(os.getpid(), signal.SIGKILL)


def signal_ignored(me: rankguard.Rank) -> None:
    """Rank 0 will not end when it is asked to."""
    if me.rank == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open("deaf", "w"):
            pass
        while True:
            signal.pause()
    if me.rank == CULPRIT:
        with open("deaf"):
            sys.exit(3)


def orphans(me: rankguard.Rank) -> None:
    """Leaves a grandchild in a session of its own that ignores what it is told and has an empty environment."""
    if me.rank != CULPRIT:
        return
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execve("/bin/sh", ["/bin/sh", "-c", "echo >away; while :; do sleep 1000; done"], {})
        os._exit(0)
    os.wait()
    with open("away"):
        sys.exit(3)


def cascade(me: rankguard.Rank) -> None:
    """The others fail, and are gone, before the one that failed first has left its `finally`."""
    if me.rank != CULPRIT:
        with open(f"peer-{me.rank}") as peer:
            peer.read()
        raise ConnectionError("Connection closed by peer")
    peers = [open(f"peer-{rank}", "w") for rank in range(me.world_size) if rank != me.rank]  # noqa: SIM115  # closed below
    try:
        raise ValueError("loss is not finite at step 1200")
    finally:
        for peer in peers:
            peer.close()
        time.sleep(0.1)  # what a process group does while it is torn down


PARTS = {
    "wait": wait,
    "segfault": segfault,
    "exception": exception,
    "exit-early": exit_early,
    "exit-code": exit_code,
    "ready-timeout": ready_timeout,
    "hang": hang,
    "reported-failure": reported_failure,
    "complaint": complaint,
    "memory-limit": memory_limit,
    "disk-full": disk_full,
    "shm-leak": shm_leak,
    "signal-ignored": signal_ignored,
    "orphans": orphans,
    "cascade": cascade,
}
BEFORE_STARTED = frozenset(PARTS) - {"wait"}
"""Parts that need nobody to know that they have begun."""


if __name__ == "__main__":
    main()
