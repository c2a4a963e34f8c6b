"""Every fault of the laboratory is what it says: under rankguard, and by itself, where only the kernel judges."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from tests.lab.conftest import cell_of

from rankguard.errors import UsageError
from rankguard.testing import faults
from rankguard.testing.faults import FAULTS, PHASES, STARTS, Cell, Outcome, Surroundings, command
from rankguard.testing.faults.checks import Expect, checked
from rankguard.testing.faults.fault import Fault


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_as_it_should_be(fault: str, outcomes: dict[str, Future[Outcome]]) -> None:
    outcome = outcomes[fault].result()
    if outcome.why_not:
        pytest.skip(outcome.why_not)

    # Three at once, beside whatever else the machine does: what hangs is over by `play_apart`'s own bound.
    assert [what for what in outcome.wrong if not what.startswith("took ")] == [], outcome.said
    assert len(outcome.checks) >= 8


def test_the_sample_has_everything(here: Surroundings) -> None:
    cells = [cell_of(name, here) for name in FAULTS]

    assert {cell.at for cell in cells} == set(PHASES)
    assert {cell.start for cell in cells} == set(STARTS)
    assert {cell.victim for cell in cells} == {0, 1, 2}


# ── By itself: one rank, no launcher ─────────────────────────────────────────────────────────────────────────────────

ALONE = {
    # fault: what waitpid(2) must say
    "exit-code": 3, "sys-exit-text": 1, "exit-early": 0, "returns": 0, "exception": 1, "exception-in-atexit": 0,
    "keyboard-interrupt": -signal.SIGINT, "import-error": 1,
    "segfault": -signal.SIGSEGV, "bus-error": -signal.SIGBUS, "illegal-instruction": -signal.SIGILL,
    "divide-by-zero": -signal.SIGFPE, "abort": -signal.SIGABRT, "double-free": -signal.SIGABRT,
    "segfault-core": -signal.SIGSEGV, "abort-core": -signal.SIGABRT,
    "kill": -signal.SIGKILL, "terminate": -signal.SIGTERM, "memory-error": 1, "disk-full-tmpfs": 1,
    "shm-full": -signal.SIGBUS, "descriptors-exhausted": 1, "execs-another": 7, "closes-everything": 120,
    "output-no-newline": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
def test_the_kernel_agrees(name: str, tmp_path: Path, here: Surroundings) -> None:
    if reason := FAULTS[name].why_not(Cell(at="starting", here=here)):
        pytest.skip(reason)
    rank = alone(name, tmp_path)
    _out, err = rank.communicate(timeout=60)

    assert rank.returncode == ALONE[name], err
    cores = list(tmp_path.glob("core*"))
    assert bool(cores) is name.endswith("-core")


def test_state_d_is_made(tmp_path: Path, here: Surroundings) -> None:
    if reason := FAULTS["uninterruptible"].why_not(Cell(here=here)):
        pytest.skip(reason)
    rank = alone("uninterruptible", tmp_path)
    task = Path(f"/proc/{rank.pid}/task/{rank.pid}")
    try:
        until = time.monotonic() + 30
        while (task / "stat").read_text().rpartition(")")[2].split()[0] != "D":  # nobody is told of a state
            assert rank.poll() is None
            assert time.monotonic() < until
    finally:
        for pid in [int(child) for child in (task / "children").read_text().split()]:
            os.kill(pid, signal.SIGKILL)
        rank.kill()
        rank.communicate()


def alone(name: str, folder: Path) -> "subprocess.Popen[str]":
    """One rank of one, under nobody."""
    words = ["--at", "starting", "--victim", "0", "--folder", str(folder)]
    return subprocess.Popen(
        [sys.executable, "-m", "rankguard.testing.faults", name, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "at", "said"),
    [("nosuch", "starting", "there is no fault 'nosuch'"), ("kill", "nowhere", "at='nowhere' is not known")],
)
def test_a_fault_that_there_is_not(name: str, at: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        command(name, Cell(at=at), "/tmp")


# ── The nouns ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_cannot_be_made_says_why() -> None:
    nothing = Surroundings(root=False, own_groups=False, kernel_log=False, counters=False, cores=False, machine="s390x")

    why = {name: fault.why_not(Cell(at=fault.phases[0], here=nothing)) for name, fault in FAULTS.items()}
    assert why["oom-own-group"] == "no rank can be given a memory group of its own (control groups are read-only)"
    assert why["oom-not-told"] == "it needs root, to make control groups read-only for a job"
    assert why["illegal-instruction"] == "no instructions are known for s390x"
    assert why["uninterruptible"] == "the number of clone(2) is not known for s390x"
    assert why["segfault-core"] is not None
    assert why["exception"] is None
    assert FAULTS["returns"].why_not(Cell(at="all-ready")) == "it has no meaning when all are ready"
    assert FAULTS["shell-script"].why_not(Cell(start="function")) == "it is about a program, not a function"
    assert FAULTS["hang"].why_not(Cell(ranks=2)) == "it needs 3 ranks"


def test_grades_are_honest() -> None:
    """What is proven with everything is likely where nothing tells it."""
    blind = Surroundings(own_groups=False, kernel_log=False, counters=False)

    def grade(name: str, here: Surroundings) -> object:
        return FAULTS[name].expect(Cell(here=here)).confidence

    assert [grade("kill", here) for here in (Surroundings(), blind)] == ["proven", "likely"]
    assert [grade("oom-victim-not-grower", here) for here in (Surroundings(), blind)] == ["proven", "likely"]
    assert grade("oom-shared-counter", Surroundings()) == "proven"
    assert grade("oom-shared-counter", Surroundings(kernel_log=False)) == "likely"
    assert grade("oom-not-told", Surroundings()) == "likely"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_each_record_is_whole(fault: Fault) -> None:
    """Its part exists, its line fits the list, and when the job is being stopped nobody is called a failure."""
    from importlib import import_module

    module, _, function = fault.part.partition(":")
    assert callable(getattr(import_module(f"rankguard.testing.faults.parts.{module}"), function))
    assert 0 < len(fault.what) <= 46
    for at in fault.phases:
        expect = fault.expect(Cell(at=at))
        assert (expect.culprits is None) is (at == "stopping")
        assert (expect.outcome == "interrupted") is (at == "stopping")


def test_a_verdict_that_differs_is_seen() -> None:
    """Each of the checks can fail."""
    expect = Expect(
        "crash", 139, family="program", phase="ready", signal="SIGSEGV", evidence=("wait status",),
        also=(("it is Tuesday", lambda _verdict: False),),
    )  # fmt: skip
    verdict = {
        "outcome": "succeeded", "exit_code": 3, "either": [2], "teardown": {"survivors": [{"pid": 7}]},
        "culprit": {"rank": 0, "phase": "starting", "ending": {"signal": None, "code": 3},
                    "cause": {"kind": "exit-code", "family": "operator", "confidence": "likely", "evidence": []}},
        "ranks": [{"rank": 0, "relation": "culprit"}, {"rank": 1, "relation": "collateral"}],
    }  # fmt: skip

    told = list(checked(expect, verdict, 3, ["12 python"]))

    assert [what for right, what in told if right] == []
    assert len(told) == 15


def test_it_loads_no_more_than_it_needs() -> None:
    """A rank that wants to fail does not load the core, the driver or a launcher."""
    code = "import rankguard.testing.faults.actor as _, sys; print([m for m in sys.modules if 'rankguard.' in m])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "rankguard.core" not in loaded
    assert "rankguard.driver" not in loaded
    assert "rankguard.launchers" not in loaded
    assert faults.FAULTS is FAULTS


def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    example = page[page.index("```python\n") + len("```python\n") :]
    (tmp_path / "test_engine.py").write_text(example[: example.index("```")])

    words = ["-q", "-p", "no:cacheprovider", "-k", "all-ready", "--rootdir", str(tmp_path), str(tmp_path)]
    ran = subprocess.run([sys.executable, "-m", "pytest", *words], capture_output=True, text=True, timeout=120)

    assert "5 passed" in ran.stdout, ran.stdout + ran.stderr
