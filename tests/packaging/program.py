"""A user's program, run in a clean environment with every warning an error: each door of the library, for real."""

import multiprocessing
import subprocess
import sys
import time

import rankguard


def serve(rank: rankguard.Rank, fails: int) -> None:
    rank.status("loading", 1, 2)
    rank.ready({"rank": rank.rank})
    if rank.rank == fails:
        raise ValueError("no such shard")
    time.sleep(1000)


def ready(pipe, number: int) -> None:
    pipe.send({"status": "ready", "number": number})
    pipe.close()
    time.sleep(1000)


def dies(pipe, number: int) -> None:
    sys.exit(7)


def launched(start: str) -> None:
    with rankguard.launch(serve, nprocs=2, args=(1,), start=start, console="none") as job:
        try:
            job.wait()
        except rankguard.RankFailed as error:
            verdict = error.verdict
    assert (verdict.culprit.rank, verdict.culprit.cause.kind) == (1, "exception"), verdict.to_json()
    assert verdict.start == start, verdict.to_json()
    assert verdict.culprit.cause.exception.message == "no such shard"
    assert rankguard.read_run(job.run_dir).verdict == verdict
    with rankguard.launch(serve, nprocs=2, args=(9,), start=start, console="none") as job:
        assert job.wait_ready(timeout=60) == [{"rank": 0}, {"rank": 1}]
        assert job.stop().outcome == "interrupted"


def awaited(method: str) -> None:
    context = multiprocessing.get_context(method)
    for last in (ready, dies):
        pairs = [context.Pipe(duplex=False) for _ in range(2)]
        targets = (ready, last)
        processes = [context.Process(target=targets[n], args=(pairs[n][1], n)) for n in range(2)]
        for process in processes:
            process.start()
        for _reader, writer in pairs:
            writer.close()
        told = failed = None
        try:
            told = rankguard.wait_ready(processes, [reader for reader, _writer in pairs], timeout=60)
        except rankguard.RankFailed as error:
            failed = (error.verdict.culprit.rank, error.verdict.exit_code)
        if last is ready:
            assert told == [{"status": "ready", "number": 0}, {"status": "ready", "number": 1}], failed
        else:
            assert failed == (1, 7), (told, failed)
        rankguard.stop(processes, grace=2)
        for process in processes:
            process.join()
            process.close()
        for reader, _writer in pairs:
            reader.close()


def guarded() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    with rankguard.guard([child], on_failure=lambda _verdict: None) as guard:
        child.kill()
        verdict = guard.future.result(60)
    assert verdict.culprit.ending.signal == "SIGKILL"
    child.wait()


if __name__ == "__main__":
    launched("exec")
    launched("warm")
    for each in multiprocessing.get_all_start_methods():
        awaited(each)
    guarded()
    print("all", *multiprocessing.get_all_start_methods())
