"""One real failure of each kind, and what the verdict, the exit status and the files say of it."""

import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from tests.run.command import Ended, Ranks

from rankguard._version import __version__
from rankguard.core.story import replay
from rankguard.diagnosis.verdict import verdict

WAIT = "\nsignal.pause()"
SCHEMA = json.loads(files("rankguard").joinpath("schema/verdict-1.json").read_text())

KINDS: list[tuple[str, str, int, str, str]] = [
    # name, what rank 1 does, exit status, kind, confidence
    ("exit-code", "os._exit(7)", 7, "exit-code", "proven"),
    ("sys.exit", "sys.exit(3)", 3, "exit-code", "proven"),
    ("exception", "raise KeyError('shard')", 1, "exception", "proven"),
    ("chained", "try:\n  1 / 0\nexcept Exception as e:\n  raise RuntimeError('load') from e", 1, "exception", "proven"),
    ("memory-error", "raise MemoryError", 1, "memory-limit", "proven"),
    ("killed", "os.kill(os.getpid(), 9)", 137, "killed", "proven"),
    ("terminated", "os.kill(os.getpid(), 15)", 143, "killed", "proven"),
    ("segfault", "import ctypes; ctypes.string_at(0)", 139, "crash", "proven"),
    ("abort", "os.abort()", 134, "crash", "proven"),
    ("bus", "os.kill(os.getpid(), signal.SIGBUS)", 135, "crash", "proven"),
    ("fpe", "os.kill(os.getpid(), signal.SIGFPE)", 136, "crash", "proven"),
    (
        "reported",
        "import rankguard; rankguard.this_rank().failed('no route to rank 0'); signal.pause()",
        1,
        "reported-failure",
        "proven",
    ),
]


def checked(ended: Ended) -> dict[str, Any]:
    """The verdict, which must be what the schema says and what a replay of the journal gives again."""
    told = ended.verdict
    jsonschema.Draft202012Validator(SCHEMA).validate(told)
    with open(ended.folder / "events.jsonl") as journal:
        job, _steps = replay(journal)
    again = verdict(job.case(), __version__).to_dict()
    same = (
        "outcome",
        "exit_code",
        "statement",
        "culprit",
        "either",
        "order",
        "ranks",
        "fingerprint",
        "retry",
        "stopped_by",
    )
    assert {key: json.loads(json.dumps(again[key])) for key in same} == {key: told[key] for key in same}
    return told


@pytest.mark.parametrize(("name", "does", "status", "kind", "confidence"), KINDS, ids=[kind[0] for kind in KINDS])
def test_kind(ranks: Ranks, name: str, does: str, status: int, kind: str, confidence: str) -> None:
    body = "".join(f"    {line}\n" for line in does.splitlines())

    ended = ranks.run(3, f"if RANK == 1:\n{body}{WAIT}")

    told = checked(ended)
    cause = told["culprit"]["cause"]
    assert (ended.status, told["culprit"]["rank"], cause["kind"], cause["confidence"]) == (status, 1, kind, confidence)
    assert [row["relation"] for row in told["ranks"]] == ["stopped", "culprit", "stopped"]
    assert (told["either"], told["teardown"]["survivors"], told["outcome"]) == ([], [], "failed")
    assert (
        ended.last_line
        == f"rankguard: exit {status} {kind} {confidence} rank=1 node={told['nodes'][0]} phase=running run={told['run_id']}"
    )


def test_the_traceback_needs_no_decorator(ranks: Ranks) -> None:
    ended = ranks.run(2, f"def load():\n  raise ValueError('bad shard')\nif RANK: load(){WAIT}")

    culprit = checked(ended)["culprit"]
    assert culprit["cause"]["exception"]["type"] == "ValueError"
    assert "in load" in culprit["traceback"]
    assert "bootstrap" not in culprit["traceback"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["./missing.py"], 127, "No such file"),
        (["no-such-command-here"], 127, "No such file"),
        (["--no-python", "/etc/passwd"], 126, "Permission denied"),
        (["--no-python", "/etc"], 126, "Is a directory"),
    ],
)
def test_cannot_start(ranks: Ranks, words: list[str], status: int, said: str) -> None:
    ended = ranks.words(["-n", "3", *words])

    told = checked(ended)
    assert (ended.status, told["culprit"]["cause"]["kind"], told["either"]) == (status, "cannot-start", [])
    assert said in ended.stderr


def test_success_and_its_files(ranks: Ranks) -> None:
    ended = ranks.run(2, "print('out'); print('err', file=sys.stderr)")

    told = checked(ended)
    assert (ended.status, told["outcome"], told["culprit"]) == (0, "succeeded", None)
    assert sorted(ended.stdout.splitlines()) == ["[0] out", "[1] out"]
    logs = [ended.folder / f"rank-{r}" / "attempt-0" / f"{s}.log" for r in (0, 1) for s in ("stdout", "stderr")]
    assert [log.read_text() for log in logs] == ["out\n", "err\n"] * 2
    assert not (ended.folder / "state.json").exists()
    assert ended.folder.stat().st_mode & 0o777 == 0o700


def test_json_report_is_the_only_thing_on_stdout(ranks: Ranks) -> None:
    ended = ranks.run(2, "print('hello'); RANK and sys.exit(5)" + WAIT, "--report", "json")

    assert json.loads(ended.stdout) == ended.verdict
    assert "hello" in ended.stderr


def test_report_none_says_nothing(ranks: Ranks) -> None:
    ended = ranks.run(2, "sys.exit(5)", "--report", "none")

    assert (ended.status, ended.stdout, ended.stderr) == (5, "", "")


@pytest.mark.parametrize(
    ("does", "status"), [("sys.exit(9)", 80), ("raise MemoryError", 82), ("os.kill(os.getpid(), 11)", 80)]
)
def test_exit_codes_by_class(ranks: Ranks, does: str, status: int) -> None:
    assert ranks.run(2, f"if RANK: {does}{WAIT}", "--exit-codes", "class").status == status


def test_two_independent_failures_are_both_told(ranks: Ranks) -> None:
    """Both are dead before the supervisor can look: it is stopped while they die."""
    ended = ranks.run(
        3,
        """
if RANK == 0:
    import rankguard
    signal.pause()
boss = os.getppid()
if RANK == 1:
    import select
    other = os.pidfd_open(int(open(sys.argv[1] + "/2").read()))  # it is there: nobody stops who has yet to start it
    me = os.pidfd_open(os.getpid())
    os.kill(boss, signal.SIGSTOP)
    if os.fork() == 0:
        os.setsid()
        p = select.poll(); p.register(me, select.POLLIN); p.poll()
        open(sys.argv[1] + "/go", "w").close()
        p = select.poll(); p.register(other, select.POLLIN); p.poll()
        os.kill(boss, signal.SIGCONT)
        os._exit(0)
    os.kill(os.getpid(), 9)
with open(sys.argv[1] + "/2", "w") as f: f.write(str(os.getpid()))
open(sys.argv[1] + "/go").close()
raise ValueError("independent")
""",
        args=(str(fifo_folder(ranks)),),
    )

    told = checked(ended)
    relations = {row["rank"]: row["relation"] for row in told["ranks"]}
    assert (ended.status, relations) == (137, {0: "stopped", 1: "culprit", 2: "independent"})
    assert "rank 2" in ended.stderr


def fifo_folder(ranks: Ranks) -> Any:
    import os

    folder = ranks.folder / "fifos"
    folder.mkdir()
    os.mkfifo(folder / "2")
    os.mkfifo(folder / "go")
    return folder


CANARY = "c4n4ry-5f2e"


def test_a_secret_is_in_no_artefact_but_the_ranks_own_logs(ranks: Ranks) -> None:
    import os

    ended = ranks.run(
        2,
        f"print('token', os.environ['MY_API_KEY']); sys.stdout.flush()\nif RANK: raise ValueError('no ' + os.environ['MY_API_KEY']){WAIT}",
        args=("--api-key", CANARY, f"--url=https://me:{CANARY}@host/"),
        env=os.environ | {"MY_API_KEY": CANARY},
    )

    assert ended.status == 1
    holders = {path.name for path in ended.folder.rglob("*") if path.is_file() and CANARY in path.read_text()}
    assert holders == {"stdout.log", "stderr.log"}
    report = ended.stderr[ended.stderr.index("error: rank 1") :]
    assert CANARY not in report


def test_a_log_that_is_named_is_there(ranks: Ranks) -> None:
    """A rank that has said nothing on stderr is told by its other file, a silent one by none: no path leads nowhere."""
    ended = ranks.run(
        3, "RANK == 1 and (print('last words', flush=True), os._exit(3))\nRANK == 2 and os._exit(0)" + WAIT
    )
    told = checked(ended)
    log = ended.folder / "rank-1/attempt-0/stdout.log"
    assert told["culprit"]["log_path"] == str(log)
    assert log.read_text() == "last words\n"
    assert str(log) in ended.stderr
    assert told["ranks"][2]["log_path"] is None

    silent = ranks.run(2, "RANK == 1 and os._exit(3)" + WAIT)
    assert silent.verdict["culprit"]["log_path"] is None
    assert ".log" not in silent.stderr

    unkept = ranks.run(2, "RANK == 1 and (print('last words', flush=True), os._exit(3))" + WAIT, "--log-max", "0")
    assert unkept.verdict["culprit"]["log_path"] is None
