"""Cases by hand: short names for facts, so that a test reads as a story. Read next: `test_culprit.py`."""

from rankguard.case import Case, RankCase
from rankguard.facts import Exited, FailureReported, KernelKilled, Looked, NotSpawned, ProtocolBroken
from rankguard.jobspec import JobSpec
from rankguard.model import Ending, ExceptionInfo, Memory, OomCount, OomRecord, Phase, Report

START = 1000.0
WALL = 1_790_000_000.25
GIB = 1 << 30
NAMES = {1: "SIGHUP", 2: "SIGINT", 6: "SIGABRT", 7: "SIGBUS", 9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE", 15: "SIGTERM"}


def spec(nprocs=4, **more):
    base = {
        "run_id": "7f3a",
        "command": ("train.py",),
        "argv": ("/usr/bin/python3", "train.py"),
        "nprocs": nprocs,
        "env": {},
        "cwd": "/work",
        "node": "host-a",
        "run_dir": "/runs/7f3a",
    }
    return JobSpec(**{**base, **more})


def case(*ranks, nprocs=4, spec_more=None, **more):
    """A failed job of `nprocs` ranks: those given, all others alive and signalled."""
    given = {rank.rank: rank for rank in ranks}
    rows = tuple(given.get(number) or alive(number) for number in range(nprocs))
    base = {
        "spec": spec(nprocs, **(spec_more or {})),
        "started_at": START,
        "started_wall": WALL,
        "now": START + 20,
        "ranks": rows,
        "failed_at": START + 10,
        "failed_by": "exit",
        "detected_in_s": 0.0008,
        "stopped_at": START + 10.001,
    }
    return Case(**{**base, **more})


def rank(number, **more):
    base = {"pid": 400 + number, "phase": Phase.RUNNING, "spawned_at": START + 0.1}
    return RankCase(rank=number, **{**base, **more})


def alive(number, **more):
    return rank(number, **{"signalled_at": START + 10.001, **more})


def suspect(number, exited=None, **more):
    failed_at = exited.at if exited else START + 10
    return rank(number, **{"exited": exited, "suspect": True, "failed_at": failed_at, **more})


def by_signal(number, signal, at=10.0, **more):
    ending = Ending(kind="signal", signal=NAMES.get(signal, f"SIG{signal}"), number=signal)
    return Exited(at=START + at, rank=number, ending=ending, **more)


def by_code(number, code, at=10.0, **more):
    return Exited(at=START + at, rank=number, ending=Ending(kind="exit", code=code), **more)


def reported(number, how="exception", text="", at=10.0, raised=None, error=None, peer=None, errno=None):
    raised_at = None if raised is None else START + raised
    text = text or (f"{error.type}: {error.message}" if error else "")
    report = Report(how=how, text=text, exception=error, raised_at=raised_at, errno=errno)
    return FailureReported(at=START + at, rank=number, report=report, peer_death=peer)


def error(type_name, message="", chain=(), frames=(), traceback=None, module=None):
    return ExceptionInfo(
        type=type_name, message=message, chain=tuple(chain), frames=tuple(frames), traceback=traceback, module=module
    )


def count(before=0, after=1, shared=False, path="/sys/fs/cgroup/memory/job/rank-1/memory.oom_control"):
    return OomCount(path=path, before=before, after=after, shared=shared)


def killed(number, pid, at=9.9, child=False, rss=None, name="python3", whole=False, logged=0):
    record = OomRecord(
        pid=pid,
        name=name,
        text=f"Killed process {pid} ({name})",
        anon_rss_bytes=rss,
        of_whole_machine=whole,
        logged_us=logged,
    )
    return KernelKilled(at=START + at, rank=number, record=record, is_child=child)


def looked(*dying, at=10.0005, memory=(), **more):
    return Looked(at=START + at, dying=tuple(dying), memory=tuple(memory), **more)


def not_spawned(number, errno, stage="exec", statement="unable to execute `x`"):
    return NotSpawned(at=START + 0.1, rank=number, stage=stage, errno=errno, statement=statement)


def broken(number, statement="its pipe ended while it lives", at=10.0):
    return ProtocolBroken(at=START + at, rank=number, statement=statement)


def rss(gib):
    return Memory(rss_bytes=int(gib * GIB))
