"""We stood still, and nobody told us: SIGSTOP of the supervisor, of everything, a frozen group. No deadline has run."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.signals.jobs import Job, until_state
from tests.signals.rows import row

from rankguard.linux.procstack import kernel_stack

pytestmark = pytest.mark.slow

READY = """
import socket
def ready():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s: s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
say("up")
while not os.path.exists("go"): time.sleep(0.01)
ready()
"""
TIMEOUT, STANDS = 8.0, 8.5
"""The deadline, and how long everything stands still: nothing can show but the passing of that time that none has run. Two
interpreters have to start within the deadline, also on a busy machine.
"""


def stop(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        until_state(pid, "T")
    time.sleep(STANDS)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)


def all_of(job: Job) -> list[int]:
    ours = job.ours()
    return [ours["warden"], ours["supervisor"], *job.pids(), ours["front"]]


@row("SIGSTOP, then SIGCONT", "anybody, to the supervisor", "starting", "no deadline has run meanwhile", "of the ranks")
@row("SIGSTOP, then SIGCONT", "anybody, to every process", "starting", "no deadline has run meanwhile", "of the ranks")
@pytest.mark.parametrize("who", [lambda job: [job.ours()["supervisor"]], all_of], ids=["supervisor", "everything"])
def test_stopped_while_the_ranks_start(tmp_path: Path, who: Callable[[Job], list[int]]) -> None:
    with Job(tmp_path, 2, READY, "--ready-timeout", str(TIMEOUT)) as job:
        stop(who(job))
        job.until_fact("TimeLost")
        (tmp_path / "go").touch()
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"]) == (0, "succeeded"), verdict["statement"]
    assert verdict["ready_at"] is not None
    assert any("stood still for" in moment["what"] for moment in verdict["timeline"])


def test_who_is_late_is_late_after_that(tmp_path: Path) -> None:
    with Job(tmp_path, 2, READY, "--ready-timeout", str(TIMEOUT)) as job:
        stop([job.ours()["supervisor"]])
        status, verdict, _err = job.ended()

    assert (status, verdict["culprit"]["cause"]["kind"]) == (124, "ready-timeout")
    lost = sum(fact["seconds"] for fact in job.facts("TimeLost"))
    *_others, passed = [fact for fact in job.facts("DeadlinePassed") if fact["name"] == "ready"]
    ran = passed["at"] - job.facts("JobStarted")[0]["at"] - lost
    assert lost >= STANDS - 0.1
    assert ran >= TIMEOUT - 0.1


@row(
    "SIGSTOP, then SIGCONT",
    "anybody, to every process",
    "stopping",
    "the clock of the stop has not run meanwhile",
    "0 or 143",
)
def test_stopped_while_the_ranks_end(tmp_path: Path) -> None:
    text = "on(15, lambda: (say('heard'), wait_for_go(), os._exit(0))); say('up'); forever()"
    with Job(tmp_path, 1, text, "--shutdown-timeout", str(TIMEOUT)) as job:
        job.kill(signal.SIGTERM)
        job.until("heard")
        stop(all_of(job))
        job.until_fact("TimeLost")
        job.go()
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"]) == (0, "interrupted"), verdict["statement"]


@contextlib.contextmanager
def freezer() -> Iterator[tuple[Path, str, str, str]]:
    """A group that can be frozen: its folder, the switch, the words for frozen and thawed. Skips where there is none."""
    for top, switch, freeze, thaw in (
        ("/sys/fs/cgroup/freezer", "freezer.state", "FROZEN", "THAWED"),
        ("/sys/fs/cgroup", "cgroup.freeze", "1", "0"),
        ("/sys/fs/cgroup/unified", "cgroup.freeze", "1", "0"),
    ):
        group = Path(top, f"rankguard-test-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        if not (group / switch).exists():
            group.rmdir()
            continue
        try:
            yield group, switch, freeze, thaw
        finally:
            for inner in sorted(group.glob("**/"), key=lambda path: -len(path.parts)):
                with contextlib.suppress(OSError):
                    inner.rmdir()
        return
    pytest.skip("no cgroup here can be frozen by this user")


@row("a container that is paused, a machine that is frozen", "the kernel's freezer", "starting", "no deadline has run meanwhile",
     "of the ranks")  # fmt: skip
def test_frozen(tmp_path: Path) -> None:
    with freezer() as (group, switch, freeze, thaw):
        wrap = ("sh", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh")
        with Job(tmp_path, 2, READY, "--ready-timeout", str(TIMEOUT), wrap=wrap) as job:
            # Ranks have a group of their own in some hierarchies, below that of the supervisor, or none: see to all.
            for pid in (*job.ours().values(), *job.pids()):
                (group / "cgroup.procs").write_text(str(pid))
            (group / switch).write_text(freeze)
            try:
                time.sleep(STANDS)
            finally:
                (group / switch).write_text(thaw)
            job.until_fact("TimeLost")
            (tmp_path / "go").touch()
            status, verdict, _err = job.ended()

        assert (status, verdict["outcome"]) == (0, "succeeded"), verdict["statement"]


HOST = """
import multiprocessing as mp, os, sys, time
import rankguard
def work(pipe, go):
    while not os.path.exists(go): time.sleep(0.01)
    pipe.send("ready")
    time.sleep(0.2)
if __name__ == "__main__":
    context = mp.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, sys.argv[1]))
    process.start()
    theirs.close()
    print("up", process.pid, flush=True)
    print(rankguard.wait_ready([process], [ours], timeout=8.0), flush=True)
    process.join()
"""


def test_a_host_that_waits_is_stopped(tmp_path: Path) -> None:
    """Ctrl-Z of a program that is in `wait_ready`: its time-out has not run when it goes on."""
    (tmp_path / "host.py").write_text(HOST)
    host = subprocess.Popen(
        [sys.executable, str(tmp_path / "host.py"), str(tmp_path / "go")], stdout=subprocess.PIPE, text=True
    )
    assert host.stdout is not None
    worker = int(host.stdout.readline().split()[1])
    while "poll" not in (kernel_stack(host.pid).main.waits_in or ""):
        time.sleep(0.01)  # it is on its way there, and nobody tells when it has arrived
    stop([host.pid, worker])
    time.sleep(0.5)  # a time-out that had run would be told at once
    (tmp_path / "go").touch()

    assert host.communicate()[0] == "['ready']\n"
    assert host.returncode == 0


def gone(pidfds: list[int]) -> None:
    """Wait until these processes have ended."""
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 30.0)[0]
        os.close(pidfd)


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "does not"])
def test_nobody_in_front_and_the_supervisor_stands_still(tmp_path: Path, goes_on: bool) -> None:
    """The warden ends the ranks for it; a supervisor that goes on still says why, and one that does not is ended."""
    with Job(tmp_path, 2, "say('up'); forever()") as job:
        ours = job.ours()
        ranks, supervisor = [os.pidfd_open(pid) for pid in job.pids()], os.pidfd_open(ours["supervisor"])
        os.kill(ours["supervisor"], signal.SIGSTOP)
        until_state(ours["supervisor"], "T")
        job.kill(signal.SIGKILL)
        gone(ranks)
        assert os.path.exists(f"/proc/{ours['supervisor']}")
        if goes_on:
            os.kill(ours["supervisor"], signal.SIGCONT)
            job.until_verdict()
            assert job.verdict()["statement"] == f"the process that launched the job (pid {ours['front']}) was gone"
        gone([supervisor])
        assert job.process is not None
        job.process.communicate()
        assert goes_on == (job.run_dir / "verdict.json").exists()
