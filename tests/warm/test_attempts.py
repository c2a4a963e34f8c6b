"""One warm server for all attempts of a run: it outlives what ends the ranks, and nothing is imported twice."""

import contextlib
import functools
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.linux._evidence_helpers import inside as inside_child
from tests.warm.conftest import Warm

from rankguard import inside
from rankguard.jobspec import JobSpec
from rankguard.launchers.environment import rank_environment
from rankguard.launchers.warmstart import WarmStart
from rankguard.linux import spawn, tree
from rankguard.linux.cgroup import JobGroups
from rankguard.linux.files import devnull
from rankguard.linux.libc import become_subreaper

TELLS = (
    "import heavy, os, signal\n"
    "print(os.environ['RANK'], os.environ['MASTER_PORT'], os.environ['TORCHELASTIC_RESTART_COUNT'], flush=True)\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "if os.fork() == 0: os.setsid()\n"
    "signal.pause()\n"
)


class Attempts:
    """A `WarmStart` in this process, which plays the supervisor (`apart`): ranks that wait, forked of it."""

    def __init__(self, warm: Warm, restarts: int = 3, program: str = TELLS) -> None:
        self.notes: list[str] = []
        self.spec = JobSpec(
            run_id="test",
            command=("p.py",),
            argv=(sys.executable, "-u", inside.BOOTSTRAP, warm.ranks.program(program)),
            nprocs=2,
            env=warm.env,
            cwd="/",
            start="warm",
            max_restarts=restarts,
        )
        self.start = WarmStart(self.spec, self.notes.append, str)

    def begin(self, attempt: int) -> bool:
        """Whether a server had to be started."""
        fd = self.start.begin(20000 + attempt)
        if fd >= 0:
            assert readable(fd)
            self.start.on_answer()
        assert self.start.ready
        return fd >= 0

    def rank(self, number: int, attempt: int) -> tuple[spawn.Started, str] | None:
        """The rank, and its first line."""
        out, end = os.pipe()
        null = devnull()
        try:
            env = rank_environment(self.spec.replace(attempt=attempt), number, 20000 + attempt, None, None)
            command = spawn.Command(argv=self.spec.argv, env=env, cwd="/", stdio=(null, end, null), nofile=(256, 256))
            started = self.start.fork(command)
        finally:
            os.close(end)
            os.close(null)
        with open(out) as said:
            return None if started is None else (started, said.readline())

    def close(self) -> None:
        """The run is over, and nothing is left."""
        self.start.close()
        while self.start.pids:
            pass
        assert tree.is_empty()


def readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(30_000))


def release(started: spawn.Started) -> None:
    os.close(started.pidfd)
    os.close(started.news)


def apart(test: Callable[..., None]) -> Callable[..., None]:
    """The test in a process of its own: what it ends and reaps is everything below it."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        def work() -> str | None:
            become_subreaper()
            for name in os.listdir("/proc/self/fd"):  # of whoever started pytest; the warden closes such
                with contextlib.suppress(OSError):
                    if int(name) > 2:
                        os.set_inheritable(int(name), False)
            try:
                test(**fixtures)
            except pytest.skip.Exception as skipped:
                return str(skipped)
            fixtures["attempts"].close()
            return None

        if (why := inside_child(None, work)) is not None:
            pytest.skip(why)

    return run


@pytest.fixture
def attempts(warm: Warm) -> Attempts:
    warm.env["COUNT"] = str(warm.packages / "count")
    warm.package("heavy", "import os\nopen(os.environ['COUNT'], 'a').write(f'{os.getpid()}\\n')\n")
    return Attempts(warm)


def sweep(attempts: Attempts) -> None:
    """What ends an attempt: everything but the server, with the proof."""
    while not tree.is_empty(attempts.start.kept):
        tree.kill_all(set(), spare=attempts.start.pids)


def imports(warm: Warm) -> int:
    return len(Path(warm.env["COUNT"]).read_text().split())


@apart
def test_a_second_attempt_imports_nothing_again(warm: Warm, attempts: Attempts) -> None:
    for attempt in range(3):
        assert attempts.begin(attempt) is (attempt == 0)
        for number in (0, 1):
            found = attempts.rank(number, attempt)
            assert found is not None, attempts.notes
            assert found[1] == f"{number} {20000 + attempt} {attempt}\n"
            release(found[0])
        attempts.start.started()
        (server,) = attempts.start.kept
        assert len(tree.alive(attempts.start.pids)) >= 2
        sweep(attempts)
        assert tree.alive() == [server]
        assert not tree.is_empty()
    assert imports(warm) == 1
    assert "imported their modules already" in attempts.notes[-1]


@apart
def test_a_server_that_has_died_meanwhile_is_replaced_once(warm: Warm, attempts: Attempts) -> None:
    attempts.begin(0)
    for attempt in (1, 2):
        (server,) = attempts.start.kept
        os.kill(server, signal.SIGKILL)
        os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)

        assert attempts.begin(attempt) is (attempt == 1)

        found = attempts.rank(0, attempt)
        assert (found is not None) is (attempt == 1), attempts.notes
        if found is not None:
            release(found[0])
            sweep(attempts)
    assert "2 warm servers have ended by themselves" in attempts.notes[-1]
    assert attempts.begin(3) is False
    assert imports(warm) == 2


@apart
def test_a_server_that_dies_while_it_is_asked(attempts: Attempts) -> None:
    attempts.begin(0)
    (server,) = attempts.start.kept
    os.kill(server, signal.SIGKILL)

    assert attempts.rank(0, 0) is None

    assert "was ended by SIGKILL" in attempts.notes[-1] or "Broken pipe" in attempts.notes[-1]
    assert attempts.start.kept == frozenset()


@apart
def test_a_server_that_is_still_importing_is_ended_with_the_attempt(attempts: Attempts) -> None:
    assert attempts.start.begin(20000) >= 0

    attempts.start.stop()

    assert attempts.start.kept == frozenset()
    assert attempts.start.ready


@apart
def test_no_other_attempt_no_server(warm: Warm, attempts: Attempts) -> None:
    once = Attempts(warm, restarts=0)
    once.begin(0)
    once.start.started()

    assert once.start.kept == frozenset()
    while once.start.pids:
        pass


@pytest.mark.parametrize(("restarts", "start"), [(0, "warm"), (3, "exec")])
@apart
def test_what_differs_between_attempts_may_not_be_read_by_a_module(
    warm: Warm, attempts: Attempts, restarts: int, start: str
) -> None:
    warm.package("heavy", "import os\nport = os.environ.get('MASTER_PORT')\n")

    several = Attempts(warm, restarts)
    several.begin(0)

    assert bool(several.start.kept) is (start == "warm")
    if start == "exec":
        assert "heavy reads MASTER_PORT when it is imported" in several.notes[-1]
    several.start.close()
    while several.start.pids:
        pass


@pytest.mark.parametrize("groups", [True, False])
@apart
def test_the_groups_of_a_job_do_not_reach_its_server(warm: Warm, attempts: Attempts, groups: bool) -> None:
    made = JobGroups.create(f"warm-{os.getpid()}", 2)
    if not made.can_kill:
        pytest.skip("no group that ends a job can be made here")
    try:
        attempts.begin(0)
        (server,) = attempts.start.kept
        joins = made.join_fds(0) if groups else []
        null = devnull()
        started = attempts.start.fork(
            spawn.Command(
                argv=attempts.spec.argv,
                env=rank_environment(attempts.spec, 0, 20000, None, None),
                cwd="/",
                stdio=(null, null, null),
                join=tuple(joins),
            )
        )
        for fd in (null, *joins):
            os.close(fd)
        assert started is not None
        readable(started.news)
        made.kill()
        if groups:
            os.waitid(os.P_PIDFD, started.pidfd, os.WEXITED | os.WNOWAIT)
        release(started)
        sweep(attempts)
        assert tree.alive() == [server]
        assert attempts.begin(1) is False
    finally:
        made.remove()


@apart
def test_who_reaps_strays_may_come_first(attempts: Attempts) -> None:
    attempts.begin(0)
    (server,) = attempts.start.kept
    attempts.start.close()
    os.waitpid(server, 0)

    assert attempts.start.pids == frozenset()


def test_an_idle_server_dies_with_its_supervisor(warm: Warm, wait_for_exit: Callable[[int], None]) -> None:
    """Ranks run and the server is kept for the next attempt; then the supervisor is killed."""
    warm.package("heavy", "")
    program = warm.ranks.program("import heavy\nprint(os.getppid(), flush=True)\nsignal.pause()")
    words = warm.ranks.command("--start", "warm", "-n", "1", "--max-restarts", "3", program)
    job = subprocess.Popen(words, env=warm.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout is not None
    supervisor = int(job.stdout.readline())
    below = tree.children(supervisor)
    assert len(below) == 2  # the rank and the server

    os.kill(supervisor, signal.SIGKILL)
    job.communicate()

    for pid in below:
        wait_for_exit(pid)
