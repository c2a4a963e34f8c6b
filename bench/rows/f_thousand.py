"""Row f. 1,000 ranks on one machine: until all are started; one is killed: until all are gone; and warm Python ranks.

C ranks: `ranks/rest.c` under `run -n 1000 --no-python`; from just before the command is started to the latest instant that
a rank wrote down. Then one of them gets a SIGKILL; until the last rank is gone, and until our own processes are, by pidfds
in the bench. Python ranks: `run -n 1000 --start warm ranks/here.py`, until the last of them is in `main`.
A repeat of the Python ranks takes over 5 s with its end. No peer stands beside it: mpirun needed 11 to 31 s for the same
on the 2 processors where this was written, torchrun would need as many gigabytes for as many interpreters.
"""

from bench.jobs import Ends, Job, kill, settle
from bench.measure import Contender, Line, at_most
from bench.setting import RANKS_DIR, Setting

STARTED_S, GONE_S, WARM_S = 2.0, 0.2, 5.0
MANY, FEW = 1000, 50


def run(setting: Setting) -> list[Line]:
    count = FEW if setting.quick else MANY

    def rest(words: list[object]) -> dict[str, float]:
        with Job(words, setting.folder) as job:
            ranks = job.here(count)
            pids = [each.pid for each in ranks]
            with Ends([*job.own(ranks), *pids]) as ends:
                settle()
                began = kill(ranks[count // 2].pid)
                over = ends.wait()
                gone = ends.last(pids)
            job.wait()
        started = max(each.at for each in ranks) - job.began
        return {"started": started / 1e9, "gone": (gone - began) / 1e9, "over": (over - began) / 1e9}

    def warm(_number: int) -> dict[str, float]:
        words = [setting.rankguard, "run", "-n", count, "--start", "warm", RANKS_DIR / "here.py", "FIFO"]
        with Job(words, setting.folder) as job:
            return {"s": (max(each.at for each in job.here(count)) - job.began) / 1e9}

    def ours(_number: int) -> dict[str, float]:
        return rest([setting.rankguard, "run", "-n", count, "--no-python", setting.rest, "FIFO"])

    found = setting.turns(
        [
            Contender("rankguard", ours, setting.repeats(10)),
            Contender("warm", warm, setting.repeats(5), warm_up=False),
        ]
    )
    c = found["rankguard"]
    python = found["warm"].series("s")
    python.name = "rankguard"

    def line(what: str, label: str, figure: str, limit: float | None) -> Line:
        made = Line("f", what, "s", c.series(figure), label=label)
        if limit is not None:
            made.reach, made.reached = f"≤ {limit:g} s", at_most(made.ours, limit)
        return made

    return [
        line(f"{count:,} ranks of a C program: command → all started", "1,000 C ranks → all started", "started", STARTED_S),
        line("… one killed → all ranks gone", "… one killed → all gone", "gone", GONE_S),
        line("… and the launcher's own processes, too", "… and we are gone", "over", None),
        Line(
            "f", f"{count:,} warm Python ranks: command → all in `main`", "s", python, [],
            f"≤ {WARM_S:g} s", at_most(python, WARM_S), label="1,000 warm Python ranks → all in main",
        ),
    ]  # fmt: skip
