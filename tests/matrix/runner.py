"""Runs cells, a few at once, each in a process of its own with surroundings of its own. One thread, one waiting point."""

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO, Any, NamedTuple, NoReturn

from tests.matrix.axes import Place
from tests.matrix.cell import made
from tests.matrix.place import FOLDER, make_groups, remove_groups

from rankguard.linux.libc import PR_SET_PDEATHSIG, become_subreaper, prctl
from rankguard.testing import faults

HANGS_AFTER_S = 150.0
"""No cell takes a tenth of it on a quiet machine: whoever is not back by then hangs."""


class Result(NamedTuple):
    """What came of a cell. `why_not`: it cannot be made here."""

    place: Place
    why_not: str | None = None
    wrong: tuple[str, ...] = ()
    right: int = 0
    kind: str | None = None
    confidence: str | None = None
    verdict_after_s: float | None = None
    took_s: float = 0.0
    said: str = ""
    verdict: dict[str, Any] | None = None


def run(places: Sequence[Place], jobs: int) -> Iterator[Result]:
    """Each cell once, `jobs` at a time, those that must be alone at the end and alone; results as they come.

    Nothing is tried again: a cell that is right only sometimes is wrong. Takes this process for a subreaper, and ends
    what a cell leaves behind (which is told of it).
    """
    become_subreaper()
    waiting = deque(sorted(places, key=_alone))
    running: dict[int, _Running] = {}
    poll = select.poll()
    number = 0
    try:
        while waiting or running:
            while waiting and _may_start(waiting[0], running, jobs):
                number += 1
                begun = _Running(waiting.popleft(), number)
                running[begun.pidfd] = begun
                poll.register(begun.pidfd, select.POLLIN)
            first = min(each.until for each in running.values())
            for fd, _event in poll.poll(max(0.0, first - time.monotonic()) * 1000):
                poll.unregister(fd)
                yield running.pop(fd).result()
            for each in list(running.values()):
                if each.until <= time.monotonic():
                    each.give_up()
    finally:
        for each in running.values():
            each.give_up()
            each.result()


def _alone(place: Place) -> bool:
    return bool(getattr(faults.FAULTS[place.fault], "alone", False))


def _may_start(place: Place, running: "dict[int, _Running]", jobs: int) -> bool:
    if not running:
        return True
    others_alone = any(_alone(each.place) for each in running.values())
    return len(running) < jobs and not _alone(place) and not others_alone


class _Running:
    """One cell that runs, in a process that was forked from this one: all modules are there already."""

    def __init__(self, place: Place, number: int) -> None:
        self.place = place
        self.folder = tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir="/tmp")
        os.chmod(self.folder, 0o711)
        for name in ("tmp", "home"):
            os.mkdir(f"{self.folder}/{name}", 0o700)
        self.groups = make_groups(f"{os.getpid()}-{number}")
        self.told, self.said = (os.fdopen(os.memfd_create(name), "w+b") for name in ("told", "said"))
        self.began = time.monotonic()
        self.until = self.began + HANGS_AFTER_S
        self.hung = False
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._be(parent)
        self.pidfd = os.pidfd_open(self.pid)

    def _be(self, parent: int) -> NoReturn:
        """The cell's process. It dies with the one that started it, and all of the cell with it."""
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for fd in (1, 2):
                os.dup2(self.said.fileno(), fd)
            _die_with(parent)
            told = made(self.place, self.folder, self.groups, partial(_die_with, parent))
            self.told.write(json.dumps(told).encode())
            self.told.flush()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def give_up(self) -> None:
        """It hangs, or the whole is being ended: all of it goes with its first process."""
        self.hung = True
        self.until = time.monotonic() + HANGS_AFTER_S
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def result(self) -> Result:
        """After it has ended."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.pidfd)
        output, said = _read(self.told), _read(self.said)
        left = self._clear()
        took = time.monotonic() - self.began
        if self.hung:
            return Result(self.place, wrong=(f"it hung: not over after {HANGS_AFTER_S:g} s",), said=said, took_s=took)
        if code != 0:
            return Result(self.place, wrong=(f"the cell itself ended with {code}",), said=said, took_s=took)
        told = json.loads(output)
        if told.get("why_not"):
            return Result(self.place, why_not=told["why_not"])
        wrong = [what for right, what in told["checks"] if not right]
        if left:
            wrong.append(f"processes left behind by the cell: {', '.join(left)}")
        return Result(
            self.place, None, tuple(wrong), len(told["checks"]) - len(wrong), told["kind"], told["confidence"],
            told["verdict_after_s"], took, told["said"], told["verdict"],
        )  # fmt: skip

    def _clear(self) -> list[str]:
        """Ends and names what is still in the cell's control groups; removes its folders and groups."""
        left: list[str] = []
        for group in self.groups:
            for pid in tree_of(group):
                left.append(f"{pid} in {group}")
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        remove_groups(self.groups)
        shutil.rmtree(self.folder, ignore_errors=True)
        return left


def tree_of(group: str) -> list[int]:
    """The processes in a control group and below it."""
    found: list[int] = []
    for folder, _folders, files in os.walk(group):
        if "cgroup.procs" in files:
            with open(f"{folder}/cgroup.procs") as procs:
                found += [int(line) for line in procs]
    return found


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    text = file.read().decode(errors="replace")
    file.close()
    return text


def _die_with(parent: int) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
