"""Two or three faults at random instants in 2 to 16 ranks: what must hold whatever comes of them.

First under the real driver with ranks that follow a script, many times; then with real processes, a few times
(`EXAMPLES=100 make test ARGS="-k several"` looks further, and elsewhere each time). What holds:

- there is a verdict, it keeps to the schema, and the journal leads to it again;
- after a failure the exit status is not 0;
- the culprit is a rank that had a fault; with none of them named, `unknown` is said aloud;
- a rank whose own failure had begun before our first signal is culprit, collateral or independent, or among `either`,
  never `stopped`: had begun means that the driver saw its end or saw it dying or had its report (scripted and real),
  and, by its own clock, that it began 20 ms before the driver looked and its ending is one that we never give (real);
- a rank without a fault is stopped;
- nothing is left, and it takes no longer than the instants, the grace and the bound for suspects together.
"""

import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.matrix.always import SAME, always
from tests.matrix.several import WAYS

from rankguard.core import story
from rankguard.diagnosis.verdict import verdict as verdict_of
from rankguard.facts import Exited, FailureReported, Looked, Ready, StopRequested
from rankguard.linux import tree
from rankguard.linux.hierarchies import below, own_groups
from rankguard.model import Ending, ExceptionInfo, Report
from rankguard.orders import SignalAll
from rankguard.testing import Script, ScriptedRun
from rankguard.testing.player import new_spec

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
FAILED = ("culprit", "collateral", "independent")
LOOK_S = 0.02
"""A rank that began so long before we looked, and was not kept from the processor, is seen to be dying."""

EXIT_1, KILLED = Ending("exit", code=1), Ending("signal", signal="SIGKILL", number=9)
ENDINGS = {
    "exits": Ending("exit", code=3),
    "killed": KILLED,
    "crashes": Ending("signal", signal="SIGSEGV", number=11),
    "aborts": Ending("signal", signal="SIGABRT", number=6),
    "raises": EXIT_1,
    "loses_its_peer": EXIT_1,
}
RAISED = {
    "raises": ExceptionInfo("ValueError", "shard 7 is short"),
    "loses_its_peer": ExceptionInfo("ConnectionResetError", "[Errno 104] Connection reset by peer"),
}
PEER = {"loses_its_peer": "Connection reset by peer"}
INSTANTS = st.integers(0, 60).map(lambda ms: ms / 1000)


@st.composite
def plans(draw, ranks):
    """(number of ranks, whether they are ready, rank → (seconds, way))."""
    n = draw(ranks)
    chosen = draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=min(3, n), unique=True))
    ways = st.sampled_from(sorted(WAYS))
    return n, draw(st.booleans()), {rank: (draw(INSTANTS), draw(ways)) for rank in chosen}


# ── Scripted ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def scripts(draw, plan):
    n, ready, faults = plan
    said = ((0.001, Ready),) if ready else ()
    told = {rank: Script(says=said, answers=draw(st.sampled_from([0.001, 0.3]))) for rank in range(n)}
    for rank, (after, way) in faults.items():
        at = 0.002 + after
        lingers = draw(st.sampled_from([0.0, 0.004, 0.5]))
        report = None
        if way in RAISED:
            report = Report("exception", RAISED[way].message, RAISED[way])
        elif way == "says":
            report = Report("failed", "no route to rank 0")
        says = said if report is None else (*said, (at, _says(report, PEER.get(way))))
        ends = (at + lingers, ENDINGS[way]) if way in ENDINGS else None
        exiting = lingers if report is None else draw(st.sampled_from([0.0, lingers]))
        told[rank] = told[rank].replace(says=says, ends=ends, exiting=exiting)
    return told


def _says(report, peer_death):
    return lambda at, rank: FailureReported(at, rank, report, peer_death)


@settings(max_examples=EXAMPLES or 150, deadline=None, derandomize=not EXAMPLES, database=None)
@given(st.data(), plans(st.integers(2, 16)), st.sampled_from([None, None, None, 0.03]))
def test_several_scripted(data, plan, stopped_at):
    n, ready, faults = plan
    outside = [(stopped_at, lambda at: StopRequested(at, 15))] if stopped_at else []
    spec = new_spec(n).replace(expect_ready=ready, grace=1.0, shutdown_timeout=1.0)
    run = ScriptedRun(spec, data.draw(scripts(plan)), outside)

    steps = run.until_finished()

    told = json.loads(json.dumps(verdict_of(run.job.case(), "0").to_dict()))
    text = story.first_line(spec) + "".join(story.lines(fact, orders) for fact, orders in steps)
    again, _steps = story.replay(io.StringIO(text))
    same = json.loads(json.dumps(verdict_of(again.case(), "0").to_dict()))
    assert {key: same[key] for key in SAME} == {key: told[key] for key in SAME}
    holds(told, faults, seen_failing(steps), told["exit_code"])
    assert run.ranks.empty()
    assert run.clock() < 0.1 + 0.5 + 1.0 + 1.0  # instants, lingering, suspects, grace


# ── Real ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=EXAMPLES or 4, deadline=None, derandomize=not EXAMPLES, database=None)
@given(plans(st.sampled_from([2, 3, 4, 16])))
def test_several_real(plan):
    n, ready, faults = plan
    before = set(tree.alive())
    folder = tempfile.mkdtemp(prefix="s", dir="/tmp")  # sockets need a short path
    try:
        status = run_for_real(n, ready, faults, folder)

        run_dir = Path(folder, "run")
        told = json.loads((run_dir / "verdict.json").read_text())
        assert [what for right, what in always(run_dir, told, status) if not right] == []
        with open(run_dir / "events.jsonl") as journal:
            _job, steps = story.replay(journal)
        holds(told, faults, seen_failing(steps) | known_by_their_clock(steps, told, faults, folder), status)
        assert set(tree.alive()) - before == set()
        assert control_groups(told["run_id"]) == set()
        assert [name for name in os.listdir("/dev/shm") if told["run_id"] in name] == []
        assert os.listdir(f"{folder}/tmp") == []
    finally:
        shutil.rmtree(folder)


def run_for_real(n, ready, faults, folder):
    """The command's exit status; a minute is the bound for a hang."""
    os.mkdir(f"{folder}/tmp")
    os.mkfifo(f"{folder}/here")
    plan = json.dumps({"ready": ready, "faults": faults})
    options = ["-n", str(n), "--run-dir", f"{folder}/run", "--grace", "5", "--ready-timeout", "60"]
    command = [sys.executable, "-m", "rankguard", "run", *(options if ready else options[:-2])]
    with open(f"{folder}/gate", "w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        here = os.open(f"{folder}/here", os.O_RDWR)
        front = subprocess.Popen(
            [*command, str(Path(__file__).with_name("several.py")), folder, plan],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=dict(os.environ) | {"TMPDIR": f"{folder}/tmp", "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        try:
            came = 0
            while came < n:
                came += len(os.read(here, n))
            fcntl.flock(gate, fcntl.LOCK_UN)
            return front.wait(60)
        finally:
            os.close(here)
            front.kill()
            front.wait()


def known_by_their_clock(steps, told, faults, folder):
    """Ranks that had begun to fail well before the driver looked, with an ending that is their own."""
    looked = next((fact.at for fact, _orders in steps if isinstance(fact, Looked)), None)
    known = set()
    for rank, (_at, way) in faults.items():
        began = Path(folder, f"began-{rank}")
        ending = told["ranks"][rank]["ending"]
        own = way in ENDINGS and way != "killed" and is_own(ending, ENDINGS[way])
        if looked is not None and began.exists() and own and float(began.read_text()) + LOOK_S < looked:
            known.add(rank)
    return known


def is_own(ending, expected):
    return (ending["kind"], ending.get("code"), ending.get("signal")) == (expected.kind, expected.code, expected.signal)


def control_groups(run_id):
    """Of a run, below our own."""
    return {path for group in own_groups().values() for path in below(group.path) if f"/rankguard-{run_id}" in path}


# ── What holds ───────────────────────────────────────────────────────────────────────────────────────────────────────


def seen_failing(steps):
    """Ranks whose failure the driver knew of before it signalled anybody: their end, their dying, their report."""
    seen = set()
    for fact, orders in steps:
        if (isinstance(fact, Exited) and fact.ending.code != 0) or isinstance(fact, FailureReported):
            seen.add(fact.rank)
        elif isinstance(fact, Looked):
            seen |= {rank for rank, _how in fact.dying}
        elif isinstance(fact, StopRequested):
            return set()  # asked from outside: nobody is a failure
        if any(isinstance(order, SignalAll) and order.signal in (15, 9) for order in orders):
            break
    return seen


def holds(told, faults, seen, status):
    rows = {row["rank"]: row for row in told["ranks"]}
    if told["outcome"] == "interrupted":
        assert told["culprit"] is None
        assert {row["relation"] for row in rows.values()} <= {"stopped", "finished"}
        return
    assert (told["outcome"], status != 0, told["exit_code"]) == ("failed", True, status)
    culprit = told["culprit"]["rank"]
    assert culprit in faults or (culprit is None and "unknown" in told["statement"]), told["statement"]
    assert set(told["either"]) <= set(faults)
    for rank in seen:
        assert rows[rank]["relation"] in FAILED or rank in told["either"], (rank, rows[rank])
    for rank in set(rows) - set(faults):
        assert rows[rank]["relation"] == "stopped", rows[rank]
