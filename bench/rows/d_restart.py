"""Row d. One of 8 torch ranks is killed: how long until all 8 are in `main` again, with torch imported.

`ranks/here_torch.py FIFO main`. From just before the SIGKILL of rank 5 to the latest instant that a rank of the second
attempt wrote down (the ranks read the attempt from TORCHELASTIC_RESTART_COUNT, which both launchers set). Whatever
the launcher does in between is in it, our pause, too: there is none before a first restart (a second failure in a row
would wait a second), and each repeat of ours is the first restart of a job of its own. torchrun never waits, so its three
restarts of one job are as many repeats, to be done within minutes. It executes its ranks anew, ours are forked of the
warm server.
"""

from bench.jobs import Job, kill, settle
from bench.measure import Contender, Failed, Line, NotThere, times
from bench.setting import NPROCS, RANKS_DIR, VICTIM, Setting

LIMIT = 0.05
RESTARTS = 3
PROGRAM = (RANKS_DIR / "here_torch.py", "FIFO", "main")


def run(setting: Setting) -> list[Line]:
    running: list[tuple[Job, int]] = []

    def again(job: Job, attempt: int) -> float:
        """Seconds from the death of a rank of `attempt` to the presence of all ranks of the next one."""
        [*_, victim] = job.here(NPROCS, attempt)[: VICTIM + 1]
        settle()
        began = kill(victim.pid)
        try:
            return (max(each.at for each in job.here(NPROCS, attempt + 1)) - began) / 1e9
        except Failed as why:
            if attempt == 0 and "ended with" in str(why):
                raise NotThere(f"no restart: {str(why).partition(':')[0]}") from why
            raise

    def ours(_number: int) -> dict[str, float]:
        words = [
            setting.torch_rankguard(),
            "run",
            "-n",
            NPROCS,
            "--start",
            "warm",
            "--max-restarts",
            RESTARTS,
            *PROGRAM,
        ]
        with Job(words, setting.folder) as job:
            return {"s": again(job, 0)}

    def torchrun(_number: int) -> dict[str, float]:
        job, attempt = running.pop() if running else (None, 0)
        if job is None:
            job = Job(setting.torchrun(NPROCS, "--max-restarts", RESTARTS, *PROGRAM), setting.folder)
        try:
            seconds = again(job, attempt)
        except BaseException:
            job.__exit__()
            raise
        if attempt + 1 < RESTARTS and not setting.quick:
            running.append((job, attempt + 1))
        else:
            job.__exit__()
        return {"s": seconds}

    try:
        found = setting.turns(
            [
                Contender("rankguard", ours, setting.repeats(10), warm_up=False),
                Contender("torchrun", torchrun, setting.repeats(2 * RESTARTS), warm_up=False),
            ]
        )
    finally:
        for job, _attempt in running:
            job.__exit__()
    series, theirs = found["rankguard"].series("s"), found["torchrun"].series("s")
    multiple = times(series, theirs)
    what = "one of 8 torch ranks killed → all 8 in `main` again, torch imported (`--start warm --max-restarts 3`)"
    reached = None if multiple is None else multiple <= LIMIT
    return [
        Line(
            "d",
            what,
            "s",
            series,
            [theirs],
            f"≤ {LIMIT} × torchrun",
            reached,
            label="torch rank killed → all 8 in main again",
        )
    ]
