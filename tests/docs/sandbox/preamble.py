"""Names that the pages use without saying what they are: processes and pipes, an engine, a function of a rank."""

import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import rankguard

engine = SimpleNamespace(fail=print, shutdown=lambda: None)
settings = args = {"shards": 8}
loader = ["a batch", "another"]


def serve(infos=None):
    print("serving", infos)


def train(batch):
    print(batch)


def worker(number, pipe):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pipe.send({"status": "ready", "rank": number})
    while True:
        signal.pause()


def started():
    ends = [multiprocessing.Pipe(duplex=False) for _ in range(2)]
    procs = [multiprocessing.Process(target=worker, args=(n, w)) for n, (_r, w) in enumerate(ends)]
    for proc in procs:
        proc.start()
    for _reader, writer in ends:
        writer.close()
    return procs, [reader for reader, _writer in ends]


def stop_all(procs):
    assert len(rankguard.stop(procs)) == len(procs)


def scheduler(rank, args):
    rank.ready({"shards": args["shards"]})


def crashing(rank, args):
    os._exit(3)


def failed_run():
    try:
        with rankguard.launch(["sh", "-c", "echo last words of $RANK >&2; exit $((RANK == 5))"], nprocs=8) as job:
            job.wait()
    except rankguard.RankFailed:
        pass


def newest_run():
    return max((run for run in Path(os.environ["RANKGUARD_HOME"]).iterdir() if run.is_dir()), key=os.path.getmtime)
