"""Every kind: what it takes, how sure it is, what it says. Whole causes are compared where the words matter."""

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
    suspect,
)

from rankguard.diagnosis.causes import cause_of
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.kinds import FAMILIES
from rankguard.facts import FrontLost, NodeJoined, NodeLost, StatusTold
from rankguard.jobspec import NodesPlan
from rankguard.model import Cause, Confidence, Ending, Evidence, Family, Phase, Responsible

PROVEN, LIKELY, UNKNOWN = Confidence.PROVEN, Confidence.LIKELY, Confidence.UNKNOWN
SHARED = count(shared=True, path="/sys/fs/cgroup/memory/docker/abc/memory.oom_control")
TRACEBACK = (
    "Traceback (most recent call last):",
    '  File "/app/train.py", line 12, in main',
    "    step()",
    '  File "/app/model.py", line 7, in step',
    "ValueError: bad batch",
)


def brief(found):
    return found.kind, found.confidence


def ev(*pairs):
    return tuple(Evidence(source=source, statement=statement) for source, statement in pairs)


# ── The OOM killer ───────────────────────────────────────────────────────────────────────────────────────────────


def test_oom_by_its_own_group_and_the_kernel_log() -> None:
    victim = suspect(
        1,
        by_signal(1, 9, oom=(count(),), oom_readable=True),
        phase=Phase.STARTING,
        ooms=(killed(1, 401, rss=15 * GIB),),
    )

    expected = Cause(
        kind="oom-kill",
        family=Family.MEMORY,
        confidence=PROVEN,
        statement="rank 1 of 4 was killed by the kernel's OOM killer while starting",
        subject_pid=401,
        evidence=ev(
            ("kernel log", "Killed process 401 (python3), anon-rss:15728640kB"),
            ("cgroup", "oom_kill of …/job/rank-1 rose from 0 to 1"),
            ("wait status", "SIGKILL"),
        ),
    )

    assert cause_of(case(victim), victim) == expected


OOM = {
    "own group": (suspect(1, by_signal(1, 9, oom=(count(),))), {}, ("oom-kill", PROVEN)),
    "kernel log alone": (suspect(1, by_signal(1, 9), ooms=(killed(1, 401),)), {}, ("oom-kill", PROVEN)),
    "kernel log before the exit": (suspect(1, dying="exiting", ooms=(killed(1, 401),)), {}, ("oom-kill", PROVEN)),
    "shared counter": (suspect(1, by_signal(1, 9, oom=(SHARED,))), {}, ("oom-kill", LIKELY)),
    "shared counter, explained by a stranger": (
        suspect(1, by_signal(1, 9, oom=(SHARED,), oom_readable=True)),
        {"other_ooms": (killed(None, 77),)},
        ("killed", LIKELY),
    ),
    "shared counter, one more than strangers": (
        suspect(1, by_signal(1, 9, oom=(SHARED.replace(after=2),))),
        {"other_ooms": (killed(None, 77),)},
        ("oom-kill", LIKELY),
    ),
    "counters stood still": (suspect(1, by_signal(1, 9, oom_readable=True)), {}, ("killed", PROVEN)),
    "a counter that did not rise": (
        suspect(1, by_signal(1, 9, oom=(count(3, 3),), oom_readable=True)),
        {},
        ("killed", PROVEN),
    ),
    "no counter to read": (suspect(1, by_signal(1, 9)), {}, ("killed", LIKELY)),
    "a stranger's kill, counters stood still": (
        suspect(1, by_signal(1, 9, oom_readable=True)),
        {"other_ooms": (killed(None, 77),)},
        ("killed", PROVEN),
    ),
    "own group's kill was its child's": (
        suspect(1, by_signal(1, 9, oom=(count(),), oom_readable=True), ooms=(killed(1, 77, child=True),)),
        {},
        ("killed", LIKELY),
    ),
    "own group, the child and then itself": (
        suspect(1, by_signal(1, 9, oom=(count(0, 2),)), ooms=(killed(1, 77, child=True),)),
        {},
        ("oom-kill", PROVEN),
    ),
    "a SIGTERM is none": (suspect(1, by_signal(1, 15, oom=(SHARED,))), {}, ("killed", PROVEN)),
    "a segfault is none": (suspect(1, by_signal(1, 11, oom=(count(),))), {}, ("crash", PROVEN)),
    "our SIGKILL is none": (
        suspect(1, by_signal(1, 9, at=11.0, oom=(SHARED,)), signalled_at=START + 10.5, killed_by_us=True),
        {},
        ("unknown", UNKNOWN),
    ),
    "our SIGKILL met one that the kernel had killed": (
        suspect(1, by_signal(1, 9, at=11.0), signalled_at=START + 10.5, killed_by_us=True, ooms=(killed(1, 401),)),
        {},
        ("oom-kill", PROVEN),
    ),
}


@pytest.mark.parametrize(("victim", "more", "expected"), OOM.values(), ids=OOM)
def test_oom_or_not(victim, more, expected) -> None:
    assert brief(cause_of(case(victim, **more), victim)) == expected


def test_a_kill_that_the_log_gives_to_another_rank_is_not_this_ones() -> None:
    named = suspect(0, by_signal(0, 9, oom=(SHARED,)), ooms=(killed(0, 400),))
    other = suspect(1, by_signal(1, 9, oom=(SHARED,), oom_readable=True))
    both = case(named, other)

    expected = ev(
        ("wait status", "SIGKILL"),
        ("cgroup", "oom_kill of …/docker/abc rose from 0 to 1, shared with others"),
        ("kernel log", "Killed process 400 (python3)"),
    )

    assert brief(cause_of(both, named)) == ("oom-kill", PROVEN)
    assert brief(cause_of(both, other)) == ("killed", LIKELY)
    assert cause_of(both, other).evidence == expected


def test_more_kills_than_the_shared_counter_saw() -> None:
    ranks = [suspect(n, by_signal(n, 9, oom=(SHARED,))) for n in (0, 1)]

    found = cause_of(case(*ranks), ranks[0])

    assert brief(found) == ("oom-kill", UNKNOWN)
    assert found.statement == "rank 0 of 4 was probably killed by the kernel's OOM killer while running"
    assert found.evidence[1].statement == (
        "more ranks than the OOM killer took (1) were ended by SIGKILL: which of them is not known"
    )


CHILD = {
    "record, exit 137": (suspect(1, by_code(1, 137), ooms=(killed(1, 77, child=True),)), PROVEN, 77),
    "own group, exit 137": (suspect(1, by_code(1, 137, oom=(count(),))), PROVEN, None),
    "a record of its group, from inside a PID namespace": (
        suspect(1, by_code(1, 137), ooms=(killed(1, 40_001),)), PROVEN, None,
    ),
    "own group, exit 1": (suspect(1, by_code(1, 1, oom=(count(),))), LIKELY, None),
    "own group, an exception that tells": (
        suspect(1, report=reported(1, error=error("RuntimeError", "DataLoader worker (pid 77) is killed by signal: Killed.")),
                ooms=(killed(1, 77, child=True),)),
        PROVEN, 77,
    ),
    "own group, any exception": (
        suspect(1, by_code(1, 1, oom=(count(),)), report=reported(1, error=error("BrokenPipeError", "x"), peer="x")),
        LIKELY, None,
    ),
    "own group, it said so": (suspect(1, by_code(1, 1, oom=(count(),)), report=reported(1, "failed", "no worker")), LIKELY, None),
}  # fmt: skip


@pytest.mark.parametrize(("parent", "confidence", "pid"), CHILD.values(), ids=CHILD)
def test_a_child_was_killed(parent, confidence, pid) -> None:
    found = cause_of(case(parent), parent)

    expected = ("oom-kill", confidence, "a child of rank 1 was killed by the kernel's OOM killer while running", pid)

    assert (found.kind, found.confidence, found.statement, found.subject_pid) == expected


def test_exit_137_without_a_counter_is_an_exit() -> None:
    shell = suspect(1, by_code(1, 137, oom_readable=True))

    assert brief(cause_of(case(shell), shell)) == ("exit-code", PROVEN)


def test_the_larger_ranks_are_responsible() -> None:
    victim = suspect(1, by_signal(1, 9, oom=(count(),)), memory=rss(4))
    others = (alive(0, memory=rss(4.5)), alive(2, memory=rss(30)))

    expected = (Responsible(rank=2, because="held 30.0 GiB when rank 1 was killed with 4.0 GiB", confidence=LIKELY),)

    assert cause_of(case(victim, *others), victim).responsible == expected


def test_memory_from_the_look() -> None:
    victim = suspect(1, by_signal(1, 9, oom=(count(),)), memory=rss(4))

    found = cause_of(case(victim, looked=looked(memory=((0, rss(9)),))), victim)

    assert [r.rank for r in found.responsible] == [0]


# ── By words ─────────────────────────────────────────────────────────────────────────────────────────────────────

WORDS = {
    "cuda-oom": ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cuda-oom, old": ("RuntimeError", "CUDA error: out of memory"),
    "memory-limit": ("MemoryError", ""),
    "memory-limit, errno": ("OSError", "[Errno 12] Cannot allocate memory"),
    "memory-limit, numpy": ("_ArrayMemoryError", "Unable to allocate 7.45 GiB for an array with shape (1,)"),
    "disk-full": ("OSError", "[Errno 28] No space left on device: '/ckpt/1.pt'"),
    "gpu-error": ("RuntimeError", "CUDA error: uncorrectable ECC error encountered"),
    "collective-timeout": ("RuntimeError", "[/x/gloo/unbound_buffer.cc:78] Timed out waiting 8000ms for recv operation to complete"),
    "exception": ("RuntimeError", "CUDA error: device-side assert triggered"),
    "exception, the word alone": ("ValueError", "memory must be positive"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "raised"), WORDS.items(), ids=WORDS)
def test_by_the_words_of_an_exception(name, raised) -> None:
    failed = suspect(1, by_code(1, 1), report=reported(1, error=error(*raised)))

    assert brief(cause_of(case(failed), failed)) == (name.partition(",")[0], PROVEN)


@pytest.mark.parametrize(("name", "raised"), WORDS.items(), ids=WORDS)
def test_by_the_words_of_a_log(name, raised) -> None:
    tail = (*TRACEBACK[:-1], ": ".join(raised).removesuffix(": "))
    failed = suspect(1, by_code(1, 1, log_tail=tail))

    assert brief(cause_of(case(failed), failed)) == (name.partition(",")[0], LIKELY)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("terminate called after throwing an instance of 'std::bad_alloc'", "memory-limit"),
        ("Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7753, OpType=ALLREDUCE)", "collective-timeout"),
        ("what():  CUDA error: uncorrectable ECC error encountered", "gpu-error"),
        ("Assertion `x > 0' failed.", "crash"),
    ],
)
def test_by_the_words_of_an_abort(line, kind) -> None:
    aborted = suspect(1, by_signal(1, 6, log_tail=("step 1", line)))

    assert cause_of(case(aborted), aborted).kind == kind


@pytest.mark.parametrize("number", [9, 11, 15])
def test_other_signals_have_no_words(number) -> None:
    ended = suspect(1, by_signal(1, number, log_tail=("MemoryError", "CUDA out of memory")))

    assert cause_of(case(ended), ended).kind in ("killed", "crash")


@pytest.mark.parametrize("number", [28, 12, 5])
def test_a_reported_errno_is_a_report_whatever_its_number(number) -> None:
    failed = suspect(1, report=reported(1, "errno", errno=number))

    assert brief(cause_of(case(failed), failed)) == ("reported-failure", PROVEN)


# ── The rank's own ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_exception_reported_by_its_interpreter() -> None:
    raised = error("ValueError", "bad batch\nwith more lines", frames=("/app/train.py:12 main", "/app/model.py:7 step"))
    failed = suspect(1, by_code(1, 1), report=reported(1, error=raised))

    expected = Cause(
        kind="exception",
        family=Family.PROGRAM,
        confidence=PROVEN,
        statement="rank 1 of 4 raised ValueError: bad batch (while running)",
        exception=raised,
        subject_pid=401,
        evidence=ev(("rank", "ValueError: bad batch at /app/model.py:7 step"), ("wait status", "exit code 1")),
    )

    assert cause_of(case(failed), failed) == expected


def test_an_exception_in_the_log() -> None:
    failed = suspect(1, by_code(1, 1, log_tail=("loading", *TRACEBACK)))

    found = cause_of(case(failed), failed)

    assert brief(found) == ("exception", LIKELY)
    assert found.exception == error(
        "ValueError",
        "bad batch",
        frames=("/app/train.py:12 main", "/app/model.py:7 step"),
        traceback="\n".join(TRACEBACK),
    )


def test_a_victims_exception_says_so() -> None:
    failed = suspect(1, by_code(1, 1), report=reported(1, error=error("BrokenPipeError", "x"), peer="Broken pipe"))

    expected = ("rank 1 of 4 lost a peer: it raised BrokenPipeError: x (while running)", 'peer death: "Broken pipe"')

    found = cause_of(case(failed), failed)

    assert (found.statement, found.evidence[1].statement) == expected


def test_a_rank_that_is_a_rankguard_of_its_own() -> None:
    """Its report quotes a traceback and ends with our last line, which is no exception called `rankguard`."""
    tail = (
        "error: rank 1 of 2 raised ValueError: bad batch (while running)  [exception, proven]",
        "  rank 1 raised",
        *(f"    | {line}" for line in TRACEBACK),
        "  more    rankguard report cc5ac9f5",
        "",
        "rankguard: exit 1 exception proven rank=1 node=host-a phase=running run=cc5ac9f5",
    )
    failed = suspect(1, by_code(1, 1, log_tail=tail))

    assert brief(cause_of(case(failed), failed)) == ("exit-code", PROVEN)


def test_a_torch_error_file() -> None:
    report = reported(1, error=error("ValueError", "bad")).report
    failed = suspect(1, by_code(1, 1, report=report))

    assert brief(cause_of(case(failed), failed)) == ("exception", PROVEN)


GONE = NodeLost(START + 10, 0, "host-a", "closed", "its agent is gone")
ON_TWO = {
    "spec_more": {"nodes": NodesPlan(count=2, nproc=2)},
    "nodes": (NodeJoined(START, 0, "host-a", 0, 2), NodeJoined(START, 1, "host-b", 2, 2)),
    "lost_nodes": (GONE,),
    "failed_by": "node-lost",
}
STATEMENTS = [
    (suspect(1, by_code(1, 3)), {}, "exit-code", PROVEN, "rank 1 of 4 ended with exit code 3 while running"),
    (suspect(1, by_code(1, 3, peer_death="Broken pipe")), {}, "exit-code", PROVEN,
     "rank 1 of 4 lost a peer and ended with exit code 3 while running"),
    (suspect(1, by_code(1, 0)), {"expects_ready": True}, "exit-before-ready", PROVEN,
     "rank 1 of 4 ended with exit code 0 before it was ready"),
    (suspect(1, by_code(1, 0)), {"spec_more": {"any_end_fails": True}}, "exit-code", PROVEN,
     "rank 1 of 4 ended with exit code 0 while running"),
    (suspect(1, by_code(1, 0), ready_at=START + 1, phase=Phase.READY), {"spec_more": {"any_end_fails": True}},
     "exit-code", PROVEN, "rank 1 of 4 ended with exit code 0 after it was ready"),
    (suspect(1, by_code(1, 0), complained=3), {}, "reported-failure", LIKELY,
     "rank 1 of 4 told its parent of a failure by SIGQUIT, then ended with exit code 0 while running"),
    (suspect(1, by_code(1, 3), complained=3), {}, "reported-failure", LIKELY,
     "rank 1 of 4 told its parent of a failure by SIGQUIT, then ended with exit code 3 while running"),
    (suspect(1, complained=6, accused=True), {}, "reported-failure", LIKELY,
     "rank 1 of 4 told its parent of a failure by SIGABRT while running, and did not end"),
    (suspect(1, by_signal(1, 15), complained=3, accused=True, signalled_at=START), {}, "reported-failure", LIKELY,
     "rank 1 of 4 told its parent of a failure by SIGQUIT while running, and did not end"),
    (suspect(1, by_signal(1, 15, log_tail=TRACEBACK), complained=3, accused=True, signalled_at=START), {}, "exception",
     LIKELY, "rank 1 of 4 raised ValueError: bad batch (while running)"),
    (suspect(1, by_code(1, 0, log_tail=TRACEBACK), complained=3), {}, "exception", LIKELY,
     "rank 1 of 4 raised ValueError: bad batch (while running)"),
    (suspect(1, by_signal(1, 11), phase=Phase.READY), {}, "crash", PROVEN,
     "rank 1 of 4 crashed with SIGSEGV after it was ready"),
    (suspect(1, by_signal(1, 9, oom_readable=True), phase=Phase.LAUNCHING), {}, "killed", PROVEN,
     "rank 1 of 4 was killed by SIGKILL, sent by somebody, while starting"),
    (suspect(1, by_signal(1, 9)), {}, "killed", LIKELY,
     "rank 1 of 4 was killed by SIGKILL, probably sent by somebody, while running"),
    (suspect(1, by_signal(1, 13)), {}, "killed", PROVEN, "rank 1 of 4 was killed by SIGPIPE while running"),
    (suspect(1, report=reported(1, "failed", "no weights")), {}, "reported-failure", PROVEN,
     "rank 1 of 4 reported a failure while running: no weights"),
    (suspect(1, report=reported(1, "errno", "", errno=5)), {}, "reported-failure", PROVEN,
     "rank 1 of 4 reported a failure while running: errno 5 (EIO)"),
    (suspect(1, broken=broken(1)), {}, "protocol-error", PROVEN,
     "rank 1 of 4 broke the protocol while running: its pipe ended while it lives"),
    (suspect(1, by_signal(1, 9), broken=broken(1)), {}, "killed", LIKELY,
     "rank 1 of 4 was killed by SIGKILL, probably sent by somebody, while running"),
    (suspect(1, not_spawned=not_spawned(1, 2)), {}, "cannot-start", PROVEN,
     "rank 1 of 4 was not started: unable to execute `x`"),
    (suspect(1, dying="killed"), {}, "unknown", UNKNOWN,
     "rank 1 of 4 was already dying for a reason that is not known while running"),
    (suspect(1, by_code(1, 1).replace(ending=Ending(kind="exit"))), {}, "unknown", UNKNOWN,
     "rank 1 of 4 ended for a reason that is not known while running"),
    (rank(1, late=True, suspect=True, status=StatusTold(START + 4, 1, "loading")),
     {"failed_by": "ready-timeout", "spec_more": {"ready_timeout": 10.0}}, "ready-timeout", PROVEN,
     "rank 1 of 4 was not ready within 10 s; it last said: loading"),
    (rank(1, late=True, suspect=True), {"failed_by": "stall"}, "stall", PROVEN,
     "rank 1 of 4 showed no sign of progress"),
    (suspect(1, by_code(1, 3), name="tokenizer"), {"spec_more": {"adopted": True}}, "exit-code", PROVEN,
     "process tokenizer ended with exit code 3 while running"),
    (suspect(1, by_code(1, 3)), {"spec_more": {"adopted": True}}, "exit-code", PROVEN,
     "process 1 of 4 ended with exit code 3 while running"),
    (None, {"lost": FrontLost(START, 7), "failed_by": "front-lost"}, "supervisor-lost", PROVEN,
     "the process that launched the job (pid 7) was gone"),
    (rank(1, lost=GONE), ON_TWO, "node-lost", PROVEN,
     "rank 1 of 4 was lost with its node host-a"),
    (None, {}, "unknown", UNKNOWN, "the job failed, and which rank failed first is not known"),
]  # fmt: skip


@pytest.mark.parametrize(("culprit", "more", "kind", "confidence", "statement"), STATEMENTS)
def test_statements(culprit, more, kind, confidence, statement) -> None:
    whole = case(*([culprit] if culprit else []), **more)

    found = cause_of(whole, culprit)

    assert (found.kind, found.confidence, found.statement) == (kind, confidence, statement)
    assert found.family is FAMILIES[kind]
    assert choose(whole.replace(failed_by=more.get("failed_by", "exit"))).kind == kind


def test_every_kind_is_tested() -> None:
    tested = (
        {kind for _, _, kind, _, _ in STATEMENTS} | {name.partition(",")[0] for name in WORDS} | {"oom-kill", "bug"}
    )

    assert tested == set(FAMILIES)


def test_a_statement_is_short() -> None:
    failed = suspect(1, report=reported(1, "failed", "x" * 500))

    assert len(cause_of(case(failed), failed).statement) == 140


def test_our_own_signal_is_no_evidence() -> None:
    failed = suspect(
        1,
        by_signal(1, 15, at=11.0),
        report=reported(1, error=error("ValueError", "bad")),
        signalled_at=START + 10.9,
    )

    assert cause_of(case(failed), failed).evidence == ev(("rank", "ValueError: bad"))


def test_a_barrier_is_quoted_by_the_rank_it_names() -> None:
    text = "[Rank 0]: Rank 2 failed to pass monitoredBarrier in 3000 ms\n Original exception: \nTimed out waiting 1ms for recv operation"
    waiting = suspect(0, report=reported(0, error=error("RuntimeError", text), peer=text))

    expected = ev(("rank", "RuntimeError: [Rank 0]: Rank 2 failed to pass monitoredBarrier in 3000 ms"))

    assert cause_of(case(waiting), waiting).evidence == expected
