"""The whole verdict, for each outcome; and what becomes of each rank, what is advised, what is told."""

import hashlib

import pytest
from tests.diagnosis.cases import (
    GIB,
    START,
    alive,
    broken,
    by_code,
    by_signal,
    case,
    count,
    error,
    killed,
    looked,
    not_spawned,
    rank,
    reported,
    rss,
    spec,
    suspect,
)

from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.verdict import fingerprint, verdict
from rankguard.facts import FrontLost, StatusTold, StopRequested, TreeEmpty
from rankguard.model import (
    Attempt,
    Cause,
    Confidence,
    Culprit,
    Ending,
    Evidence,
    Family,
    Left,
    Memory,
    MemoryState,
    Moment,
    OrderBasis,
    Phase,
    Progress,
    RankOutcome,
    Retry,
    Sender,
    StoppedBy,
    Teardown,
    Verdict,
)

LIMIT = MemoryState(limit_bytes=100 * GIB, used_bytes=100 * GIB, limit_from="/sys/fs/cgroup/job/memory.max")


def oom_case():
    """8 ranks that pin 15 GiB each under a limit of 100: the kernel takes rank 5."""
    victim = suspect(
        5,
        by_signal(5, 9, at=14.2, oom=(count(path="/sys/fs/cgroup/memory/job/rank-5/memory.oom_control"),), oom_readable=True, log_tail=("allocating host cache: 15.0 GiB",)),
        phase=Phase.STARTING,
        memory=rss(14.9),
        status=StatusTold(START + 13.8, 5, "allocating host cache", 1.0, 2.0, "pools"),
    )  # fmt: skip
    others = [
        alive(n, phase=Phase.STARTING, memory=rss(14), signalled_at=START + 14.201, exited=by_signal(n, 15, at=14.22))
        for n in range(8)
        if n != 5
    ]
    return case(
        victim,
        *others,
        nprocs=8,
        expects_ready=True,
        failed_at=START + 14.2,
        stopped_at=START + 14.201,
        ended_at=START + 14.23,
        memory=LIMIT,
        tree=TreeEmpty(START + 14.24, (), (), (Left(kind="shm", path="/dev/shm/psm_1", bytes=4096),)),
        timeline=(Moment(at_s=14.2, what="rank 5 was ended by SIGKILL"),),
        warnings=("one line was lost",),
    )


def stopped(number):
    return RankOutcome(
        rank=number,
        name=None,
        node="host-a",
        pid=400 + number,
        relation="stopped",
        phase=Phase.STARTING,
        ending=Ending(kind="signal", signal="SIGTERM", number=15),
        cause=None,
        ready_after_s=None,
        ended_after_s=14.22,
        memory=rss(14),
        log_path=f"/runs/7f3a/rank-{number}/attempt-0/stderr.log",
    )


def test_the_whole_verdict_of_an_oom_kill() -> None:
    cause = Cause(
        kind="oom-kill",
        family=Family.MEMORY,
        confidence=Confidence.PROVEN,
        statement="rank 5 of 8 was killed by the kernel's OOM killer while starting",
        subject_pid=405,
        evidence=(
            Evidence(source="cgroup", statement="oom_kill of …/job/rank-5 rose from 0 to 1"),
            Evidence(source="wait status", statement="SIGKILL"),
        ),
    )
    killed_ = Ending(kind="signal", signal="SIGKILL", number=9)
    hint = "raise the memory limit from 100 GiB to more than about 130 GiB (8 × 14.9 GiB, and a tenth), or cap each rank's host memory at about 11 GiB"
    expected = Verdict(
        run_id="7f3a",
        command=("train.py",),
        outcome="failed",
        exit_code=137,
        statement=cause.statement,
        summary="rank 5 of 8 was killed by the kernel's OOM killer while starting [oom-kill, proven]\n"
        "14.2 s after launch, on host-a, pid 405, ended by SIGKILL, 0 of 8 ready\n"
        "cgroup: oom_kill of …/job/rank-5 rose from 0 to 1; wait status: SIGKILL\n"
        "stopped: 0-4, 6, 7\n"
        f"try: {hint}",
        fingerprint=hashlib.sha256(b"oom-kill\nstarting\n").hexdigest()[:16],
        owner="limits",
        retry=Retry(advice="no", because="the same memory limit would be met again"),
        started_at="2026-09-21T14:13:20.250000Z",
        ready_at=None,
        failed_at="2026-09-21T14:13:34.450000Z",
        ended_at="2026-09-21T14:13:34.480000Z",
        world_size=8,
        nodes=("host-a",),
        start="exec",
        labels={},
        culprit=Culprit(
            rank=5,
            name=None,
            role="default",
            local_rank=5,
            node="host-a",
            pid=405,
            phase=Phase.STARTING,
            was_ready=False,
            attempt=0,
            ending=killed_,
            cause=cause,
            at="2026-09-21T14:13:34.450000Z",
            elapsed_s=14.2,
            detected_in_ms=0.8,
            status="allocating host cache",
            progress=Progress(done=1.0, total=2.0, unit="pools"),
            memory=rss(14.9),
            traceback=None,
            stacks=None,
            log_tail=("allocating host cache: 15.0 GiB",),
            log_path="/runs/7f3a/rank-5/attempt-0/stderr.log",
        ),
        either=(),
        order=OrderBasis(basis="only suspect"),
        stopped_by=None,
        memory=LIMIT,
        ranks=(
            *(stopped(n) for n in range(5)),
            stopped(5).replace(relation="culprit", ending=killed_, cause=cause, ended_after_s=14.2, memory=rss(14.9)),
            *(stopped(n) for n in (6, 7)),
        ),
        attempts=(),
        teardown=Teardown(took_s=0.029, left=(Left(kind="shm", path="/dev/shm/psm_1", bytes=4096),)),
        hints=(hint,),
        warnings=("one line was lost",),
        timeline=(
            Moment(at_s=0.0, what="launched 8 ranks"),
            Moment(at_s=14.2, what="rank 5 was ended by SIGKILL"),
            Moment(at_s=14.201, what="told the ranks to end"),
            Moment(at_s=14.23, what="the last rank had ended"),
        ),
        rankguard="0.1.0",
    )

    actual = verdict(oom_case(), "0.1.0")

    assert actual.to_dict() == expected.to_dict()
    assert actual == expected


def test_early_and_final_agree() -> None:
    final = oom_case()
    running = tuple(r if r.suspect else r.replace(exited=None) for r in final.ranks)
    early = final.replace(ranks=running, ended_at=None, tree=None)
    early = early.replace(judged=choose(early))
    final = final.replace(judged=early.judged)

    first, last = verdict(early, "0.1.0"), verdict(final, "0.1.0")

    assert (first.ended_at, first.teardown) == (None, Teardown())
    assert {row.ending.kind for row in first.ranks if row.rank != 5} == {"alive"}
    assert (first.culprit, first.statement, first.exit_code) == (last.culprit, last.statement, last.exit_code)


def test_a_late_kernel_log_changes_cause_and_exit_status_together() -> None:
    victim = suspect(1, dying="exiting")
    early = case(victim, looked=looked((1, "exiting")))
    early = early.replace(judged=choose(early))
    late = suspect(1, by_signal(1, 9), dying="exiting", ooms=(killed(1, 401),))
    final = case(late, looked=early.looked, judged=early.judged)

    assert [(v.culprit.cause.kind, v.exit_code) for v in (verdict(early, ""), verdict(final, ""))] == [
        ("unknown", 1),
        ("oom-kill", 137),
    ]


# ── Relations ────────────────────────────────────────────────────────────────────────────────────────────────────

CULPRIT = suspect(0, by_signal(0, 9, oom_readable=True))
RELATIONS = {
    "peer's victim, suspect": (suspect(1, by_code(1, 1, peer_death="Broken pipe")), "collateral"),
    "peer's victim, before our signal": (
        rank(1, exited=by_code(1, 1, peer_death="Broken pipe"), failed_at=START + 10, signalled_at=START + 11),
        "collateral",
    ),
    "weaker": (suspect(1, by_code(1, 3)), "collateral"),
    "dying": (suspect(1, dying="exiting"), "collateral"),
    "as strong": (suspect(1, by_signal(1, 11)), "independent"),
    "stopped by our SIGTERM": (alive(1, exited=by_signal(1, 15, at=10.5)), "stopped"),
    "stopped, exit 0": (alive(1, exited=by_code(1, 0, at=10.5)), "stopped"),
    "stopped, exit 1": (alive(1, exited=by_code(1, 1, at=10.5, peer_death="Broken pipe")), "stopped"),
    "stopped, crashed on the way": (alive(1, exited=by_signal(1, 11, at=10.5)), "stopped"),
    "not ended yet": (alive(1), "stopped"),
    "finished before": (rank(1, exited=by_code(1, 0, at=5.0)), "finished"),
    "finished while dying": (rank(1, exited=by_code(1, 0, at=10.1), dying="exiting", signalled_at=START + 10.001), "finished"),
}  # fmt: skip


@pytest.mark.parametrize(("other", "relation"), RELATIONS.values(), ids=RELATIONS)
def test_relations(other, relation) -> None:
    found = verdict(case(CULPRIT, other), "")

    assert (found.culprit.rank, found.ranks[1].relation) == (0, relation)
    assert (found.ranks[1].cause is not None) is (relation in ("collateral", "independent"))


def test_a_victim_next_to_a_crash_is_collateral() -> None:
    crash = suspect(0, by_signal(0, 11))
    fellow = suspect(1, report=reported(1, error=error("RuntimeError", "x"), peer="Connection closed by peer"))

    assert verdict(case(crash, fellow), "").ranks[1].relation == "collateral"


def test_two_exceptions_are_independent() -> None:
    ranks = [suspect(n, report=reported(n, error=error("ValueError", "x"), raised=9.0 + n)) for n in (0, 1)]

    found = verdict(case(*ranks), "")

    assert [row.relation for row in found.ranks] == ["culprit", "independent", "stopped", "stopped"]
    assert found.order == OrderBasis(basis="raised first", gap_us=1_000_000)


# ── Outcomes ─────────────────────────────────────────────────────────────────────────────────────────────────────


def quiet(*ranks, **more):
    """A job in which nothing failed."""
    base = {"failed_at": None, "failed_by": None, "detected_in_s": None, "stopped_at": None}
    return case(*ranks, nprocs=len(ranks), **{**base, **more})


def test_success() -> None:
    done = quiet(
        *(rank(n, ready_at=START + 1 + n, exited=by_code(n, 0, at=20.0 + n), phase=Phase.READY) for n in (0, 1)),
        expects_ready=True,
        all_ready_at=START + 2,
        ended_at=START + 21,
    )

    found = verdict(done, "0.1.0")

    assert (found.outcome, found.exit_code, found.culprit, found.statement, found.fingerprint) == (
        "succeeded", 0, None, "all 2 ranks ended with exit code 0", None,
    )  # fmt: skip
    assert [row.relation for row in found.ranks] == ["finished", "finished"]
    assert found.ready_at == "2026-09-21T14:13:22.250000Z"
    assert [moment.what for moment in found.timeline] == [
        "launched 2 ranks", "all 2 ranks ready", "the last rank had ended",
    ]  # fmt: skip


def test_a_living_job_is_running() -> None:
    found = verdict(quiet(rank(0, ready_at=START + 1), rank(1), expects_ready=True), "")

    assert (found.outcome, found.exit_code, found.statement) == ("running", 0, "1 of 2 ranks ready")


def request(number=15, sender=None, **more):
    return StopRequested(START + 10, number, sender, **more)


INTERRUPTED = {
    "named": (request(sender=Sender(pid=812, uid=0, comm="slurmstepd")), (by_signal(0, 15),), 143,
              "stopped by SIGTERM from slurmstepd (pid 812)", StoppedBy("SIGTERM", 812, 0, "slurmstepd")),
    "a pid alone": (request(2, sender=Sender(pid=812)), (by_signal(0, 2),), 130, "stopped by SIGINT from pid 812", StoppedBy("SIGINT", 812)),
    "Ctrl-C": (request(2, sender=Sender()), (by_signal(0, 2),), 130, "stopped by SIGINT from the terminal", StoppedBy("SIGINT")),
    "from outside a container": (request(sender=Sender(uid=0)), (by_code(0, 0),), 0,
              "stopped by SIGTERM from a process that is not visible here (uid 0)", StoppedBy("SIGTERM", None, 0)),
    "nobody known": (request(1), (by_code(0, 0), by_code(1, 3)), 129, "stopped by SIGHUP", StoppedBy("SIGHUP")),
    "all ended cleanly": (request(), (by_code(0, 0), by_code(1, 0)), 0, "stopped by SIGTERM", StoppedBy("SIGTERM")),
    "not ended yet": (request(), (None,), 143, "stopped by SIGTERM", StoppedBy("SIGTERM")),
    "asked by the library": (request(by="the caller"), (by_code(0, 0),), 0, "stopped on request (the caller)", StoppedBy(None)),
}  # fmt: skip


@pytest.mark.parametrize(("stop", "endings", "code", "statement", "by"), INTERRUPTED.values(), ids=INTERRUPTED)
def test_interrupted(stop, endings, code, statement, by) -> None:
    ranks = [
        rank(n, exited=end and end.replace(at=START + 11), signalled_at=START + 10) for n, end in enumerate(endings)
    ]

    found = verdict(quiet(*ranks, stop=stop, stopped_at=START + 10), "")

    assert (found.outcome, found.exit_code, found.statement, found.stopped_by) == ("interrupted", code, statement, by)
    assert found.culprit is None
    assert {row.relation for row in found.ranks} == {"stopped"}


@pytest.mark.parametrize(
    ("after", "stop", "said"),
    [
        (30.2, request(), "stopped by SIGTERM; 1 of 2 ranks had not ended 30 s later and was killed"),
        (2.1, request(grace=2.0), "stopped by SIGTERM; 1 of 2 ranks had not ended 2 s later and was killed"),
        (2.1, request(2), "stopped by SIGINT; 1 of 2 ranks was killed at once, as asked"),
    ],
)
def test_who_took_longer_than_it_was_given(after, stop, said) -> None:
    slow = by_signal(0, 9).replace(at=START + 10 + after)
    ranks = [
        rank(0, exited=slow, signalled_at=START + 10, killed_by_us=True),
        rank(1, exited=by_code(1, 0).replace(at=START + 11), signalled_at=START + 10),
    ]

    found = verdict(quiet(*ranks, stop=stop, stopped_at=START + 10), "")

    assert (found.outcome, found.statement) == ("interrupted", said)


def test_a_request_before_a_failure_is_an_interruption() -> None:
    found = verdict(case(CULPRIT, stop=request().replace(at=START + 9)), "")

    assert found.outcome == "interrupted"


def test_the_front_was_lost() -> None:
    found = verdict(case(lost=FrontLost(START + 10, 77), failed_by="front-lost"), "")

    assert (found.culprit.rank, found.culprit.pid, found.culprit.ending, found.exit_code) == (
        None,
        77,
        Ending("exit"),
        125,
    )
    assert (found.owner, found.retry.advice, found.culprit.cause.kind) == ("rankguard", "yes", "supervisor-lost")


def test_adopted_processes() -> None:
    watched = case(
        suspect(1, by_code(1, 1), name="detokenizer"),
        spec_more={"adopted": True, "names": ("scheduler", "detokenizer", None, None), "start": "adopted"},
        stopped_at=None,
    )

    found = verdict(watched, "")

    assert found.statement == "process detokenizer ended with exit code 1 while running"
    assert [row.name for row in found.ranks] == ["scheduler", "detokenizer", None, None]
    assert (found.culprit.name, found.culprit.local_rank, found.culprit.log_path) == ("detokenizer", None, None)
    assert found.timeline[0].what == "watching 4 processes"


# ── Advice ───────────────────────────────────────────────────────────────────────────────────────────────────────

ADVICE = {
    "oom of one rank": (
        case(suspect(0, by_signal(0, 9, oom=(count(),))), nprocs=1, memory=LIMIT),
        "limits", "no", "raise the memory limit from 100 GiB, or let the rank hold less than about 91 GiB",
    ),
    "oom of the whole machine": (
        case(suspect(1, by_signal(1, 9), ooms=(killed(1, 401, whole=True),))),
        "limits", "elsewhere", "the machine as a whole ran out of memory",
    ),
    "cuda-oom": (
        case(suspect(1, report=reported(1, error=error("OutOfMemoryError", "CUDA out of memory.")))),
        "limits", "no", "lower the batch size",
    ),
    "killed": (case(CULPRIT), "outside", "yes", "ask who sent SIGKILL"),
    "killed, unproven": (case(suspect(1, by_signal(1, 9))), "outside", "yes", "an OOM kill is not ruled out"),
    "bus error": (case(suspect(1, by_signal(1, 7))), "program", "unknown", "SIGBUS often means that /dev/shm is full"),
    "crash": (case(suspect(1, by_signal(1, 11))), "program", "unknown", "ulimit -c unlimited"),
    "not found": (case(suspect(1, not_spawned=not_spawned(1, 2))), "program", "no", "check that `/usr/bin/python3` exists"),
    "not executable": (case(suspect(1, not_spawned=not_spawned(1, 13))), "program", "no", "chmod +x"),
    "no directory": (case(suspect(1, not_spawned=not_spawned(1, 2, "chdir"))), "program", "no", "`/work`"),
    "too many files": (case(suspect(1, not_spawned=not_spawned(1, 24, "fork"))), "limits", "elsewhere", "now 1024"),
    "exit 139": (case(suspect(1, by_code(1, 139))), "program", "unknown", "128 + 11: a process inside the rank was ended by SIGSEGV"),
    "before ready": (case(suspect(1, by_code(1, 0)), expects_ready=True), "program", "unknown", "this_rank().ready()"),
    "ready-timeout": (
        case(rank(1, late=True, suspect=True), failed_by="ready-timeout", spec_more={"ready_timeout": 10.0}),
        "program", "unknown", "raise --ready-timeout above 10 s",
    ),
    "disk": (case(suspect(1, report=reported(1, error=error("OSError", "[Errno 28] No space left on device", ())))), "machine", "elsewhere", "df -h"),
    "gpu": (case(suspect(1, report=reported(1, error=error("RuntimeError", "CUDA error: uncorrectable ECC")))), "machine", "elsewhere", "Xid"),
    "a victim only": (case(suspect(1, by_code(1, 1, peer_death="Broken pipe"))), None, "unknown", "look for the peer"),
    "either": (case(suspect(0, by_signal(0, 11)), suspect(1, by_signal(1, 11))), "program", "unknown", "read the log of rank 1 too: it may"),
    "protocol": (case(suspect(1, broken=broken(1))), "program", "unknown", ""),
}  # fmt: skip


@pytest.mark.parametrize(("whole", "owner", "retry", "hint"), ADVICE.values(), ids=ADVICE)
def test_advice(whole, owner, retry, hint) -> None:
    found = verdict(whole, "")

    assert (found.owner, found.retry.advice) == (owner, retry)
    assert hint in "\n".join(found.hints)


def test_a_hint_needs_a_reason() -> None:
    assert verdict(case(suspect(1, by_code(1, 3))), "").hints == ()


# ── Fingerprint ──────────────────────────────────────────────────────────────────────────────────────────────────


def raised(*frames, type_name="ValueError", message="x"):
    failed = suspect(1, report=reported(1, error=error(type_name, message, frames=frames)))
    return verdict(case(failed), "").fingerprint


def test_what_has_failed_three_times_alike_is_not_to_be_tried_again() -> None:
    failed = suspect(1, report=reported(1, error=error("ValueError", "no")))
    print_ = verdict(case(failed), "").fingerprint

    def advice(*before: str | None) -> tuple[str, str]:
        attempts = tuple(
            Attempt(attempt=number, cause="exception", fingerprint=each, lasted_s=1.0)
            for number, each in enumerate(before)
        )
        told = verdict(case(failed, attempts=attempts), "").retry
        return told.advice, told.because

    assert advice()[0] == advice(print_)[0] == advice(print_, print_, "another")[0] == "unknown"
    assert advice(print_, print_) == ("no", "all 3 attempts failed alike")
    assert advice("another", print_, print_) == ("no", "the last 3 attempts failed alike")
    oom = oom_case()
    same = Attempt(attempt=0, cause="oom-kill", fingerprint=verdict(oom, "").fingerprint, lasted_s=1.0)
    assert verdict(oom.replace(attempts=(same, same)), "").retry.because == "the same memory limit would be met again"


def test_fingerprints() -> None:
    base = raised("/a/run.py:1 main", "/a/train.py:12 loop", "/a/model.py:7 step")

    assert base == raised("/b/c/run.py:9 main", "/b/c/train.py:99 loop", "/b/c/model.py:8 step", message="y")
    assert base == raised(
        "/a/run.py:1 main", "/a/train.py:12 loop", "/a/model.py:7 step", "/v/site-packages/torch/x.py:3 f"
    )
    assert base != raised("/a/run.py:1 main", "/a/train.py:12 loop", "/a/model.py:7 other")
    assert base != raised("/a/run.py:1 main", "/a/train.py:12 loop", "/a/model.py:7 step", type_name="KeyError")
    assert len(base) == 16


def test_the_phase_counts_and_launching_is_starting() -> None:
    cause = verdict(case(CULPRIT), "").culprit.cause

    assert fingerprint(Phase.LAUNCHING, cause) == fingerprint(Phase.STARTING, cause) != fingerprint(Phase.READY, cause)


def test_the_summary_has_five_lines_at_most() -> None:
    found = verdict(oom_case(), "")

    assert len(found.summary.splitlines()) <= 5
    assert max(map(len, found.summary.splitlines())) <= 200


def test_progress_and_memory_that_are_unknown_are_null() -> None:
    found = verdict(case(CULPRIT), "")

    assert (found.culprit.progress, found.memory, found.culprit.memory) == (None, None, Memory())
    assert found.attempts == ()
    assert spec().labels == {}
    assert Attempt  # made by restarts, which the case does not know yet
