"""Where nobody may trace: ranks tell their own stacks (faulthandler by a signal), and those that cannot are left alone."""

import os
import re
import signal
import sys
from pathlib import Path

from tests.runs.jobs import TELL, Jobs, state, until

NO_PTRACE = (sys.executable, str(Path(__file__).with_name("no_ptrace.py")))
FILES = "[int(n) for n in os.listdir('/proc/self/fd') if int(n) >= 100 and os.readlink(f'/proc/self/fd/{n}').endswith('.stack')]"

RANKS = f"""
import faulthandler, select, threading
ends, end = os.pipe()
def wait_for_all():
    {TELL}; os.read(ends, 1)
def closes_all():
    fd, = {FILES}
    os.closerange(3, 256)
    mine = os.open(sys.argv[1] + ".mine", os.O_RDWR | os.O_CREAT)
    os.dup2(mine, fd)
    r, w = os.pipe()
    {TELL}; os.read(r, 1)
def takes_it_back():
    signal.signal(50, signal.SIG_DFL)
    wait_for_all()
def ignores_it():
    signal.signal(50, signal.SIG_IGN)
    wait_for_all()
def blocks_all():
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    wait_for_all()
def has_its_own():
    global counted
    counted = []
    signal.signal(50, lambda *_: counted.append(1))
    wait_for_all()
def becomes_another():
    os.execv("/bin/sh", ["sh", "-c", "printf x > $0; exec sleep 1000", sys.argv[1]])
def spins():
    {TELL}
    while True: pass
def polls():
    p = select.poll(); p.register(ends, select.POLLIN)
    {TELL}; p.poll()
def pauses():
    {TELL}; signal.pause()
[wait_for_all, closes_all, takes_it_back, ignores_it, blocks_all, has_its_own, becomes_another, spins, polls,
 wait_for_all, pauses][RANK]()
"""


def test_each_rank_tells_what_it_can_and_none_is_hurt(jobs: Jobs) -> None:
    live = jobs.start(11, RANKS, before=NO_PTRACE)
    os.kill(live.pid(9), signal.SIGSTOP)
    until(lambda: state(live.pid(9)) == "T")

    for _ in range(2):
        # Each is where it was, also after it has been asked: the answer is there before the signal's handler has returned.
        until(lambda: [state(live.pid(rank)) for rank in range(11)] == ["S"] * 7 + ["R", "S", "T", "S"])
        told = jobs.ask("stacks").stdout
        groups = told[: told.index("\n\n", told.index("\n\n") + 2)]
        assert re.search(r"rank 0 waits in `wait_for_all` \(program-0\.py:\d+\)", groups), told
        assert re.search(r"rank 8 waits in `polls` \(program-0\.py:\d+\)", groups), told
        spins = r"rank 7 is in `spins` \(program-0\.py" if sys.version_info < (3, 13) else r"rank 7 is running"
        assert re.search(spins, groups), told
        assert "rank 9 is stopped" in groups
        assert "`closes_all`" not in told  # rank 1: its descriptor is another file by now
        assert "`takes_it_back`" not in told
        assert "`pauses`" not in told  # any signal is what it waits for
        assert "`blocks_all`" not in told
        assert "Operation not permitted" in told
        assert "of the main thread only" in told
    assert live.process.poll() is None
    until(lambda: [state(live.pid(rank)) for rank in range(11)] == ["S"] * 7 + ["R", "S", "T", "S"])
    assert (jobs.folder / "there-0.mine").read_text() == ""


def test_what_is_told_is_not_kept(jobs: Jobs) -> None:
    """The file holds the offer, and the last answer at most."""
    live = jobs.start(1, f"r, w = os.pipe()\n{TELL}; os.read(r, 1)", before=NO_PTRACE)
    (path,) = Path(os.path.dirname(os.readlink(live.folder / "control"))).glob("*.stack")
    sizes = set()
    for _ in range(3):
        assert "in `<module>` (program-0.py:" in jobs.ask("stacks").stdout
        sizes.add(path.stat().st_size)

    assert len(sizes) == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_job_of_which_stacks_were_told_ends_as_it_would(jobs: Jobs) -> None:
    gate = jobs.folder / "gate"
    os.mkfifo(gate)
    text = f"import time\nbegan = time.monotonic()\n{TELL}\nopen({str(gate)!r}).read(); time.sleep(0.2); sys.exit(3)"
    live = jobs.start(1, text, before=NO_PTRACE)
    private = os.path.dirname(os.readlink(live.folder / "control"))
    with gate.open("w"):
        told = jobs.ask("stacks").stdout
    _out, err = live.process.communicate()

    assert "in `<module>` (program-0.py:" in told
    assert live.process.returncode == 3
    assert "exit-code proven" in err
    assert not os.path.exists(private)
