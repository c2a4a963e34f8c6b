"""Everything of a run is killed in one instant, as by `memory.oom.group` in a container: the next run in its place tells
what is known, once. On cgroup2 by the kernel's OOM killer itself.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from tests.linux._evidence_helpers import MIB, limited_group
from tests.run.test_memory import HOLD, inside
from tests.runs.jobs import Jobs, state, until

LIMIT = 220
GROW = (
    HOLD
    + """
def grow(mib):
    for _ in range(mib // 4):
        hold(4)
        time.sleep(0.02)
    while True:
        hold(1)
        time.sleep(0.1)
"""
)
"""At once to so much, and then by 10 MiB a second: who looks on has seconds until the limit is met, however slow it is."""
GROWS = (
    GROW
    + """
import rankguard
rankguard.this_rank().status('allocating host cache' if RANK else 'loading')
os.write(os.open(sys.argv[1], os.O_WRONLY), b'x')
if RANK == 1: grow(112)
signal.pause()
"""
)


@pytest.fixture
def group() -> Iterator[str]:
    """A memory group with a limit, in which a whole job is killed; what it leaves there is removed."""
    with limited_group(LIMIT) as path:
        yield path
        for folder, _folders, _files in sorted(os.walk(path), key=lambda each: -len(each[0])):
            if folder != path:
                until(lambda folder=folder: _removed(folder))


def _removed(folder: str) -> bool:
    with contextlib.suppress(OSError):
        os.rmdir(folder)
    return not os.path.exists(folder)


def members(path: str) -> set[int]:
    found = set()
    for folder, _folders, _files in os.walk(path):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in Path(folder, "cgroup.procs").read_text().split()}
    return found


def kill_all(path: str, when: Callable[[], object] = lambda: True) -> None:
    """Each is held before any dies, so that nobody can act. `when`: what has to be true at that instant, so it is asked
    again while all are held; as long as it is not, they go on.
    """
    while True:
        until(when)
        held = _hold(path)
        if when():
            break
        _tell(held, signal.SIGCONT)
    _tell(held, signal.SIGKILL)


def _hold(path: str) -> set[int]:
    """All of them, once each of them has come to stand."""
    held: set[int] = set()
    while more := members(path) - held:
        _tell(more, signal.SIGSTOP)
        held |= more
    until(lambda: not any(map(_goes_on, held)))
    return held


def _goes_on(pid: int) -> bool:
    """D: in a call to the kernel, perhaps for memory that there is none of; it stands when that returns."""
    with contextlib.suppress(OSError):
        return state(pid) not in "TDZX"
    return False


def _tell(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def start(jobs: Jobs, group: str) -> tuple[subprocess.Popen[str], Path]:
    """The job in its group, and its folder; its ranks are there."""
    fifo = jobs.folder / "there"
    os.mkfifo(fifo)
    words = jobs.ranks.command("-n", "3", jobs.ranks.program(GROWS), str(fifo))
    joins = inside(group)
    job = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=jobs.env, preexec_fn=joins)  # noqa: PLW1509  # no threads here
    fd = os.open(fifo, os.O_RDWR)
    said = b""
    while len(said) < 3:
        said += os.read(fd, 3)
    os.close(fd)
    (name,) = os.listdir(jobs.home)
    return job, jobs.home / name


def what_the_next_run_tells(jobs: Jobs, run: Path, **more) -> str:
    """Of the run that was cut off; told once."""
    first, again = (jobs.ask("run", "-n", "1", "true", **more).stderr for _ in range(2))
    assert again.count("\n") == 1, again
    (told,) = [line for line in first.splitlines() if "ended without a verdict" in line]
    assert told.startswith(f"rankguard: warning: the previous run here, {run.name}, ended without a verdict ")
    assert told.endswith(f"(`rankguard report {run.name}`)")
    return told


def the_live_run_tells(jobs: Jobs, run: Path) -> None:
    """`state.json` has the warning by now: it is written with it."""
    state = run / "state.json"
    until(lambda: any("memory limit is reached" in text for text in json.loads(state.read_text())["warnings"]))


def grows(run: Path, share: float) -> bool:
    """By the last look, which is all that is left: memory is as full as that, and rank 1 grows."""
    look = json.loads((run / "samples.json").read_text())
    return look["memory"]["firm_bytes"] > share * LIMIT * MIB and [rank for rank, _ in look["growing"][:1]] == [1]


def the_files_tell(jobs: Jobs, run: Path) -> None:
    row = next(row for row in json.loads(jobs.ask("runs", "--json").stdout) if row["run"] == run.name)
    assert (row["outcome"], row["live"]) == (None, False)
    assert row["memory_share"] > 0.65
    report = jobs.ask("report", run.name)
    assert re.search(r"\n  memory  ranks \d+\.\d MiB in all, the largest rank 1 with ", report.stdout), report
    assert re.search(r"\n  (note|    )    the memory limit is reached in ", report.stdout), report
    data = json.loads(jobs.ask("report", run.name, "--json").stdout)
    assert data["memory"]["limit_bytes"] == LIMIT * MIB
    assert data["memory"]["firm_bytes"] > 0.65 * LIMIT * MIB
    assert data["ranks"][1]["memory"]["held_bytes"] > data["ranks"][0]["memory"]["held_bytes"]


def litter(run: Path) -> str:
    return os.path.dirname(os.readlink(run / "control"))


def tidy(folder: str) -> None:
    """The private folder, which nobody was left to remove."""
    for name in os.listdir(folder):
        os.unlink(f"{folder}/{name}")
    os.rmdir(folder)


def test_the_next_run_tells_of_one_that_was_killed_as_a_whole(jobs: Jobs, group: str) -> None:
    job, run = start(jobs, group)
    the_live_run_tells(jobs, run)
    left = litter(run)
    kill_all(group, when=lambda: grows(run, 0.7))
    assert job.wait() == -signal.SIGKILL
    job.communicate()
    until(lambda: not members(group))

    the_files_tell(jobs, run)
    told = what_the_next_run_tells(jobs, run)
    found = re.search(
        r"memory at (\d+\.\d) % of 220\.0 MiB \(.*rgtest-\d+\), growing \d+\.\d MiB/s, rank 1 fastest; ", told
    )
    assert found, told
    assert float(found[1]) > 65
    assert 'last to report: rank 1, "allocating host cache"' in told or "last to report: rank " in told
    tidy(left)


def test_a_run_that_ended_or_goes_on_is_not_told_of(jobs: Jobs) -> None:
    jobs.run(1, "pass")
    live = jobs.start(1, "os.write(os.open(sys.argv[1], os.O_WRONLY), b'x')\nsignal.pause()")
    assert "without a verdict" not in jobs.ask("run", "-n", "1", "true").stderr
    live.process.terminate()


def test_of_another_machine_nothing_is_told(jobs: Jobs) -> None:
    lost = jobs.home / "10571057"
    lost.mkdir(parents=True)
    spec = '{"schema": "rankguard.events/1", "spec": {"run_id": "10571057", "node": "another-host"}}'
    (lost / "events.jsonl").write_text(spec + "\n")
    assert "without a verdict" not in jobs.ask("run", "-n", "1", "true").stderr


def test_a_run_of_which_nothing_is_known_is_told_of_in_short(jobs: Jobs) -> None:
    """A journal cut off in its first fact, samples that are none."""
    import socket

    lost = jobs.home / "10571057"
    lost.mkdir(parents=True)
    spec = {"schema": "rankguard.events/1", "spec": {"run_id": "10571057", "node": socket.gethostname()}}
    (lost / "events.jsonl").write_text(json.dumps(spec) + '\n{"fact": "JobSt')
    (lost / "samples.json").write_text('{"at": 1, "ranks": [[0')
    told = what_the_next_run_tells(jobs, lost)
    assert re.fullmatch(r".* ended without a verdict \d+ s ago \(`rankguard report 10571057`\)", told)


def test_a_journal_that_was_changed_is_no_reason_not_to_start(jobs: Jobs) -> None:
    live = jobs.start(1, "os.write(os.open(sys.argv[1], os.O_WRONLY), b'x')\nsignal.pause()")
    live.cut_off()
    journal = live.folder / "events.jsonl"
    assert '"rank_env": []' in journal.read_text()
    journal.write_text(journal.read_text().replace('"rank_env": []', '"rank_env": "x"'))

    started = jobs.ask("run", "-n", "1", "echo", "it runs")
    assert (started.returncode, started.stdout) == (0, "it runs\n")
    assert f"the previous run here, {live.id}, ended without a verdict " in started.stderr


def test_in_a_folder_of_ones_own(jobs: Jobs) -> None:
    """`--run-dir` again and again, as a container's command has it."""
    live = jobs.start(1, "os.write(os.open(sys.argv[1], os.O_WRONLY), b'x')\nsignal.pause()")
    live.cut_off()
    own = jobs.folder / "own"
    os.rename(live.folder, own)
    first, again = (jobs.ask("run", "-n", "1", "--run-dir", str(own), "true").stderr for _ in range(2))
    assert f"the previous run here, {own}/earlier/{live.id}, ended without a verdict " in first
    assert "without a verdict" not in again


def test_the_kernel_kills_the_group_as_a_whole(jobs: Jobs, group: str) -> None:
    """`memory.oom.group`: said at the start; front, warden, supervisor and ranks die together; the next run tells."""
    switch = Path(group, "memory.oom.group")
    if not switch.exists():
        pytest.skip("memory.oom.group is cgroup2's")
    switch.write_text("1")
    job, run = start(jobs, group)
    left = litter(run)
    _out, said = job.communicate(timeout=120)
    assert job.returncode == -signal.SIGKILL
    until(lambda: not members(group))

    assert f"rankguard: warning: `memory.oom.group` of {group} is 1" in said
    assert "the memory limit is reached in" in said
    the_files_tell(jobs, run)
    told = what_the_next_run_tells(jobs, run)
    assert re.search(
        r"the kernel has counted \d+ OOM kills? there since; likely the OOM killer ended everything at once", told
    )
    assert re.search(r"memory at \d+\.\d % of 220\.0 MiB \(memory\.max of .*\)", told)
    tidy(left)
