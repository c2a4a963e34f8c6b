"""Row b. SIGKILL of rank 5 of 8 under a command line: how long until all is over.

8 ranks of a C program that rests and that SIGTERM ends (`ranks/rest.c`). From just before kill(2), some moments by chance
after all ranks were here, until the last rank and the last of the launcher's own processes is gone, by pidfds in the
bench; the report is out by then, as the command writes it before it ends, and has to name rank 5; we have to have reaped
every rank (mpirun leaves that to others). torchrun runs the same program (`--no-python`), mpirun, too.
"""

from pathlib import Path

from bench.jobs import Ends, Job, fell_to_us, kill, settle
from bench.measure import Contender, Failed, Line, at_most
from bench.setting import NPROCS, VICTIM, Setting

LIMIT_MS = 60.0


def run(setting: Setting) -> list[Line]:
    def ours() -> list[object]:
        return [setting.rankguard, "run", "-n", NPROCS, "--no-python", setting.rest, "FIFO"]

    def torchrun() -> list[object]:
        return setting.torchrun(NPROCS, "--no-python", setting.rest, "FIFO")

    def mpirun() -> list[object]:
        return [*setting.peers.mpirun(), "-n", NPROCS, setting.rest, "FIFO"]

    contenders = [
        Contender("rankguard", lambda _: once(ours(), setting.folder, "rank=5", reaped=True), setting.repeats(20)),
        Contender("torchrun", lambda _: once(torchrun(), setting.folder, "rank      : 5"), setting.repeats(10)),
        Contender("mpirun", lambda _: once(mpirun(), setting.folder, "process rank 5"), setting.repeats(10)),
    ]
    found = setting.turns(contenders)
    series, *peers = (found[each.name].series("ms") for each in contenders)
    what = "rank 5 of 8 killed under `run` → all gone, report out, launcher gone"
    return [
        Line(
            "b",
            what,
            "ms",
            series,
            peers,
            f"≤ {LIMIT_MS:.0f} ms",
            at_most(series, LIMIT_MS),
            label="rank killed under run → all over",
        )
    ]


def once(words: list[object], folder: Path, named: str, *, reaped: bool = False) -> dict[str, float]:
    with Job(words, folder) as job:
        ranks = job.here(NPROCS)
        with Ends([*job.own(ranks), *(each.pid for each in ranks)]) as ends:
            settle()
            began = kill(ranks[VICTIM].pid)
            ended = ends.wait()
        status = job.wait()
        unreaped = sum(fell_to_us(each.pid) for each in ranks)
        said = job.stderr.read_text(errors="replace")
    if status == 0 or named not in said:
        raise Failed(f"exit {status}, and rank {VICTIM} is not named: {said[-200:]}")
    if reaped and unreaped:
        raise Failed(f"{unreaped} ranks were not reaped")
    return {"ms": (ended - began) / 1e6}
