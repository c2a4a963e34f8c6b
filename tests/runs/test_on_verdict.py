"""`--on-verdict`: told of the end, once, and never in the way of it."""

import json
import os
import resource
import select
import signal
import subprocess
from pathlib import Path

from tests.runs.jobs import TELL, Jobs, until


def test_it_has_the_verdict_and_knows_the_run(jobs: Jobs, tmp_path: Path) -> None:
    out = tmp_path / "told"
    command = f'cat > {out}; echo "$RANKGUARD_RUN_ID $RANKGUARD_EXIT_CODE $RANKGUARD_RUN_DIR"'

    told = jobs.ask("run", "-n", "1", "--on-verdict", command, jobs.ranks.program("print('out'); sys.exit(7)"))

    verdict = json.loads(out.read_text())
    folder = jobs.home / verdict["run_id"]
    assert (told.returncode, told.stdout) == (7, "out\n")
    assert f"{verdict['run_id']} 7 {folder}" in told.stderr.splitlines()
    assert verdict == json.loads((folder / "verdict.json").read_text())
    assert told.stderr.splitlines()[-1].startswith("rankguard: exit 7 ")  # the last line stays the last


def test_stdout_stays_the_verdict_s(jobs: Jobs) -> None:
    told = jobs.ask("run", "-n", "1", "--report", "json", "--on-verdict", "echo noise", jobs.ranks.program("pass"))

    assert json.loads(told.stdout)["outcome"] == "succeeded"
    assert "noise" in told.stderr


def test_its_failure_is_a_warning_and_changes_nothing(jobs: Jobs) -> None:
    for command, why in (("exit 3", "ended with exit code 3"), ("kill -9 $$", "ended with SIGKILL")):
        told = jobs.ask("run", "-n", "1", "--on-verdict", command, jobs.ranks.program("pass"))

        assert told.returncode == 0
        assert f"warning: the command of `--on-verdict` {why}\n" in told.stderr


def test_one_that_reads_nothing_and_one_that_reads_all(jobs: Jobs) -> None:
    for command in ("true", "cat > /dev/null", "exec 0<&-; true"):
        assert jobs.ask("run", "-n", "1", "--on-verdict", command, jobs.ranks.program("pass")).stderr.count("\n") == 1


def test_it_knows_no_secret_by_our_words(jobs: Jobs) -> None:
    told = jobs.ask("run", "-n", "1", "--on-verdict", "false --token=hunter2", jobs.ranks.program("pass"))

    assert "hunter2" not in told.stderr
    assert not [path for path in jobs.home.rglob("*") if path.is_file() and "hunter2" in path.read_text()]


def started(jobs: Jobs, tmp_path: Path, command: str) -> tuple[subprocess.Popen[str], int]:
    """A run whose job is over and whose command is at work: its front, and the command's pid."""
    fifo = tmp_path / "at-work"
    os.mkfifo(fifo)
    words = jobs.ranks.command("-n", "1", "--on-verdict", f"echo $$ > {fifo}; {command}", jobs.ranks.program("pass"))
    front = subprocess.Popen(words, env=jobs.env, stdout=-1, stderr=-1, text=True)
    return front, int(fifo.read_text())


def test_the_job_is_over_before_it_begins(jobs: Jobs, tmp_path: Path) -> None:
    front, pid = started(jobs, tmp_path, "sleep 1000")

    children = {int(child) for child in Path(f"/proc/{front.pid}/task/{front.pid}/children").read_text().split()}
    grandchildren = [Path(f"/proc/{child}/task/{child}/children").read_text() for child in children - {pid}]
    assert pid in children
    assert grandchildren in ([], [""])  # its keeper at most, as bare as can be: no warden, no supervisor, no rank
    assert not any(b"warden" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)
    front.terminate()
    front.communicate()


def test_a_signal_to_us_ends_it_and_the_status_is_the_job_s(jobs: Jobs, tmp_path: Path) -> None:
    front, pid = started(jobs, tmp_path, "trap '' INT TERM; sleep 1000 & wait; sleep 1000")

    front.send_signal(signal.SIGINT)
    _out, err = front.communicate()

    assert front.returncode == 0
    assert "warning: the command of `--on-verdict` was ended, because SIGINT came\n" in err  # and not by its bound
    until(lambda: _group(pid) == [])  # those that its shell had started are killed with it, and nobody waits for them


def test_what_it_leaves_in_its_group_is_ended(jobs: Jobs, tmp_path: Path) -> None:
    front, pid = started(jobs, tmp_path, "sleep 1000 > /dev/null 2>&1 &")
    front.communicate()

    until(lambda: _group(pid) == [])


def test_it_is_told_when_our_supervisor_was_killed(jobs: Jobs, tmp_path: Path) -> None:
    out = tmp_path / "told"
    live = jobs.start(1, f"r, w = os.pipe()\n{TELL}; os.read(r, 1)", "--on-verdict", f"cat > {out}")

    os.kill(live.ours()[2], signal.SIGKILL)
    live.process.communicate()

    assert live.process.returncode == 125
    assert json.loads(out.read_text())["culprit"]["cause"]["kind"] == "supervisor-lost"


def test_it_is_told_of_a_job_that_never_began(jobs: Jobs, tmp_path: Path) -> None:
    out = tmp_path / "told"
    words = ["run", "-n", "100", "--on-verdict", f"cat > {out}", jobs.ranks.program("pass")]

    told = jobs.ask(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))

    assert told.returncode == 125
    assert json.loads(out.read_text())["culprit"]["cause"]["kind"] == "cannot-start"


def test_it_goes_with_a_front_that_is_killed(jobs: Jobs, tmp_path: Path, wait_for_exit) -> None:
    front, pid = started(jobs, tmp_path, "exec sleep 1000")

    front.kill()
    front.communicate()

    wait_for_exit(pid)


def _group(leader: int) -> list[int]:
    """Who is alive in a group."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] not in "ZX":
            found.append(int(pid))
    return found


def test_what_it_has_started_ends_with_us_when_we_are_killed(jobs: Jobs, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = f"sleep 60 & echo $$ $! >{pids}; sleep 50; :"
    words = jobs.ranks.command("-n", "1", "--on-verdict", command, jobs.ranks.program("pass"))
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0) as job:
        until(lambda: pids.exists() and pids.read_text().endswith("\n"))
        shell, child = map(int, pids.read_text().split())
        watched = [os.pidfd_open(pid) for pid in (shell, child)]

        os.killpg(job.pid, signal.SIGKILL)
        job.wait()

        for fd in watched:
            assert select.select([fd], [], [], 30)[0]
            os.close(fd)
