import contextlib
import errno
import multiprocessing as mp
import os
import select
import signal
import subprocess
import sys
import threading
import time

import pytest
from tests.adopt import programs
from tests.adopt.programs import METHODS, Ranks

import rankguard
from rankguard.adopted import teardown


def started(target, *args, method="fork"):
    """A process of `target`, and the first thing that it says."""
    context = mp.get_context(method)
    up, up_writer = context.Pipe(duplex=False)
    life, life_writer = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(up_writer, life, *args))
    process.start()
    said = up.recv()
    return process, said, [up, up_writer, life, life_writer]


def close(ends):
    for end in ends:
        end.close()


def gone(pid):
    try:
        return programs.state(pid) in "ZX"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("method", METHODS)
def test_ranks(method):
    with Ranks(method) as ranks:
        pids = {process.pid for process in ranks.processes}
        ranks.order(3, "exit", 3)
        endings = rankguard.stop(ranks.processes)
        assert [ending.signal for ending in endings[:3]] == ["SIGTERM"] * 3
        assert endings[3] == rankguard.model.Ending("exit", code=3) or endings[3].signal == "SIGTERM"
        assert [process.exitcode for process in ranks.processes[:3]] == [-15] * 3  # their owners know
        assert programs.zombies() & pids == set()
        assert rankguard.stop(ranks.processes) == endings  # again: nothing left to do


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_tree_with_escapees_and_one_that_ignores_sigterm(method, stubborn):
    process, pids, ends = started(programs.tree, stubborn, method=method)
    [ending] = rankguard.stop([process], grace=0.1)
    assert ending.signal == "SIGTERM"
    assert all(gone(pid) for pid in pids)
    close(ends)


def test_one_grace_for_all(monkeypatch):
    several = [started(programs.stubborn) for _ in range(4)]
    told, tell = [], teardown._Trees._signal
    monkeypatch.setattr(
        teardown._Trees, "_signal", lambda self, number: (told.append((number, len(self._alive))), tell(self, number))
    )
    before = time.monotonic()
    endings = rankguard.stop([process for process, _, _ in several], grace=0.2)
    assert time.monotonic() - before >= 0.2
    assert told == [(number, 4) for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGSTOP, signal.SIGKILL)]
    assert {ending.signal for ending in endings} == {"SIGKILL"}
    for _, _, ends in several:
        close(ends)


def test_no_grace():
    process, _pid, ends = started(programs.stubborn)
    assert rankguard.stop([process], grace=0)[0].signal == "SIGKILL"
    close(ends)


def test_a_child_born_of_sigterm():
    process, _pid, ends = started(programs.forks_on_sigterm)
    assert rankguard.stop([process], grace=1)[0].signal == "SIGKILL"
    assert gone(ends[0].recv())
    close(ends)


def test_a_stopped_process_can_answer():
    with Ranks(count=1) as ranks:
        os.kill(ranks.processes[0].pid, signal.SIGSTOP)
        assert rankguard.stop(ranks.processes, grace=30)[0].signal == "SIGTERM"


def test_popen_pid_and_others():
    popen = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1)
    bare = subprocess.Popen(["sleep", "1000"])
    ended = subprocess.Popen(["true"])
    ended.wait()
    popen.stdout.readline()
    endings = rankguard.stop([popen, bare.pid, ended, mp.Process(target=print), ended.pid])
    assert [(e.kind, e.signal, e.code) for e in endings] == [
        ("signal", "SIGTERM", None),
        ("signal", "SIGTERM", None),
        ("exit", None, 0),
        ("exit", None, None),
        ("exit", None, None),
    ]
    assert popen.returncode == -15
    pids = {popen.pid, bare.pid, ended.pid}
    assert programs.zombies() & pids == {bare.pid}  # a pid has no owner's object to collect it by
    assert bare.wait() == -15
    popen.stdin.close()
    popen.stdout.close()
    assert rankguard.stop([]) == []


def test_what_cannot_be_stopped():
    for processes in ([os.getpid()], ["x"]):
        with pytest.raises(rankguard.UsageError):
            rankguard.stop(processes)
    with pytest.raises(rankguard.UsageError):
        rankguard.stop([], grace=-1)


def test_what_the_kernel_does_not_end_is_alive(monkeypatch):
    """In place of a process in an uninterruptible call: one that gets no signals from us."""
    monkeypatch.setattr(teardown, "BOUND", 0.05)
    monkeypatch.setattr(teardown._Trees, "_signal_one", lambda *_: None)
    with Ranks(count=1) as ranks:
        assert rankguard.stop(ranks.processes, grace=0)[0].kind == "alive"
        assert ranks.processes[0].is_alive()


def test_more_processes_than_files(monkeypatch):
    """The limit is the host's. Descendants that cannot be held by pidfds are ended all the same."""

    def no_more(pid):
        raise OSError(errno.EMFILE, "Too many open files")

    process, pids, ends = started(programs.tree, True)
    real = teardown.Adopted._open
    monkeypatch.setattr(
        teardown.Adopted,
        "_open",
        lambda self: (monkeypatch.undo(), real(self), monkeypatch.setattr(os, "pidfd_open", no_more)),
    )
    assert rankguard.stop([process], grace=0.1)[0].signal == "SIGTERM"
    monkeypatch.undo()
    assert all(gone(pid) for pid in pids)
    close(ends)


def test_the_same_process_twice_and_a_child_of_another():
    process, pids, ends = started(programs.tree, False)
    before = programs.open_fds()
    endings = rankguard.stop([process, process.pid, process, pids[0]], grace=0.1)
    assert [ending.signal for ending in endings[:3]] == ["SIGTERM"] * 3
    assert endings[3].kind in ("signal", "exit")
    assert programs.open_fds() <= before
    close(ends)


def steal(pid):
    with contextlib.suppress(ChildProcessError):  # `stop` may be faster
        os.waitpid(pid, 0)


def test_a_status_that_somebody_took_is_not_made_up():
    """`Popen.wait` notes 0 when there is no status to be had."""
    process = subprocess.Popen(["sleep", "1000"])
    thief = threading.Thread(target=steal, args=(process.pid,))
    thief.start()
    ending = rankguard.stop([process])[0]
    thief.join()
    assert ending.signal in ("SIGTERM", None)
    assert process.returncode in (None, -15)
    process.returncode = -15  # for its own clean-up


def test_in_a_thread_with_a_guard_told():
    with Ranks() as ranks:
        with rankguard.guard(ranks.processes) as guard:
            guard.stopping()
            thread = threading.Thread(target=rankguard.stop, args=(ranks.processes,))
            thread.start()
            thread.join(30)
        assert guard.verdict() is None
        assert not any(process.is_alive() for process in ranks.processes)


def test_no_file_is_left_open():
    with Ranks(count=2) as ranks:
        before = programs.open_fds()
        rankguard.stop(ranks.processes)
        assert programs.open_fds() <= before


def test_a_stranger_with_the_old_number_is_spared():
    """A process is held, not its number."""
    trees = teardown._Trees()
    child = subprocess.Popen(["sleep", "1000"])
    dead = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(dead.pid)
    dead.wait()
    trees._hold(child.pid, pidfd)  # the number is the child's, the file the dead one's
    trees.end(0)
    assert not trees.is_alive(child.pid)
    assert child.poll() is None
    child.kill()
    child.wait()
    assert not select.select([], [], [], 0)[0]
