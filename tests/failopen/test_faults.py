"""A fault in every handler of the supervisor: the engine ends by itself, with its own status, and what failed is told.

Each runs a real engine under `watch` and makes one function of ours raise from its first or second call on (`faulty.py`).
`DROPPED` are parts that the rest goes on without; after a fault in what is `NEEDED`, or in a cell of the core, front and
warden keep the engine. What is met before the engine is there lets it start without being watched.
"""

import os
import signal
import sys
from pathlib import Path

import pytest
from tests.failopen.faulty import name_of
from tests.failopen.kept import Engine, whole

from rankguard.core.machine import JOB_TABLE, RANK_TABLE

FAULTY = str(Path(__file__).with_name("faulty.py"))
DROPPED = {
    "rankguard.supervisor.attempt:LiveAttempt._record": "the journal",
    "rankguard.supervisor.samples:Samples.wake": "memory samples",
    "rankguard.supervisor.samples:Samples.next_wake": "memory samples",
    "rankguard.supervisor.samples:Samples.remember": "memory samples",
    "rankguard.supervisor.onscreen:OnScreen.wake": "the live view",
    "rankguard.supervisor.onscreen:OnScreen.listen": "the live view",
    "rankguard.supervisor.rehearsal:Rehearsal.wake": "rehearsal",
    "rankguard.supervisor.survey:Survey.judged": "the look round at a failure",
    "rankguard.report.output:Output.feed": "output line by line",
    "rankguard.report.output:Output.wake": "output line by line",
    "rankguard.report.output:Output.tail": "output line by line",
    "rankguard.supervisor.desk:Desk.listen": "news to the front",
    "rankguard.supervisor.desk:Desk.known": "news to the front",
    "rankguard.launchers.treewatch:TreeWatch.__init__": "the watch of the tree",
    "rankguard.launchers.treewatch:TreeWatch.wake": "the watch of the tree",
    "rankguard.launchers.treewatch:TreeWatch.settle": "the watch of the tree",
    "rankguard.launchers.treewatch:TreeWatch._consider": "the watch of the tree",
    "rankguard.launchers.treewatch:TreeWatch._on_end": "the watch of the tree",
    "rankguard.linux.roster:Roster._on_pidfd": "the watch of the tree",
    "rankguard.launchers.mailbox:Mailbox.take": "sd_notify",
}
NEEDED = (
    "rankguard.driver:Driver._handle",
    "rankguard.driver:Driver._carry_out",
    "rankguard.driver:Driver._timeout",
    "rankguard.driver:Driver._check_tree",
    "rankguard.core.machine:step",
    "rankguard.launchers.exec:ExecRanks.spawn",
    "rankguard.launchers.exec:ExecRanks._prepare",
    "rankguard.launchers.exec:ExecRanks._watch",
    "rankguard.launchers.exec:ExecRanks._on_news",
    "rankguard.launchers.exec:ExecRanks._on_output",
    "rankguard.launchers.exec:ExecRanks._on_pidfd",
    "rankguard.launchers.exec:ExecRanks._on_exit",
    "rankguard.launchers.exec:ExecRanks._on_notify",
    "rankguard.launchers.exec:ExecRanks.look",
    "rankguard.launchers.exec:ExecRanks.reap",
    "rankguard.launchers.exec:ExecRanks.wake",
    "rankguard.launchers.exec:ExecRanks.settle",
    "rankguard.launchers.exec:ExecRanks.close",
    "rankguard.supervisor.attempt:LiveAttempt.__init__",
    "rankguard.supervisor.attempt:LiveAttempt.idle",
    "rankguard.supervisor.attempt:LiveAttempt.on_child",
    "rankguard.supervisor.attempt:verdict",
    "rankguard.supervisor.backpressure:Backpressure.wake",
    "rankguard.supervisor.desk:Desk.on_message",
    "rankguard.supervisor.keeping:Keeping.__init__",
    "rankguard.supervisor.keeping:Keeping.hold",
    "rankguard.supervisor.keeping:Keeping.ended",
    "rankguard.supervisor.main:Supervisor.__init__",
    "rankguard.supervisor.main:Supervisor._on_message",
    "rankguard.supervisor.main:Supervisor._on_signals",
    "rankguard.supervisor.main:Supervisor.run",
    "rankguard.supervisor.tree:JobTree.empty",
    "rankguard.supervisor.tree:JobTree.left",
    "rankguard.supervisor.tree:JobTree.note",
    "rankguard.supervisor.tree:JobTree.reap_strays",
    "rankguard.supervisor.tree:JobTree.sweep",
    "rankguard.linux.cgroup:JobGroups.create",
    "rankguard.linux.kmsg:KernelLog.__init__",
    "rankguard.linux.memory:MemoryDomain.__init__",
    "rankguard.linux.notify:NotifySocket.drain",
    "rankguard.linux.spawn:spawn",
    "rankguard.report.files:RunFiles.__init__",
    "rankguard.report.files:RunFiles.append",
    "rankguard.report.files:RunFiles.finish",
    "rankguard.wire:Wire.receive",
)
ONCE = frozenset(
    {
        "rankguard.launchers.exec:ExecRanks.spawn",
        "rankguard.supervisor.main:Supervisor.run",
        "rankguard.supervisor.attempt:verdict",
        "rankguard.linux.spawn:spawn",
        "rankguard.supervisor.keeping:Keeping.hold",
        "rankguard.report.files:RunFiles.finish",
        "rankguard.supervisor.tree:JobTree.left",
    }
)
"""And all that makes something: called a second time in no run."""
CELLS = sorted(
    {
        name_of(cell)
        for table in (RANK_TABLE, JOB_TABLE)
        for row in table.values()
        for cell in row.values()
        if callable(cell)
    }
)
MET = frozenset(
    {
        "jobs.started",
        "ranks.spawned",
        "ranks.told_status",
        "ranks.ready",
        "members.joined",
        "members.perished",
        "jobs.signal_passed",
        "jobs.signalled",
        "jobs.looked",
        "ranks.exited",
        "ranks.reaped",
        "ranks.output_closed",
        "jobs.judged",
        "jobs.tree_empty",
    }
)
"""Cells that the course of `watched` comes to."""
AT_THE_END = frozenset(
    {
        "rankguard.supervisor.samples:Samples.remember",
        "rankguard.supervisor.survey:Survey.judged",
        "rankguard.report.output:Output.tail",
        "rankguard.launchers.treewatch:TreeWatch.settle",
        "rankguard.launchers.treewatch:TreeWatch._on_end",
        "rankguard.linux.roster:Roster._on_pidfd",
        "rankguard.driver:Driver._check_tree",
        "rankguard.launchers.exec:ExecRanks._on_pidfd",
        "rankguard.launchers.exec:ExecRanks._on_exit",
        "rankguard.launchers.exec:ExecRanks.look",
        "rankguard.launchers.exec:ExecRanks.reap",
        "rankguard.launchers.exec:ExecRanks.settle",
        "rankguard.launchers.exec:ExecRanks.close",
        "rankguard.supervisor.attempt:LiveAttempt.on_child",
        "rankguard.supervisor.attempt:verdict",
        "rankguard.supervisor.keeping:Keeping.ended",
        "rankguard.supervisor.main:Supervisor._on_signals",
        "rankguard.supervisor.tree:JobTree.empty",
        "rankguard.supervisor.tree:JobTree.left",
        "rankguard.supervisor.tree:JobTree.reap_strays",
        "rankguard.supervisor.tree:JobTree.sweep",
        "rankguard.report.files:RunFiles.finish",
        *(f"cell:{name}" for name in ("jobs.tree_empty", "members.perished", "ranks.output_closed", "ranks.reaped")),
    }
)
"""What is met when the engine ends, and its processes are known by then; all else is met while it runs."""


def watched(where: str, number: int, *, surely: bool) -> tuple[int, str, str, dict[str, object], bool]:
    """An engine with that fault, from its start to its own end: status, stdout, stderr, verdict, whether it was met.

    `surely`: it does not end before it was met, or all is there for that.
    """
    with Engine() as engine:
        launcher = [sys.executable, FAULTY, where, str(number), engine.top, "watch"]
        engine.watch("--rank-pattern", "^worker-", launcher=launcher).up()
        os.kill(engine.front.pid, signal.SIGUSR1)
        if not surely:
            engine.while_it_runs(0.15)  # for a sample, and a look at the tree: what did not happen by then is not met
        elif where in AT_THE_END:
            engine.until_journal('"name": "worker-0')
        else:
            engine.until_there(f"{engine.top}/met")
        engine.let_end()
        status, out, err = engine.result()
        assert engine.traces() == []
        return status, out, err, engine.verdict(), Path(engine.top, "met").exists()


def lives_on(where: str, number: int = 1, *, surely: bool = False) -> tuple[dict[str, object], bool]:
    """Its verdict, which tells of the engine's own end, and whether the fault was met."""
    status, out, err, told, met = watched(where, number, surely=surely)
    assert (status, whole(out), told["outcome"], told["exit_code"]) == (7, True, "failed", 7), err
    said = [line for line in err.splitlines() if line.startswith("rankguard: warning") and where in line]
    assert bool(said) == met, err
    assert any(where in warning for warning in told["warnings"]) == met
    assert (told["degraded"] > 0) == met
    return told, met


FEW = ("rankguard.supervisor.samples:Samples.wake", "rankguard.launchers.treewatch:TreeWatch.wake")


@pytest.mark.parametrize(
    "where", [where if where in FEW else pytest.param(where, marks=pytest.mark.slow) for where in DROPPED]
)
def test_a_part_is_dropped_and_the_rest_goes_on(where):
    told, met = lives_on(where, surely=True)

    assert met
    assert told["culprit"]["cause"]["kind"] == "exit-code"
    assert f"{DROPPED[where]} failed and is switched off" in " ".join(told["warnings"])
    assert "the supervisor failed" not in " ".join(told["warnings"])


FEW_NEEDED = ("rankguard.core.machine:step", "rankguard.launchers.exec:ExecRanks._on_output")


@pytest.mark.parametrize(
    "where", [where if where in FEW_NEEDED else pytest.param(where, marks=pytest.mark.slow) for where in NEEDED]
)
def test_the_engine_is_kept_after_a_fault_in_what_is_needed(where):
    told, met = lives_on(where, surely=True)

    assert met
    assert "the supervisor failed" in " ".join(told["warnings"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "where", [where for where in (*DROPPED, *NEEDED) if "__init__" not in where and where not in ONCE]
)
def test_a_fault_at_the_second_call(where):
    lives_on(where, 2)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_a_fault_in_a_cell_of_the_core(cell):
    _told, met = lives_on(f"cell:{cell}", surely=cell in MET)

    assert met or cell not in MET


@pytest.mark.slow
@pytest.mark.parametrize(
    "where",
    [
        "cell:jobs.stop_requested",
        "cell:ranks.exited_while_stopping",
        "rankguard.supervisor.desk:Desk.on_message",
        "rankguard.launchers.exec:ExecRanks.signal_all",
        "rankguard.driver:Driver._due",
        "rankguard.supervisor.main:Supervisor._on_message",
    ],
)
def test_a_request_to_end_is_heard_in_spite_of_a_fault(where):
    with Engine() as engine:
        engine.watch(launcher=[sys.executable, FAULTY, where, "1", engine.top, "watch"]).up()
        engine.front.terminate()

        status, out, err = engine.result()

        assert (status, out.splitlines()[-1]) == (143, "told to end"), err
        assert engine.verdict()["outcome"] == "interrupted"


PROBES = (
    "rankguard.linux.nearask:NearAsk._on_connected",
    "rankguard.linux.nearask:NearAsk.__init__",
    "rankguard.linux.asking:Asking.wake",
    "rankguard.linux.filelook:FileLook.wake",
    "rankguard.supervisor.readiness:Readiness.wake",
    "rankguard.supervisor.readiness:Readiness.next_wake",
)


@pytest.mark.parametrize(
    "where", [where if where in PROBES[:1] else pytest.param(where, marks=pytest.mark.slow) for where in PROBES]
)
def test_no_engine_is_ended_because_a_probe_of_ours_failed(where):
    with Engine() as engine:
        launcher = [sys.executable, FAULTY, where, "1", engine.top, "watch"]
        engine.watch(
            "--ready-tcp", "127.0.0.1:9", "--ready-file", "never", "--ready-timeout", "1", launcher=launcher
        ).up()
        engine.until_there(f"{engine.top}/met")
        engine.while_it_runs(2.0)  # half a second is what an examination takes, then it would be told to end
        engine.let_end()
        status, _out, err = engine.result()

        assert (status, Path(engine.top, "met").exists()) == (7, True), err
        assert "the look at readiness failed and is switched off" in " ".join(map(str, engine.verdict()["warnings"]))


def test_under_end_a_fault_ends_all():
    with Engine() as engine:
        where = "rankguard.supervisor.samples:Samples.wake"
        engine.watch("--on-lost", "end", launcher=[sys.executable, FAULTY, where, "2", engine.top, "watch"])

        status, _out, err = engine.result()

        assert (status, engine.verdict()["culprit"]["cause"]["kind"]) == (125, "bug"), err
        assert not Path(engine.folder, "ended").exists()
