"""A signal that a rank sends to its parent is a fact about that rank, and never hurts the supervisor."""

import signal
from pathlib import Path

import pytest
from tests.marks import slowly
from tests.signals.jobs import Job
from tests.signals.rows import row

SEND = """
def send(name, times=1):
    number = getattr(signal, name) if hasattr(signal, name) else signal.SIGRTMIN + 1
    for _ in range(times): os.kill(os.getppid(), number)
on(15, lambda: sys.exit(0))
say("up")
RANK and (wait_for_go(), act())
forever()
"""
ENDS = ["SIGQUIT", "SIGABRT", "SIGTERM", "SIGINT", "SIGHUP"]
HARMLESS = [
    "SIGUSR1", "SIGCHLD", "SIGPIPE", "SIGRTMIN+1", "SIGUSR2", "SIGCONT", "SIGWINCH", "SIGTSTP", "SIGALRM", "SIGSEGV",
]  # fmt: skip


def act(does: str) -> str:
    """Rank 1 does this when all are up; rank 0 ends cleanly when it is told to."""
    return f"def act(): {does}\n{SEND}"


@row("SIGQUIT, SIGABRT, SIGTERM, SIGINT, SIGHUP", "a rank, to its parent", "running",
     "held; the rank then ends, even with 0: that is its failure (`reported-failure`)", "1, or the rank's own code")  # fmt: skip
@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [("SIGQUIT", 0, 1), ("SIGABRT", 7, 7), ("SIGTERM", 0, 1),
     *slowly(*((name, code, code or 1) for name in ENDS for code in (0, 7)))],
)  # fmt: skip
def test_it_complains_and_ends(tmp_path: Path, name: str, code: int, expected: int) -> None:
    with Job(tmp_path, 2, act(f"send('{name}'); os._exit({code})")) as job:
        job.go()
        status, verdict, _err = job.ended()

    cause = verdict["culprit"]["cause"]
    assert (status, verdict["culprit"]["rank"], cause["kind"]) == (expected, 1, "reported-failure")
    assert f"told its parent of a failure by {name}, then ended with exit code {code}" in cause["statement"]
    assert verdict["ranks"][0]["relation"] == "stopped"


@row(
    "SIGQUIT … as above",
    "a rank, to its parent",
    "running",
    "held; the rank has not ended 5 s later: its failure, too",
    "1",
)
@pytest.mark.slow
def test_it_complains_and_does_not_end(tmp_path: Path) -> None:
    with Job(tmp_path, 2, act("send('SIGQUIT')")) as job:
        job.go()
        status, verdict, _err = job.ended()

    cause = verdict["culprit"]["cause"]
    assert (status, verdict["culprit"]["rank"], cause["kind"]) == (1, 1, "reported-failure")
    assert cause["statement"].endswith("told its parent of a failure by SIGQUIT while running, and did not end")
    (complained,), (passed,) = job.facts("Complained"), job.facts("DeadlinePassed")
    assert passed["at"] - complained["at"] > 4.9


@row(
    "SIGQUIT … as above",
    "a rank, to its parent",
    "stopping on request",
    "recorded; nobody is called a failure",
    "0 or 143",
)
def test_it_complains_while_the_job_ends(tmp_path: Path) -> None:
    text = "on(15, lambda: (os.kill(os.getppid(), 3), os._exit(0))); say('up'); forever()"
    with Job(tmp_path, 2, text) as job:
        job.kill(signal.SIGTERM)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"]) == (0, "interrupted")
    assert job.facts("Complained")  # of one rank or of both: equal signals that are pending are one (signal(7))


@row(
    "SIGQUIT … as above, 1,000 times", "a rank, to its parent", "running", "held once; the supervisor is not hurt", "1"
)
@pytest.mark.parametrize("name", [ENDS[0], *slowly(*ENDS[1:])])
def test_it_complains_a_thousand_times(tmp_path: Path, name: str) -> None:
    with Job(tmp_path, 2, act(f"send('{name}', 1000); os._exit(0)")) as job:
        job.go()
        status, verdict, _err = job.ended()

    assert (status, verdict["culprit"]["cause"]["kind"]) == (1, "reported-failure")
    assert 1 <= len(job.facts("Complained")) <= 4


@row("any other, once or 1,000 times", "a rank, to its parent", "running", "recorded, at most four of a kind, and no more",
     "of the ranks")  # fmt: skip
@pytest.mark.parametrize("name", [*HARMLESS[:4], *slowly(*HARMLESS[4:])])
def test_what_says_nothing(tmp_path: Path, name: str) -> None:
    with Job(tmp_path, 2, act(f"send('{name}', 1000); send('SIGUSR1'); os._exit(0)")) as job:
        job.go()
        job.until_fact("Exited", rank=1)
        job.kill(signal.SIGTERM)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"]) == (0, "interrupted")
    assert 1 <= len(job.facts("Complained")) <= 8


@row(
    "any other, without end",
    "all ranks, to their parent",
    "running",
    "a request from outside is heard all the same",
    "143",
)
@pytest.mark.parametrize("number", ["signal.SIGUSR1", "signal.SIGRTMIN"])
def test_a_flood_makes_nobody_deaf(tmp_path: Path, number: str) -> None:
    text = f"say('up')\nwhile True: os.kill(os.getppid(), {number})"
    with Job(tmp_path, 4, text) as job:
        job.until_fact("Complained", 4)
        job.kill(signal.SIGTERM)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"]) == (143, "interrupted")
    assert len(job.facts("Complained")) <= 16


@row("SIGQUIT", "a child of a rank, to the rank's parent", "running", "as from the rank itself", "1")
def test_a_child_complains(tmp_path: Path) -> None:
    # It lives until the supervisor has heard it: whose child one was that is gone, nobody can tell.
    does = """
    parent = os.getppid()
    if os.fork() == 0:
        os.kill(parent, 3)
        while "Complained" not in open("run/events.jsonl").read(): time.sleep(0.01)
        os._exit(0)
    os.wait()
    os._exit(0)
"""
    with Job(tmp_path, 2, act(does)) as job:
        job.go()
        status, verdict, _err = job.ended()

    assert (status, verdict["culprit"]["rank"]) == (1, 1)


def test_the_log_says_more(tmp_path: Path) -> None:
    """As SGLang does it: the traceback in the log, SIGQUIT to the parent, an end with 0."""
    does = """
    import traceback
    try: raise ValueError("bad weights")
    except ValueError: traceback.print_exc()
    send("SIGQUIT")
    os._exit(0)
"""
    with Job(tmp_path, 2, act(does)) as job:
        job.go()
        status, verdict, _err = job.ended()

    cause = verdict["culprit"]["cause"]
    assert (status, verdict["culprit"]["rank"], cause["kind"]) == (1, 1, "exception")
    assert {"source": "rank", "statement": "it sent SIGQUIT to its parent"} in cause["evidence"]


def test_who_complained_first_is_no_victim(tmp_path: Path) -> None:
    """Rank 1 says that it failed and lives on; rank 0 then loses it as a peer."""
    text = """
def act():
    os.kill(os.getppid(), 3)
    open("told", "w")
on(15, lambda: sys.exit(0))
say("up")
if RANK: wait_for_go(); act(); forever()
while not os.path.exists("told"): time.sleep(0.01)
raise ConnectionResetError("Connection reset by peer")
"""
    with Job(tmp_path, 2, text) as job:
        job.go()
        status, verdict, _err = job.ended()

    assert (status, verdict["culprit"]["rank"], verdict["culprit"]["cause"]["kind"]) == (1, 1, "reported-failure")
    assert verdict["ranks"][0]["relation"] == "collateral"
