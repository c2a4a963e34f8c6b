"""A rank under gdb, strace or py-spy: that it stands still is nobody's failure, and its end is told when it can be."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.debug.desk import Desk, below, wait_gone, wait_until

TEXT = """
print("up", RANK, os.getpid(), flush=True)
if RANK == 0: open(sys.argv[1]).read()
else: signal.pause()
"""


class Job:
    def __init__(self, desk: Desk) -> None:
        self.gate, self.run = desk.fifo(), desk.next_dir()
        words = desk.command("-n", "2", "--run-dir", str(self.run), desk.program(TEXT), self.gate)
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        said = [self.process.stdout.readline().split() for _ in range(2)]
        self.pids = {int(words[-2]): int(words[-1]) for words in said}
        [warden] = below(self.process.pid)
        [self.supervisor] = below(warden)

    def facts(self) -> str:
        return (self.run / "events.jsonl").read_text()

    def rests(self) -> bool:
        """The supervisor sleeps whenever it is looked at in half a second, and uses no hundredth of a second in all."""
        _state, before = self._look()
        for _ in range(50):
            select.select([], [], [], 0.01)
            state, ticks = self._look()
            if (state, ticks) != ("S", before):
                return False
        return True

    def _look(self) -> tuple[str, int]:
        fields = Path(f"/proc/{self.supervisor}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[11]) + int(fields[12])


class Tracer:
    def __init__(self, pid: int) -> None:
        words = [sys.executable, str(Path(__file__).with_name("tracer.py")), str(pid)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def hears(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, what: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        return self.hears()


@pytest.fixture
def held(desk: Desk) -> Iterator[tuple[Job, Tracer]]:
    """A job whose rank 1 stands in the hand of a debugger."""
    job = Job(desk)
    tracer = Tracer(job.pids[1])
    with job.process, tracer.process:
        try:
            said = tracer.hears()
            if said.startswith("ptrace"):
                pytest.skip(f"this machine does not let us trace: {said}")
            assert said == "holds t"
            yield job, tracer
        finally:
            tracer.process.kill()
            job.process.kill()


def test_a_rank_that_is_held_is_no_failure(held: tuple[Job, Tracer]) -> None:
    """The other rank goes on to its end; the one that is held ends when it was let go and told to."""
    job, tracer = held
    Path(job.gate).write_text("")
    while '"fact": "Reaped"' not in job.facts():
        select.select([], [], [], 0.01)
    assert job.facts().count('"fact": "Exited"') == 1
    assert tracer.tell("let go") == "let go"
    os.kill(job.pids[1], signal.SIGUSR1)

    assert job.process.wait(30) == 128 + signal.SIGUSR1


def test_a_rank_that_ends_in_the_hand_of_a_debugger(held: tuple[Job, Tracer]) -> None:
    """Its status is the debugger's first. We wait for that without turning round and round."""
    job, tracer = held
    os.kill(job.pids[1], signal.SIGKILL)
    wait_gone(job.pids[1])

    wait_until(job.rests)
    assert "Exited" not in job.facts()
    assert tracer.tell("wait") == f"saw {int(signal.SIGKILL)}"
    assert job.process.wait(30) == 137
