"""A user's program as a type checker sees it: every public name, and what it must not let through (`# error`)."""

from multiprocessing import Pipe, Process
from pathlib import Path
from typing import assert_type

import rankguard


def serve(rank: rankguard.Rank, port: int) -> None:
    rank.ready({"port": port + rank.rank})


def main() -> int:
    with rankguard.launch(serve, nprocs=2, args=(8000,), env={"A": "b"}) as job:
        payloads = job.wait_ready(timeout=60)
        assert_type(job, rankguard.Job)
        verdict = job.wait()
    assert_type(verdict, rankguard.Verdict)
    if verdict.culprit is not None and verdict.culprit.rank is not None:
        print(verdict.culprit.rank + 1, verdict.culprit.cause.kind.upper(), len(payloads))
    run = rankguard.read_run()
    assert_type(run, rankguard.Run)
    for event in run.events("Exited"):
        print(event["rank"])
    path = run.log_path(0)
    assert_type(path, Path | None)
    return verdict.exit_code


def adopted(processes: list[Process]) -> None:
    reader, _writer = Pipe()
    try:
        infos, guard = rankguard.wait_ready(processes, [reader], keep=True)
        assert_type(guard, rankguard.Guard)
        print(infos[0])
    except rankguard.ReadyTimeout as error:
        assert_type(error.verdict, rankguard.Verdict)
    with rankguard.guard(processes, on_failure=lambda verdict: print(verdict.statement)):
        pass
    rankguard.stop(processes, grace=1.0)
    rankguard.launch(serve, nprocs="8")  # error
    rankguard.read_run(7)  # error
    rankguard.no_such_name()  # error
