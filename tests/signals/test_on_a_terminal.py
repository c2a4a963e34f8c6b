"""Signals that a terminal sends: Ctrl-C, Ctrl-Z, Ctrl-\\, a window that is closed; and the shell's fg and bg."""

import os
import re
import signal
from pathlib import Path

from tests.signals.jobs import Job, children, state, until_state
from tests.signals.rows import row
from tests.terminal import CTRL_BACKSLASH, CTRL_C, CTRL_Z, Terminal

STOPPED = re.compile(rb"\[1\]\+ +Stopped.*\r\n.*\$ ")
BEAT = """
n = 0
def beat():
    global n
    n += 1
on(15, lambda: sys.exit(0)); on(2, lambda: sys.exit(0)); on(18, lambda: say("goes on"))
say("up")
"""


def words(job: Job, *options: str) -> tuple[str, ...]:
    return (*job.words[:4], *options, *job.words[4:])


class Shell(Terminal):
    """An interactive shell with job control, in the job's folder."""

    def __init__(self, job: Job) -> None:
        env = os.environ | {"PS1": "$ ", "HISTFILE": "/dev/null", "TERM": "dumb"}
        super().__init__("bash", "--norc", "--noprofile", "-i", cwd=job.folder, env=env)
        self.expect("$ ")
        self._job = job

    def start(self, *, background: bool = False) -> int:
        """The job's command; the pid of its front."""
        before = set(children(self.pid))
        self.send(" ".join(self._job.words) + (" &" if background else "") + "\n")
        self._job.until("up", 2)
        (front,) = set(children(self.pid)) - before
        return front


@row("SIGINT (Ctrl-C)", "the terminal", "running", "forwarded; the ranks end cleanly", "0")
def test_ctrl_c_and_a_clean_end(tmp_path: Path) -> None:
    with Job(tmp_path, 2, BEAT + "forever()", by_hand=True) as job, Terminal(*job.words) as term:
        job.until("up", 2)
        term.send(CTRL_C)
        assert term.wait() == 0

        assert (job.verdict()["outcome"], job.verdict()["statement"]) == (
            "interrupted",
            "stopped by SIGINT from the terminal",
        )


@row("SIGINT (Ctrl-C)", "the terminal", "running", "forwarded; ranks that die of it are no failure", "130")
def test_ctrl_c_and_ranks_that_die_of_it(tmp_path: Path) -> None:
    text = "signal.signal(2, signal.SIG_DFL); say('up'); forever()"
    with Job(tmp_path, 2, text, by_hand=True) as job, Terminal(*job.words) as term:
        job.until("up", 2)
        term.send(CTRL_C)
        assert term.wait() == 130

        verdict = job.verdict()
        assert (verdict["outcome"], verdict["culprit"]) == ("interrupted", None)
        assert verdict["statement"] == "stopped by SIGINT from the terminal"
        assert b"stopped by SIGINT from the terminal" in term.output


@row("SIGINT (Ctrl-C) twice", "the terminal", "running, stopping", "the second ends all at once", "130")
def test_ctrl_c_twice(tmp_path: Path) -> None:
    text = "on(2, lambda: say('heard')); say('up'); forever()"
    with Job(tmp_path, 2, text, by_hand=True) as job, Terminal(*job.words) as term:
        job.until("up", 2)
        term.send(CTRL_C)
        job.until("heard", 2)
        term.send(CTRL_C)
        assert term.wait(15) == 130

        assert job.verdict()["statement"].endswith("2 of 2 ranks were killed at once, as asked")


@row("SIGTSTP (Ctrl-Z), then `fg`", "the terminal, the shell", "running, suspended",
     "every rank stands still and no deadline runs; all go on", "of the ranks")  # fmt: skip
def test_ctrl_z_and_fg(tmp_path: Path) -> None:
    with Job(tmp_path, 2, BEAT + "forever()", "--ready-timeout", "600", by_hand=True) as job, Shell(job) as shell:
        front = shell.start()
        for _ in range(2):
            shell.send(CTRL_Z)
            shell.expect(STOPPED)
            for pid in (front, *job.pids()):
                until_state(pid, "T")  # one that was waiting for a CPU stops when it gets one
            shell.send("fg\n")
            job.until("goes", 2)
        shell.send(CTRL_C)
        shell.send("echo status=$?\n")
        shell.expect("status=0")

        assert len(job.facts("Suspended")) == len(job.facts("Resumed")) == 2


@row("SIGTSTP (Ctrl-Z), then `bg`", "the terminal, the shell", "running, suspended", "the job goes on in the background",
     "of the ranks")  # fmt: skip
def test_ctrl_z_and_bg(tmp_path: Path) -> None:
    with Job(tmp_path, 2, BEAT + "wait_for_go() if RANK else None", by_hand=True) as job, Shell(job) as shell:
        shell.start()
        job.until_fact("Exited", rank=0)
        shell.send(CTRL_Z)
        shell.expect(STOPPED)
        shell.send("bg\n")
        shell.expect("$ ")  # a job whose end is told before this is no job of the shell's any more
        job.until("goes")
        job.go()
        shell.expect("exit 0 succeeded")
        shell.send("wait %1; echo status=$?\n")
        shell.expect("status=0")


@row("SIGTSTP, then SIGCONT", "anybody", "running, suspended", "as Ctrl-Z and `fg`", "of the ranks")
def test_sigtstp_and_sigcont(tmp_path: Path) -> None:
    with Job(tmp_path, 2, BEAT + "forever()", by_hand=True) as job, Shell(job) as shell:
        front = shell.start(background=True)
        os.kill(front, signal.SIGTSTP)
        until_state(front, "T")
        for pid in job.pids():
            until_state(pid, "T")
        os.kill(front, signal.SIGCONT)
        job.until("goes", 2)
        os.kill(front, signal.SIGTERM)
        shell.send("wait %1; echo status=$?\n")
        shell.expect("status=0")


@row(
    "SIGTERM, then SIGCONT (`kill %1`)",
    "the shell",
    "suspended",
    "the ranks hear it, and go on to their end",
    "0 or 143",
)
def test_a_suspended_job_is_told_to_end(tmp_path: Path) -> None:
    with Job(tmp_path, 2, BEAT + "forever()", by_hand=True) as job, Shell(job) as shell:
        shell.start()
        shell.send(CTRL_Z)
        shell.expect(STOPPED)
        shell.send("kill %1\n")
        shell.expect("exit 0 interrupted")

        assert job.verdict()["outcome"] == "interrupted"


@row("SIGKILL of a rank", "anybody", "suspended", "a failure; the others go on to their end, the verdict is on disk, and "
     "the front says it after `fg`", "137")  # fmt: skip
def test_a_rank_is_killed_while_suspended(tmp_path: Path) -> None:
    with Job(tmp_path, 2, BEAT + "forever()", by_hand=True) as job, Shell(job) as shell:
        shell.start()
        shell.send(CTRL_Z)
        shell.expect(STOPPED)
        os.kill(job.pids()[1], signal.SIGKILL)
        job.until_verdict()
        shell.send("fg\n")
        shell.expect("exit 137 killed")
        shell.send("echo status=$?\n")
        shell.expect("status=137")

        assert job.verdict()["culprit"]["rank"] == 1
        assert job.verdict()["ranks"][0]["ending"]["code"] == 0


@row("SIGKILL of the front", "anybody", "suspended", "every rank ends at once", "137, by the shell")
def test_the_front_is_killed_while_suspended(tmp_path: Path) -> None:
    with Job(tmp_path, 2, BEAT + "forever()", by_hand=True) as job, Shell(job) as shell:
        front = shell.start()
        shell.send(CTRL_Z)
        shell.expect(STOPPED)
        ranks = job.pids()
        os.kill(front, signal.SIGKILL)
        shell.send("fg; echo status=$?\n")
        shell.expect("status=")
        job.until_verdict()

        assert job.verdict()["culprit"]["cause"]["kind"] == "supervisor-lost"
        assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)


@row(
    "SIGTSTP",
    "anybody",
    "running, and no shell is there to go on (PID 1, `setsid`)",
    "no effect; said once",
    "of the ranks",
)
def test_nobody_could_go_on(tmp_path: Path) -> None:
    with Job(tmp_path, 2, BEAT + "forever()", by_hand=True) as job, Terminal(*job.words) as term:
        job.until("up", 2)
        term.send(CTRL_Z)
        term.expect("SIGTSTP has no effect")
        term.send(CTRL_C)
        assert term.wait() == 0
        assert job.facts("Suspended") == []


@row("SIGTTOU", "the terminal, of which `stty tostop` is set", "running in the background",
     "the front stops before its last words, as any background job; the ranks and the verdict do not wait", "of the ranks")  # fmt: skip
def test_a_background_job_that_may_not_write(tmp_path: Path) -> None:
    with Job(tmp_path, 2, BEAT, by_hand=True) as job, Shell(job) as shell:
        shell.send("stty tostop\n")
        shell.expect("$ ")
        front = shell.start(background=True)
        job.until_verdict()
        until_state(front, "T")
        assert job.verdict()["outcome"] == "succeeded"
        shell.send("fg\n")
        shell.expect("exit 0 succeeded")


@row(
    "SIGHUP",
    "the terminal, which is closed",
    "running",
    "forwarded; reads and writes fail, the verdict is on disk",
    "0 or 129",
)
def test_the_terminal_is_closed(tmp_path: Path) -> None:
    text = "on(1, lambda: (time.sleep(0.3), os._exit(0)) if RANK else os._exit(0))\nsay('up')\nwhile True: print('x' * 200)"
    with Job(tmp_path, 2, text, by_hand=True) as job, Terminal(*job.words) as term:
        job.until("up", 2)
        term.hang_up()
        assert term.wait() == 0

        verdict = job.verdict()
        assert (verdict["outcome"], verdict["statement"]) == ("interrupted", "stopped by SIGHUP from the terminal")


@row("SIGHUP", "the terminal, which is closed", "suspended", "the ranks hear it, and go on to their end", "0 or 129")
def test_the_terminal_is_closed_while_suspended(tmp_path: Path) -> None:
    with Job(tmp_path, 2, BEAT + "forever()", by_hand=True) as job, Shell(job) as shell:
        shell.start()
        shell.send(CTRL_Z)
        shell.expect(STOPPED)
        shell.hang_up()
        job.until_verdict()

        assert (job.verdict()["outcome"], job.verdict()["stopped_by"]["signal"]) == ("interrupted", "SIGHUP")


@row(
    "SIGQUIT (Ctrl-\\)",
    "the terminal, anybody",
    "running",
    "the stacks of all ranks are written; it stops nothing",
    "of the ranks",
)
def test_ctrl_backslash(tmp_path: Path) -> None:
    with Job(tmp_path, 2, BEAT + "forever()", by_hand=True) as job, Terminal(*job.words, columns=200) as term:
        job.until("up", 2)
        term.send(CTRL_BACKSLASH)
        term.expect("stacks of 2 of 2 ranks")
        term.expect("program.py:")
        assert not {state(pid) for pid in job.pids()} & {"T", "t"}
        term.send(CTRL_C)
        assert term.wait() == 0


@row(
    "SIGQUIT (Ctrl-\\)",
    "the terminal",
    "suspended",
    "nothing: the front stands still; after `fg` the stacks",
    "of the ranks",
)
def test_sigquit_while_suspended(tmp_path: Path) -> None:
    with Job(tmp_path, 2, BEAT + "forever()", by_hand=True) as job, Shell(job) as shell:
        front = shell.start()
        shell.send(CTRL_Z)
        shell.expect(STOPPED)
        os.kill(front, signal.SIGQUIT)
        shell.send("fg\n")
        job.until("goes", 2)
        shell.expect("stacks of 2 of 2 ranks")
        shell.send(CTRL_C)
        shell.send("echo status=$?\n")
        shell.expect("status=0")


@row("SIGWINCH", "the terminal, whose size changes", "running", "forwarded", "of the ranks")
def test_the_size_changes(tmp_path: Path) -> None:
    text = BEAT + "on(28, lambda: say('size')); say('ready'); forever()"
    with Job(tmp_path, 2, text, by_hand=True) as job, Terminal(*job.words) as term:
        job.until("ready", 2)
        term.resize(40, 120)
        job.until("size", 2)
        term.send(CTRL_C)
        assert term.wait() == 0
