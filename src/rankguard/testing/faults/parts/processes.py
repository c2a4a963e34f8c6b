"""A rank and the processes it makes or becomes: children that stay, escape or multiply, another program in its place."""

import os
import signal
import subprocess
import sys
from typing import NoReturn

from rankguard.testing.faults.actor import Actor

BOMB = 64


def fork_bomb(actor: Actor) -> NoReturn:
    """A bounded one: 64 children that fork once more each, and none ends by itself."""
    for _ in range(BOMB):
        if os.fork() == 0:
            os.fork()
            actor.tell("forked")
            actor.wait_for_ever()
    actor.wait("forked", 2 * BOMB)
    os._exit(3)


def orphans(actor: Actor) -> NoReturn:
    """Leaves a grandchild in a session of its own that ignores what it is told and has an empty environment."""
    away = actor.fifo("away")
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execve("/bin/sh", ["/bin/sh", "-c", f"echo >{away}; while :; do sleep 1000; done"], {})
        os._exit(0)
    os.wait()
    with open(away):
        os._exit(3)


def grandchild_holds_pipe(actor: Actor) -> NoReturn:
    """Ends while a process that it has started still has its stdout and stderr open."""
    worker = "import os, signal; fd = os.open('holds', os.O_WRONLY); os.write(fd, b'.'); os.close(fd); signal.pause()"
    actor.fifo("holds")
    subprocess.Popen([sys.executable, "-c", worker])
    actor.wait("holds")
    os._exit(3)


def execs_another(_actor: Actor) -> NoReturn:
    """Another program takes its place, and fails."""
    os.execv("/bin/sh", ["/bin/sh", "-c", "exit 7"])


def closes_output(_actor: Actor) -> NoReturn:
    """Closes stdout and stderr, as a daemon does, and fails later: nobody may take the end of output for its end."""
    os.close(1)
    os.close(2)
    os._exit(3)


def closes_everything(_actor: Actor) -> NoReturn:
    """Closes every descriptor, ours among them, and fails."""
    os.closerange(0, 1 << 16)
    raise ValueError("nobody can hear this")


def signal_ignored(_actor: Actor) -> NoReturn:
    os._exit(3)


def prepare_signal_ignored(actor: Actor) -> None:
    """The first of the others will not end when it is asked to."""
    if actor.rank == min({0, 1} - {actor.victim}):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def shm_leak(actor: Actor) -> None:
    """Dies with a segment in /dev/shm that only it would have removed."""
    with open(f"/dev/shm/{os.path.basename(actor.folder)}", "xb") as segment:  # noqa: S108  # the subject
        segment.write(bytes(1 << 20))
    os.kill(os.getpid(), signal.SIGKILL)


def cascade(actor: Actor) -> None:
    """The others fail, and are gone, before the one that failed first has left its `finally`."""
    peers = [os.open(actor.fifo(f"peer-{rank}"), os.O_WRONLY) for rank in actor.others]
    try:
        raise ValueError("loss is not finite at step 1200")
    finally:
        for peer in peers:
            os.close(peer)
        signal.sigtimedwait([], 0.1)  # what a process group does while it is torn down


def others_cascade(actor: Actor) -> None:
    with open(actor.fifo(f"peer-{actor.rank}")) as peer:
        peer.read()
    raise ConnectionError("Connection closed by peer")


def reported_failure(actor: Actor) -> None:
    """Says that it failed, and lives."""
    actor.me.failed("the checkpoint is of another model")
    actor.wait_for_ever()


def complaint(_actor: Actor) -> NoReturn:
    """Tells its parent by a signal, as engines do that expect a launcher which dies of it."""
    os.kill(os.getppid(), signal.SIGQUIT)
    sys.exit(0)


def kill(_actor: Actor) -> None:
    """Somebody, who is another process, sends SIGKILL."""
    _sent_by_another(9)


def terminate(_actor: Actor) -> None:
    _sent_by_another(15)


def _sent_by_another(number: int) -> None:
    rank = os.getpid()
    if os.fork() == 0:
        os.kill(rank, number)
        os._exit(0)
    while True:
        os.wait()
