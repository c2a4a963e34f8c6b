"""What a failure needs is loaded while nothing happens: when one comes, nothing is read from the disk any more."""

import subprocess
import sys

import pytest

FAILURE = """
import sys
from selectors import EpollSelector
import rankguard.supervisor.main
from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import Exited, JobStarted, Judged, Looked, Spawned
from rankguard.jobspec import JobSpec
from rankguard.model import Ending
from rankguard.supervisor.rehearsal import AFTER_S, Rehearsal

def started(nprocs):
    job = Job(JobSpec("abcd", ("true",), ("true",), nprocs, {}, "/"))
    step(job, JobStarted(1.0, 1e9))
    for rank in range(nprocs):
        step(job, Spawned(1.0, rank, 100 + rank))
    return job

rehearsal = Rehearsal(started(3))
rehearsal.wake(1.0)
steps = 0
while (due := rehearsal.next_wake()) is not None:
    steps += 1
    rehearsal.wake(due)
assert due is None and steps > 10, steps
known = set(sys.modules)

from rankguard.supervisor.survey import Survey

job = started(3)
facts = []
survey = Survey(job, job.spec, 29500, EpollSelector(), 4, lambda: 2.0, facts.append, str)
step(job, Exited(2.0, 1, ENDING, log_tail=TAIL))
step(job, Looked(2.0))
survey.stopping()
judged = choose(job.case())
step(job, judged)
survey.judged(judged.rank)
assert survey.busy() and survey.next_wake() == 0.0
survey.wake(2.0)
assert survey.next_wake() == 0.0  # what it found is still to be handled: nobody sleeps on it
survey.close()
for fact in facts:
    step(job, fact)
verdict(job.case(), "0").to_json()
assert judged.rank == 1 and facts
print(*sorted(set(sys.modules) - known))
"""


@pytest.mark.parametrize(
    ("ending", "tail"),
    [
        ("Ending('signal', signal='SIGKILL', number=9)", "()"),
        ("Ending('signal', signal='SIGSEGV', number=11)", "('Fatal Python error: Segmentation fault',)"),
        ("Ending('exit', code=1)", "('RuntimeError: CUDA error: out of memory',)"),
        ("Ending('exit', code=1)", "('OSError: [Errno 98] Address already in use',)"),
        ("Ending('exit', code=3)", "('OSError: [Errno 28] No space left on device',)"),
    ],
)
def test_a_failure_loads_nothing(ending: str, tail: str) -> None:
    program = FAILURE.replace("ENDING", ending).replace("TAIL", tail)
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("\n", "")


def test_none_is_rehearsed_once_something_has_failed() -> None:
    from rankguard.core.job import Job
    from rankguard.core.machine import step
    from rankguard.facts import Exited, JobStarted, Spawned
    from rankguard.jobspec import JobSpec
    from rankguard.model import Ending
    from rankguard.supervisor.rehearsal import AFTER_S, Rehearsal

    job = Job(JobSpec("abcd", ("true",), ("true",), 1, {}, "/"))
    rehearsal = Rehearsal(job)
    step(job, JobStarted(1.0, 1e9))
    rehearsal.wake(1.0)
    assert rehearsal.next_wake() is None  # not all ranks are started
    step(job, Spawned(2.0, 0, 100))
    rehearsal.wake(2.0)
    assert rehearsal.next_wake() == 2.0 + AFTER_S

    step(job, Exited(2.1, 0, Ending("exit", code=1)))
    rehearsal.wake(2.1)
    assert rehearsal.next_wake() is None
