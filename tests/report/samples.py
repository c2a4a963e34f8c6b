"""Verdicts by hand, one for each thing that the text layer has to tell. Used by the tests of `report/` only."""

from typing import Any

from rankguard.model import (
    Attempt,
    Cause,
    Confidence,
    Culprit,
    Ending,
    Evidence,
    ExceptionInfo,
    Family,
    Left,
    Memory,
    MemoryState,
    Moment,
    OrderBasis,
    Phase,
    Progress,
    RankOutcome,
    Responsible,
    Retry,
    StoppedBy,
    Survivor,
    Teardown,
    Verdict,
)

GIB = 1 << 30
RUN = "/var/lib/rankguard/runs/7f3a"
TERM = Ending("signal", signal="SIGTERM", number=15)
KILL = Ending("signal", signal="SIGKILL", number=9)
CLEAN = Ending("exit", code=0)
TRACEBACK = """\
Traceback (most recent call last):
  File "/app/train.py", line 88, in <module>
    main()
    ~~~~^^
  File "/app/train.py", line 61, in main
    model = load(config)
            ^^^^^^^^^^^^
  File "/app/loader.py", line 140, in load
    return torch.load(path)
  File "/app/loader.py", line 17, in read_shard
    with open(path, "rb") as file:
FileNotFoundError: [Errno 2] No such file or directory: '/models/shard-00003.safetensors'
"""


def outcome(rank: int | None, relation: str = "stopped", ending: Ending = TERM, **changes: Any) -> RankOutcome:
    base = RankOutcome(
        rank=rank,
        name=None,
        node="host-a",
        pid=40208 + (rank or 0),
        relation=relation,
        phase=Phase.STARTING,
        ending=ending,
        cause=None,
        ready_after_s=None,
        ended_after_s=14.2,
        memory=Memory(),
        log_path=f"{RUN}/rank-{rank}/attempt-0/stderr.log",
    )
    return base.replace(**changes)


def culprit(rank: int | None, ending: Ending, cause: Cause, **changes: Any) -> Culprit:
    base = Culprit(
        rank=rank,
        name=None,
        role="default",
        local_rank=rank,
        node="host-a",
        pid=40208 + (rank or 0),
        phase=Phase.STARTING,
        was_ready=False,
        attempt=0,
        ending=ending,
        cause=cause,
        at="2026-11-22T08:14:03.123456Z",
        elapsed_s=14.2,
        detected_in_ms=0.8,
        status=None,
        progress=None,
        memory=Memory(),
        traceback=None,
        stacks=None,
        log_tail=(),
        log_path=f"{RUN}/rank-{rank}/attempt-0/stderr.log",
    )
    return base.replace(**changes)


def verdict(outcome: str, exit_code: int, statement: str, **changes: Any) -> Verdict:
    base = Verdict(
        run_id="7f3a",
        command=("train.py",),
        outcome=outcome,
        exit_code=exit_code,
        statement=statement,
        summary=statement,
        fingerprint="9c1f04aa" if outcome == "failed" else None,
        owner="program" if outcome == "failed" else None,
        retry=Retry("unknown", ""),
        started_at="2026-11-22T08:13:48.923456Z",
        ready_at=None,
        failed_at="2026-11-22T08:14:03.123456Z" if outcome == "failed" else None,
        ended_at="2026-11-22T08:14:03.161000Z",
        world_size=8,
        nodes=("host-a",),
        start="exec",
        labels={},
        culprit=None,
        either=(),
        order=None,
        stopped_by=None,
        memory=None,
        ranks=(),
        attempts=(),
        teardown=Teardown(took_s=0.03),
        hints=(),
        warnings=(),
        timeline=(Moment(0.0, "started 8 ranks"),),
        rankguard="0.1.0",
    )
    return base.replace(**changes)


def oom() -> Verdict:
    sizes = [14.1, 14.0, 13.6, 13.2, 12.9, 14.9, 6.4, 9.8]
    memory = [Memory(rss_bytes=int(size * GIB)) for size in sizes]
    cause = Cause(
        "oom-kill",
        Family.MEMORY,
        Confidence.PROVEN,
        "the kernel took the largest, not the growing",
        subject_pid=40213,
        evidence=(
            Evidence("kernel log", '"Killed process 40213 (python3) … anon-rss:15623844kB"'),
            Evidence("cgroup", "oom_kill of …/job/rank-5 rose from 0 to 1"),
        ),
        responsible=(
            Responsible(6, "was growing by 1.9 GiB/s", Confidence.LIKELY),
            Responsible(7, "was growing by 1.8 GiB/s", Confidence.LIKELY),
        ),
    )
    guilty = culprit(5, KILL, cause, status="allocating host cache", memory=memory[5])
    return verdict(
        "failed",
        137,
        "rank 5 of 8 was killed by the kernel's OOM killer while starting",
        owner="limits",
        retry=Retry("no", "the same limit would be reached again"),
        culprit=guilty.replace(log_tail=("loading shard 3 of 8", "allocating host cache: 15.0 GiB")),
        memory=MemoryState(
            limit_bytes=100 * GIB,
            used_bytes=100 * GIB,
            limit_from="/sys/fs/cgroup/job/memory.max",
            cache_bytes=int(0.4 * GIB),
            ranks_bytes=int(98.9 * GIB),
        ),
        ranks=tuple(
            outcome(n, "culprit" if n == 5 else "stopped", KILL if n == 5 else TERM, memory=memory[n]) for n in range(8)
        ),
        hints=("raise the memory limit from 100 to about 130 GiB, or cap each rank's host memory at about 11 GiB",),
    )


def small_oom() -> Verdict:
    """A limit below one GiB, and a job of one rank whose child was killed."""
    whole = oom()
    assert whole.culprit
    cause = whole.culprit.cause.replace(subject_pid=40999, responsible=(), evidence=whole.culprit.cause.evidence[1:])
    return whole.replace(
        statement="the only rank was killed by the kernel's OOM killer",
        world_size=1,
        hints=(),
        culprit=whole.culprit.replace(rank=0, local_rank=0, cause=cause, phase=Phase.RUNNING, status=None, log_tail=()),
        memory=MemoryState(limit_bytes=512 << 20, used_bytes=500 << 20, limit_from="/sys/fs/cgroup/job/memory.max"),
        ranks=(outcome(0, "culprit", KILL, memory=Memory(rss_bytes=480 << 20)),),
    )


def killed() -> Verdict:
    """After all were ready; two failed because of it, one for a reason of its own; processes and memory stay behind."""
    cause = Cause(
        "killed",
        Family.OPERATOR,
        Confidence.LIKELY,
        "SIGKILL came from outside: no counter of OOM kills rose, and rankguard sent none",
        evidence=(Evidence("wait status", "ended by SIGKILL"), Evidence("cgroup", "oom_kill stayed at 0")),
    )
    reset = Cause("exception", Family.PROGRAM, Confidence.PROVEN, "ConnectionResetError: Connection reset by peer")
    crash = Cause("crash", Family.PROGRAM, Confidence.PROVEN, "invalid memory access")
    ready = {"phase": Phase.READY, "ready_after_s": 47.1}
    return verdict(
        "failed",
        137,
        "rank 2 of 8 was killed with SIGKILL by somebody else while ready",
        owner="outside",
        retry=Retry("yes", "nothing points at the program"),
        ready_at="2026-11-22T08:14:36.023456Z",
        culprit=culprit(
            2,
            KILL,
            cause,
            phase=Phase.READY,
            was_ready=True,
            attempt=1,
            elapsed_s=8010.0,
            progress=Progress(1200, 5000, "steps"),
            log_tail=("step 1199 loss 2.31", "step 1200 loss 2.30"),
        ),
        order=OrderBasis("the others' errors name a lost peer", 812),
        ranks=(
            outcome(0, **ready),
            outcome(1, "collateral", Ending("exit", code=1), cause=reset, **ready),
            outcome(2, "culprit", KILL, **ready),
            outcome(3, "collateral", Ending("exit", code=1), cause=reset, **ready),
            outcome(
                4, "independent", Ending("signal", signal="SIGSEGV", number=11, core_dumped=True), cause=crash, **ready
            ),
            outcome(5, "finished", CLEAN, **ready),
            outcome(6, **ready),
            outcome(7, ending=KILL, **ready),
        ),
        attempts=(Attempt(0, "killed", "9c1f04aa", 7200.4, "rank 2 of 8 was killed by SIGKILL", 2),),
        teardown=Teardown(
            took_s=5.0,
            killed=(40215,),
            survivors=(Survivor(40300, "python3", "D"),),
            left=(Left("shm", "/dev/shm/psm_77a1", 3 * GIB), Left("shm", "/dev/shm/sem.mp-1", 32)),
        ),
        hints=("ask who sent it: `dmesg`, the batch system, an operator", "remove it with `rm /dev/shm/psm_77a1`"),
        warnings=("the journal was cut off: no space left on /var",),
    )


def exception() -> Verdict:
    info = ExceptionInfo(
        "FileNotFoundError",
        "[Errno 2] No such file or directory: '/models/shard-00003.safetensors'",
        traceback=TRACEBACK,
    )
    cause = Cause(
        "exception",
        Family.PROGRAM,
        Confidence.PROVEN,
        f"FileNotFoundError: {info.message}",
        exception=info,
        evidence=(Evidence("rank", "its own report, raised 14.2 s after launch"),),
    )
    log = ("INFO loading shard 3 of 8", *(f"[rank3]: {line}" for line in TRACEBACK.splitlines()))
    return verdict(
        "failed",
        1,
        f"rank 3 of 4 raised FileNotFoundError while starting: {info.message}",
        world_size=4,
        retry=Retry("no", "the file would still be missing"),
        culprit=culprit(3, Ending("exit", code=1), cause, traceback=TRACEBACK, log_tail=log),
        ranks=tuple(
            outcome(n, "culprit" if n == 3 else "stopped", Ending("exit", code=1) if n == 3 else TERM) for n in range(4)
        ),
    )


def ready_timeout() -> Verdict:
    stacks = "Thread 40211 (most recent call first):\n  recv (torch/distributed/c10d.py:210)\n  main (train.py:61)\n"
    cause = Cause(
        "ready-timeout",
        Family.TIME,
        Confidence.PROVEN,
        "no READY=1 within 600 s; silent for 538 s",
        evidence=(Evidence("clock", "600.0 s since launch"), Evidence("rank", "last sign of life 62.0 s after launch")),
    )
    return verdict(
        "failed",
        124,
        "rank 3 of 8 was not ready after 600 s",
        culprit=culprit(
            3,
            TERM,
            cause,
            elapsed_s=600.0,
            status="waiting for the store",
            progress=Progress(41, 100, "%"),
            stacks=stacks,
            log_tail=("connecting to 10.0.0.1:29500",),
        ),
        either=(5,),
        ranks=tuple(
            outcome(n, "culprit" if n == 3 else "stopped", ready_after_s=None if n in (3, 5) else 40.0 + n)
            for n in range(8)
        ),
        hints=("look where it hangs: `rankguard stacks` of a live run",),
    )


def cannot_start() -> Verdict:
    cause = Cause(
        "cannot-start",
        Family.PROGRAM,
        Confidence.PROVEN,
        "exec `./serve`: Permission denied",
        evidence=(Evidence("kernel", "execve: EACCES"),),
    )
    guilty = culprit(0, Ending("alive"), cause, pid=None, phase=Phase.LAUNCHING, elapsed_s=0.002, log_path=None)
    return verdict(
        "failed",
        126,
        "unable to execute `./serve`: Permission denied",
        retry=Retry("no", "it cannot be executed here"),
        culprit=guilty,
        teardown=Teardown(took_s=0.0),
        hints=("`chmod +x ./serve`, or check that its file system is not mounted noexec",),
    )


def interrupted() -> Verdict:
    return verdict(
        "interrupted",
        143,
        "stopped by SIGTERM from slurmstepd; 1 of 8 ranks had to be killed",
        stopped_by=StoppedBy("SIGTERM", pid=812, uid=0, comm="slurmstepd"),
        ranks=tuple(outcome(n, ending=KILL if n == 7 else CLEAN) for n in range(8)),
        teardown=Teardown(took_s=30.02, killed=(40215,)),
    )


def succeeded() -> Verdict:
    return verdict(
        "succeeded",
        0,
        "all 8 ranks ended with 0 after 61.2 s",
        ranks=tuple(outcome(n, "finished", CLEAN) for n in range(8)),
    )


def succeeded_with_leftovers() -> Verdict:
    return succeeded().replace(
        teardown=Teardown(took_s=0.0, left=(Left("shm", "/dev/shm/psm_77a1", 3 * GIB),)),
        warnings=("1,204 lines of rank 2 were not shown",),
    )


def either() -> Verdict:
    """Two ranks died of the same thing in the same instant, and nothing tells which was first."""
    crash = Cause(
        "crash",
        Family.PROGRAM,
        Confidence.LIKELY,
        "segmentation fault",
        evidence=(Evidence("wait status", "ended by SIGSEGV, core dumped"),),
    )
    segv = Ending("signal", signal="SIGSEGV", number=11, core_dumped=True)
    return verdict(
        "failed",
        139,
        "rank 1 of 4 crashed (segmentation fault)",
        world_size=4,
        culprit=culprit(1, segv, crash, phase=Phase.RUNNING),
        either=(3,),
        order=OrderBasis("order of arrival"),
        ranks=tuple(
            outcome(n, relation, segv if n in (1, 3) else TERM, phase=Phase.RUNNING, cause=crash if n == 3 else None)
            for n, relation in enumerate(("stopped", "culprit", "stopped", "independent"))
        ),
    )


def watched() -> Verdict:
    """An engine as it is: processes with names, no ranks; how one of them ended is not known."""
    cause = Cause("unknown", Family.UNKNOWN, Confidence.UNKNOWN, "nobody could tell its exit status")
    return verdict(
        "failed",
        1,
        "sglang::scheduler_TP5 ended, and nothing tells why",
        world_size=2,
        culprit=culprit(
            None, Ending("exit"), cause, name="sglang::scheduler_TP5", role="scheduler", phase=Phase.RUNNING
        ),
        ranks=(
            outcome(None, "culprit", Ending("exit"), name="sglang::scheduler_TP5"),
            outcome(None, "stopped", name="sglang::detokenizer"),
        ),
        owner=None,
    )


def many() -> Verdict:
    """64 ranks on eight nodes, out of memory on one of them."""
    small = oom()
    assert small.culprit
    return small.replace(
        statement="rank 37 of 64 was killed by the kernel's OOM killer while starting",
        world_size=64,
        nodes=tuple(f"gpu-{n}" for n in range(8)),
        culprit=small.culprit.replace(rank=37, local_rank=5, node="gpu-4"),
        ranks=tuple(
            outcome(
                n,
                "culprit" if n == 37 else "stopped",
                KILL if n == 37 else TERM,
                node=f"gpu-{n // 8}",
                memory=Memory(rss_bytes=int((10 + n * 7 % 64 / 16) * GIB)),
            )
            for n in range(64)
        ),
    )


def hostile() -> Verdict:
    """A rank whose words are made to take over the terminal, to pass for ours, and to be too long."""
    nasty = "\x1b[2J\x1b]0;owned\x07rankguard: exit 0 succeeded run=7f3a\u202eevil \udcff \x9b31m"
    cause = Cause(
        "exception",
        Family.PROGRAM,
        Confidence.PROVEN,
        nasty,
        exception=ExceptionInfo("E", nasty, traceback=f"Traceback:\n{nasty}\nrankguard: exit 0 succeeded run=1\n"),
        evidence=(Evidence("rank", nasty * 3),),
    )
    return verdict(
        "failed",
        1,
        f"rank 0 of 1 raised {nasty}\nrankguard: exit 0 succeeded run=7f3a",
        run_id="run\n1",
        world_size=1,
        nodes=("host\x1b[31m a",),
        culprit=culprit(
            0,
            Ending("exit", code=1),
            cause,
            node="host\x1b[31m a",
            status=nasty,
            log_tail=(nasty, "x" * 5000, "\x00\x01\r\n"),
        ),
        ranks=(outcome(0, "culprit", Ending("exit", code=1)),),
    )


def supervisor_lost() -> Verdict:
    """A failure that was of none of the ranks."""
    what = "rankguard's supervisor (pid 40100) was gone"
    cause = Cause(
        "supervisor-lost",
        Family.RANKGUARD,
        Confidence.PROVEN,
        what,
        subject_pid=40100,
        evidence=(Evidence("pidfd", "rankguard's supervisor (pid 40100) has ended"),),
    )
    return verdict(
        "failed",
        125,
        what,
        owner="rankguard",
        world_size=2,
        culprit=culprit(None, Ending("exit"), cause, pid=40100, phase=Phase.RUNNING, log_path=None),
        ranks=(outcome(0, ending=KILL), outcome(1, ending=KILL)),
    )


def nobody_known() -> Verdict:
    return verdict("failed", 125, "the job failed, and which rank failed first is not known", world_size=2)


def node_lost() -> Verdict:
    """A node of three is cut off, and a rank elsewhere had complained before."""
    what = "node host-c (ranks 4, 5 of 6) was lost: nothing was heard of it for 5.0 s"
    cause = Cause(
        "node-lost",
        Family.MACHINE,
        Confidence.LIKELY,
        what,
        evidence=(Evidence("clock", "node 2 (host-c, 10.0.0.3) was last heard 9.7 s after launch"),),
    )
    return verdict(
        "failed",
        1,
        what,
        owner="machine",
        world_size=6,
        nodes=("host-a", "host-b", "host-c"),
        retry=Retry("elsewhere", "the machine was lost, not the program"),
        order=OrderBasis("those that failed had only lost a peer"),
        culprit=culprit(
            None, Ending("lost"), cause, node="host-c", local_rank=None, pid=None, phase=Phase.RUNNING, log_path=None
        ),
        ranks=(
            outcome(0, "collateral", Ending("exit", code=1), cause=_lost_a_peer(0)),
            *(outcome(n, node="host-a" if n < 2 else "host-b") for n in (1, 2, 3)),
            *(outcome(n, "collateral", Ending("lost"), node="host-c", cause=cause, ended_after_s=None) for n in (4, 5)),
        ),
        hints=(
            "see whether host-c is up and can be reached (ping, its console, its kernel log); if it was only slow, raise `--node-timeout`",
        ),
    )


def _lost_a_peer(rank: int) -> Cause:
    said = f"rank {rank} of 6 lost a peer and ended with exit code 1 while running"
    return Cause("exit-code", Family.PROGRAM, Confidence.PROVEN, said)


def nodes_missing() -> Verdict:
    """Two of four have not joined in time."""
    what = "node 2 and node 3 of 4 have not joined within 600 s; joined: host-a, host-b"
    cause = Cause(
        "node-lost", Family.MACHINE, Confidence.PROVEN, what, evidence=(Evidence("clock", "2 of 4 nodes have joined"),)
    )
    never = Cause("node-lost", Family.MACHINE, Confidence.PROVEN, "rank 4 of 8 was not started: its node did not join")
    return verdict(
        "failed",
        1,
        what,
        owner="machine",
        world_size=8,
        nodes=("host-a", "host-b"),
        order=OrderBasis("only suspect"),
        culprit=culprit(
            None, Ending("lost"), cause, node="", local_rank=None, pid=None, phase=Phase.STARTING, log_path=None
        ),
        ranks=(
            *(outcome(n, ending=Ending("exit"), pid=None) for n in range(4)),
            *(outcome(n, "collateral", Ending("lost"), node="", pid=None, cause=never) for n in range(4, 8)),
        ),
    )


def running() -> Verdict:
    """`state.json` of a job that lives."""
    return verdict(
        "running",
        0,
        "2 of 4 ranks ready",
        world_size=4,
        ended_at=None,
        teardown=Teardown(),
        ranks=tuple(outcome(n, ending=Ending("alive"), ended_after_s=None) for n in range(4)),
    )


ALL = {
    make.__name__: make
    for make in (
        oom,
        small_oom,
        killed,
        exception,
        ready_timeout,
        cannot_start,
        interrupted,
        succeeded,
        succeeded_with_leftovers,
        either,
        watched,
        many,
        hostile,
        supervisor_lost,
        nobody_known,
        node_lost,
        nodes_missing,
        running,
    )
}
