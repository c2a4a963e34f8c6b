"""Stacks of real processes: py-spy as it is, missing, hanging, talking nonsense; never a wait, never a child left."""

import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rankguard.linux import stacks
from rankguard.linux.procstack import kernel_stack
from rankguard.linux.stacks import Sampler, with_frames

PROGRAM = """
import os, sys
def waits():
    print("there", flush=True); sys.stdin.read(1)
waits()
"""


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """How long a busy machine takes is not what these are about."""
    monkeypatch.setattr(stacks, "BOUND_S", 60.0)


@pytest.fixture
def waiting():
    """A Python process that waits in `waits`."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "there\n"
    yield process.pid
    process.kill()
    process.communicate()


@pytest.fixture
def selector():
    with selectors.EpollSelector() as made:
        yield made


def taken(sampler: Sampler, selector, pids: dict[int, int]) -> dict[int, stacks.Stack]:
    """As the driver's loop does: news, then what is due."""
    found: list[dict[int, stacks.Stack]] = []
    sampler.take(pids, found.append)
    while not found:
        due = sampler.next_wake()
        for key, _events in selector.select(None if due is None else max(0.0, due - time.monotonic())):
            key.data[1](time.monotonic())
        sampler.wake(time.monotonic())
    assert not selector.get_map()
    return found[0]


def fake(folder: Path, monkeypatch, text: str) -> None:
    program = folder / "py-spy"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setattr(stacks, "find_py_spy", lambda: str(program))


def test_python_frames_innermost_first(waiting, selector) -> None:
    found = taken(Sampler(selector, 4, time.monotonic), selector, {7: waiting})

    main = found[7].main
    assert (found[7].pid, found[7].lacks, main.tid) == (waiting, None, waiting)
    assert [frame.function for frame in main.frames][:2] == ["waits", "<module>"]
    assert main.waits_in in ("read", None)


def test_a_process_that_is_gone_is_left_out(selector) -> None:
    process = subprocess.Popen(["/bin/true"])
    process.wait()

    assert taken(Sampler(selector, 4, time.monotonic), selector, {0: process.pid}) == {}


def test_without_py_spy_the_kernel_s_words_remain(waiting, selector, monkeypatch) -> None:
    monkeypatch.setattr(stacks, "find_py_spy", lambda: None)

    found = taken(Sampler(selector, 4, time.monotonic), selector, {0: waiting})

    assert (found[0].lacks, found[0].main.frames) == ("no py-spy is installed", ())


def test_a_py_spy_that_hangs_is_ended(waiting, selector, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(stacks, "BOUND_S", 0.05)
    fake(tmp_path, monkeypatch, "exec sleep 1000")

    found = taken(Sampler(selector, 4, time.monotonic), selector, {0: waiting})

    assert found[0].lacks == "py-spy took longer than 0.05 s"


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("echo '[{}]'", "py-spy: it said nothing"),
        ("echo '{\"a\": [' ; echo 'Error: no way' >&2", "py-spy: no way"),
        ("printf 'Error: outer\\n\\nCaused by:\\n    0: middle\\n    1: Operation not permitted\\n' >&2; exit 1",
         "py-spy: Operation not permitted"),
        ("kill -9 $$", "py-spy: it said nothing"),
    ],
)  # fmt: skip
def test_a_py_spy_that_fails_says_why(waiting, selector, monkeypatch, tmp_path, text, lacks) -> None:
    fake(tmp_path, monkeypatch, text)

    assert taken(Sampler(selector, 4, time.monotonic), selector, {0: waiting})[0].lacks == lacks


def test_one_that_cannot_be_executed(waiting, selector, monkeypatch) -> None:
    monkeypatch.setattr(stacks, "find_py_spy", lambda: "/nowhere/py-spy")

    found = taken(Sampler(selector, 4, time.monotonic), selector, {0: waiting})

    assert found[0].lacks == "py-spy: it said nothing"


def test_closed_in_the_middle_it_leaves_no_child(waiting, selector, monkeypatch, tmp_path) -> None:
    fake(tmp_path, monkeypatch, "exec sleep 1000")
    sampler = Sampler(selector, 4, time.monotonic)
    sampler.take(dict.fromkeys(range(6), waiting), lambda found: pytest.fail("it was closed"))
    before = _children()
    sampler.wake(time.monotonic())
    assert len(_children() - before) == stacks.AT_ONCE

    sampler.close()

    assert _children() == before
    assert not selector.get_map()


def test_who_is_being_debugged_is_read_without_a_pause(selector, monkeypatch, tmp_path) -> None:
    """A process that somebody traces would not come to rest for us."""
    args = tmp_path / "args"
    fake(tmp_path, monkeypatch, f'echo "$@" >> {args}')
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)

    taken(Sampler(selector, 4, time.monotonic), selector, {0: process.pid})
    process.kill()
    process.wait()

    assert args.read_text() == f"dump --json --nonblocking --pid {process.pid}\n"


def test_the_kernel_s_view_of_this_process() -> None:
    told = kernel_stack(os.getpid())

    assert (told.main.tid, told.main.state, told.main.waits_in) == (os.getpid(), "R", None)


def test_threads_without_python_stay(waiting) -> None:
    known = kernel_stack(waiting)

    told = with_frames(known, [])

    assert told.threads == known.threads


def _children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


SAMPLER = """
import selectors, sys, time
from rankguard.linux import stacks
stacks.find_py_spy = lambda: sys.argv[1]
sampler = stacks.Sampler(selectors.EpollSelector(), 4, time.monotonic)
sampler.take(dict.fromkeys(range(3), int(sys.argv[2])), print)
sampler.wake(time.monotonic())
print(len(sampler._running), flush=True)
sys.stdin.read()
"""


def test_a_py_spy_ends_with_whoever_started_it(waiting, monkeypatch, tmp_path) -> None:
    """We are killed while three are at work. (They fall to pytest, which is a subreaper.)"""
    fake(tmp_path, monkeypatch, "exec sleep 1000")
    words = [sys.executable, "-c", SAMPLER, str(tmp_path / "py-spy"), str(waiting)]
    ours = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert ours.stdout.readline() == b"3\n"
    children = Path(f"/proc/{ours.pid}/task/{ours.pid}/children").read_text().split()
    pidfds = [os.pidfd_open(int(pid)) for pid in children]

    ours.kill()
    ours.communicate()

    assert len(pidfds) == 3
    for pidfd in pidfds:
        assert selectors_wait(pidfd)
        os.close(pidfd)


def selectors_wait(pidfd: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        return bool(selector.select(30))
