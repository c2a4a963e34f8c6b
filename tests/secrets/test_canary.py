"""A secret in arguments, environment and output is found in no artefact but the ranks' own logs.

Each job is a real one; its ranks print and report every secret in many spellings. What is looked through: all files of
the run, what we print, what other terminals are told, what `--on-verdict` gets, the command lines of our processes.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.secrets.canaries import Canaries, artefacts, command_lines, found_in, own_logs

PROGRAM = """
import os, signal, sys, time
import rankguard
everything = open(os.environ["EVERYTHING"]).read()
me = rankguard.this_rank()
ONE = os.environ["DB_PASSWORD"]

def say_all():
    for stream in (sys.stdout, sys.stderr):
        stream.write(everything + "\\n")
        stream.flush()
        at = len(everything) // 2
        for piece in (everything[:at], everything[at:], "\\n"):  # a secret may be cut by a read
            os.write(stream.fileno(), piece.encode())
        stream.write("x" * 1990 + os.environ["WANDB_API_KEY"] + "\\n")  # and by the longest line that is kept
    for line in everything.splitlines():
        me.status(line[:400])
    me.status("y" * 1010 + os.environ["WANDB_API_KEY"])
    time.sleep(0.25)  # statuses are told ten times a second at most

def stay():
    open(os.environ["FIFO"], "w").close()
    signal.pause()

"""
PARTS = {
    "success": "say_all(); me.ready({'token': everything})",
    "exit": "say_all()\nif me.rank == 1: os._exit(3)\nsignal.pause()",
    "reported": "say_all()\nif me.rank == 1: me.failed('cannot log in: ' + everything)\nsignal.pause()",
    "exception": """
        say_all()
        def connect(url, password):
            try:
                raise KeyError(everything)
            except KeyError as error:
                raise ConnectionError(f"login at {url} with {password}: {everything}") from error
        if me.rank == 1: connect(os.environ["DATABASE_URL"], ONE)
        signal.pause()
    """,
    "killed": "say_all()\nif me.rank == 1: os.kill(os.getpid(), 9)\nsignal.pause()",
    "stay": "say_all()\nme.status('waiting for ' + everything[:300])\nme.ready(everything) if me.rank else stay()\nsignal.pause()",
}


class Job:
    """One job with canaries, in a folder of its own."""

    def __init__(self, tmp_path: Path) -> None:
        self.canaries = Canaries()
        self.home = tmp_path / "home"
        self.folder = tmp_path / "run"
        self.fifo = tmp_path / "fifo"
        os.mkfifo(self.fifo)
        everything = tmp_path / "everything"
        everything.write_text(self.canaries.every_spelling())
        given = {"EVERYTHING": str(everything), "FIFO": str(self.fifo), "RANKGUARD_HOME": str(self.home)}
        self.env = os.environ | self.canaries.environment() | given
        self.program = tmp_path / "program.py"
        self.verdict_seen = tmp_path / "verdict-seen"
        self.last_word = tmp_path / "termination-log"

    def words(self, part: str, *options: str) -> list[str]:
        self.program.write_text(PROGRAM + textwrap.dedent(PARTS[part]))
        files = ["--run-dir", str(self.folder), "--on-verdict", f"cat >{self.verdict_seen}"]
        files += ["--termination-log", str(self.last_word)]
        self.last_word.write_text(self.canaries.every_spelling())  # as if the program had left its own word there
        words = ["run", "-n", "2", "-r", "3", "--grace", "1", *files, *self.canaries.options(), *options]
        return [*words, str(self.program), *self.canaries.arguments()]

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "rankguard", *words], env=self.env, capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    def seen(self, ended: "subprocess.CompletedProcess[str]") -> dict[str, str]:
        """Everything that left us, by where it was."""
        told = artefacts(self.folder)
        told |= {"stdout": ended.stdout, "stderr": ended.stderr}
        folder = str(self.folder)
        for verb in (("runs",), ("report", folder), ("report", "--json", folder), ("explain", folder)):
            said = self.run(*verb)
            told[" ".join(verb[:-1] or verb)] = said.stdout + said.stderr
        if self.last_word.exists():
            told["termination-log"] = self.last_word.read_text()
        if self.verdict_seen.exists():
            told["on-verdict"] = self.verdict_seen.read_text()
        return told

    def assert_clean(self, told: dict[str, str]) -> None:
        found = {where: names for where, text in told.items() if (names := found_in(self.canaries, text))}
        assert found == {}, {where: told[where][:3000] for where in found}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.mark.parametrize("part", ["success", "exit", "reported", "exception", "killed"])
def test_an_end_of_any_kind(job: Job, part: str) -> None:
    ended = job.run(*job.words(part))
    told = job.seen(ended)

    job.assert_clean(told)
    assert found_in(job.canaries, own_logs(job.folder)) == list(job.canaries.all())  # they are the ranks' own
    assert {"verdict.json", "events.jsonl", "on-verdict", "report", "explain"} <= set(told)
    verdict = json.loads(told["verdict.json"])
    assert verdict["command"].count("***") >= 1
    assert "--api-key" in verdict["command"]
    assert verdict["labels"] == {"api_token": "***", "team": "blue"}
    if part == "exit":  # what is no secret is seen, so the others would be
        assert any(job.canaries.plain in line for line in verdict["culprit"]["log_tail"]), verdict["culprit"][
            "log_tail"
        ]
    if part == "exception":
        assert verdict["culprit"]["cause"]["exception"]["type"] == "ConnectionError"
        assert "***" in verdict["culprit"]["traceback"]


def test_report_json_on_stdout(job: Job) -> None:
    ended = job.run(*job.words("exception", "--report", "json"))

    job.assert_clean({"stdout": ended.stdout, "stderr": ended.stderr})
    assert json.loads(ended.stdout)["outcome"] == "failed"


def test_what_v_tells(job: Job) -> None:
    """`-v` shows the journal as it grows: statuses, endings, decisions."""
    ended = job.run(*job.words("exit", "-v"))

    job.assert_clean({"stdout": ended.stdout, "stderr": ended.stderr})
    assert len(ended.stderr.splitlines()) > 10


@pytest.mark.parametrize("where", ["program", "folder"])
def test_a_job_that_cannot_start(job: Job, where: str) -> None:
    words = job.words("success")
    at = words.index(str(job.program))
    words[at] = f"/nosuch/{job.canaries.variable}" if where == "program" else "/etc/passwd"
    words.insert(at, "--no-python")

    ended = job.run(*words)

    assert ended.returncode in (126, 127)
    job.assert_clean(job.seen(ended))


def test_while_it_lives_and_when_it_is_interrupted(job: Job) -> None:
    front = subprocess.Popen(
        [sys.executable, "-m", "rankguard", *job.words("stay", "--ready-timeout", "60")], env=job.env,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    job.fifo.read_text()  # rank 0 has said all
    while not (job.folder / "state.json").exists():  # and both execute
        assert front.poll() is None, front.communicate()

    told = artefacts(job.folder)
    for verb in (("runs",), ("report", str(job.folder)), ("stacks", str(job.folder)), ("explain", str(job.folder))):
        said = job.run(*verb)
        told[f"{verb[0]} while it lives"] = said.stdout + said.stderr
    lines = command_lines(front.pid)
    ranks = [pid for pid, line in lines.items() if "program.py" in line and "-m\0rankguard" not in line]
    assert len(ranks) == 2
    told |= {f"command line of {pid}": line for pid, line in lines.items() if pid not in (*ranks, front.pid)}
    front.terminate()
    out, err = front.communicate(timeout=30)

    assert len(told) >= 7, told.keys()
    assert "state.json" in told
    job.assert_clean(told)
    job.assert_clean(job.seen(subprocess.CompletedProcess([], 0, out, err)))


def test_when_the_supervisor_is_lost(job: Job) -> None:
    front = subprocess.Popen(
        [sys.executable, "-m", "rankguard", *job.words("stay")], env=job.env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    job.fifo.read_text()
    supervisor = next(pid for pid in command_lines(front.pid) if _name(pid) == "rankguard-sup")

    os.kill(supervisor, signal.SIGKILL)
    out, err = front.communicate(timeout=30)

    assert front.returncode == 125
    job.assert_clean(job.seen(subprocess.CompletedProcess([], 0, out, err)))


def test_a_bug_of_ours(job: Job) -> None:
    """Its text is a traceback, and may hold any value of the job."""
    code = f"""
import json, os, sys
from rankguard.lost import verdict_without_supervisor
from rankguard.cli.front.main import Front
from rankguard.cli.arguments import parse
from rankguard.cli.plan import plan
asked = parse({job.words("stay")[1:]!r}, os.environ)
spec, _said = plan(asked)
front = Front(asked, spec)
class Gone:
    closed = True
    def wait_gone(self): return True
front.client = Gone()
front._lost("Traceback (most recent call last):\\nValueError: " + open(os.environ["EVERYTHING"]).read())
sys.exit(front._report(front.verdict))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], env=job.env, capture_output=True, text=True, check=False, timeout=60
    )

    assert ended.returncode == 125, ended.stderr
    assert "bug" in ended.stderr
    job.assert_clean(job.seen(ended))


LAUNCH = """
import json, os, sys
import rankguard
def work(rank, _args):
    print(os.environ["RANK_TOKEN"], flush=True)
    rank.status("with " + os.environ["RANK_TOKEN"])
    raise ValueError("refused: " + os.environ["RANK_TOKEN"])
if __name__ == "__main__":
    secrets = json.loads(sys.argv[1])
    try:
        with rankguard.launch(work, nprocs=2, args=(secrets,), env=lambda rank: {"RANK_TOKEN": secrets[rank]},
                              run_dir=sys.argv[2], console="none", grace=1) as job:
            job.wait()
    except rankguard.RankFailed as error:
        print(error)
        print(error.verdict.to_json())
"""


def test_variables_of_a_rank_under_launch(job: Job, tmp_path: Path) -> None:
    script = tmp_path / "launch.py"
    script.write_text(LAUNCH)
    secrets = [job.canaries.variable, job.canaries.odd]

    ended = subprocess.run(
        [sys.executable, str(script), json.dumps(secrets), str(job.folder)], env=os.environ | {"RANKGUARD_HOME": str(job.home)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert "ValueError" in ended.stdout, ended.stderr
    job.assert_clean(job.seen(ended))
    assert set(found_in(job.canaries, own_logs(job.folder))) & {
        "variable",
        "odd",
    }  # of the one that was not stopped before


ADOPT = """
import multiprocessing, os, signal
import rankguard
def child(end):
    end.send({"status": "failed", "why": "login with " + os.environ["WANDB_API_KEY"], "password": os.environ["DB_PASSWORD"]})
    signal.pause()
if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=child, args=(theirs,))
    process.start()
    try:
        rankguard.wait_ready([process], [ours], timeout=30, is_ready=lambda message: message["status"] == "ready")
    except rankguard.RankFailed as error:
        print(error)
        print(error.verdict.to_json())
    process.kill()
"""


def test_a_message_that_wait_ready_quotes(job: Job, tmp_path: Path) -> None:
    script = tmp_path / "adopt.py"
    script.write_text(ADOPT)

    ended = subprocess.run(
        [sys.executable, str(script)], env=job.env, capture_output=True, text=True, check=False, timeout=60
    )

    assert "login with ***" in ended.stdout, ended.stderr
    job.assert_clean({"stdout": ended.stdout, "stderr": ended.stderr})


BAD: list[list[str]] = [
    ["--redact", "({s}"],
    ["--label", "{s}"],
    ["--api-key={s}"],
    ["--grace", "{s}"],
    ["-n", "{s}"],
    ["--rdzv-endpoint", "user:{s}@host:x"],
    ["--log-max", "token={s}"],
    ["--nosuch", "{s}"],
    ["--role", "--hf-token={s}"],
]


@pytest.mark.parametrize("words", BAD, ids=lambda words: words[0])
def test_error_messages_of_bad_options(job: Job, words: list[str]) -> None:
    """What is a secret by the environment, or by its name, is not quoted."""
    value = job.canaries.variable

    ended = job.run("run", *[word.replace("{s}", value) for word in words], "program.py")

    job.assert_clean({"stdout": ended.stdout, "stderr": ended.stderr})


def test_a_fault_of_the_command_line(job: Job) -> None:
    """Its details are kept in a file, which somebody will attach to a report."""
    code = """
import os, sys
from rankguard.cli.fault import say_fault
try:
    raise ValueError(open(os.environ["EVERYTHING"]).read())
except ValueError as error:
    say_fault(error, sys.argv[1:])
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, *job.words("success")], env=job.env, capture_output=True, text=True, check=False
    )
    kept = {str(path): path.read_text() for path in job.home.glob("fault-*")}

    assert len(kept) == 1, ended.stderr
    assert "ValueError" in next(iter(kept.values()))
    job.assert_clean(kept | {"stdout": ended.stdout, "stderr": ended.stderr})


def test_the_search_itself() -> None:
    """It finds a piece of any secret, as it is or as JSON has it."""
    canaries = Canaries()

    for name, value in canaries.all().items():
        assert found_in(canaries, f"… {value[3:14]} …") == [name]
    assert found_in(canaries, json.dumps(canaries.odd)) == ["odd"]
    assert found_in(canaries, canaries.every_spelling()) == list(canaries.all())
    assert found_in(canaries, "nothing") == []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
