"""Row c. 8 torch ranks: from the command to the last rank's way out of its first gloo barrier.

`ranks/here_torch.py FIFO barrier`: imports torch at its top, `init_process_group("gloo")`, `barrier()`. From just before
the launcher is started to the latest instant that a rank wrote down. The end of the job is not in it. Both commands are
of one environment, with the same torch, read from disk before; a repeat of torchrun and of `--start exec` takes over 5 s.
"""

from bench.jobs import Job
from bench.measure import Contender, Failed, Line, times
from bench.setting import NPROCS, RANKS_DIR, Setting

LIMIT = 0.35
PROGRAM = (RANKS_DIR / "here_torch.py", "FIFO", "barrier")


def run(setting: Setting) -> list[Line]:
    def once(words: list[object]) -> dict[str, float]:
        with Job(words, setting.folder) as job:
            passed = max(each.at for each in job.here(NPROCS))
            if status := job.wait():
                raise Failed(f"exit {status}: {job.last_words()}")
        return {"s": (passed - job.began) / 1e9}

    def ours(how: str, repeats: int) -> Contender:
        def once_(_number: int) -> dict[str, float]:
            return once([setting.torch_rankguard(), "run", "-n", NPROCS, "--start", how, *PROGRAM])

        return Contender(f"--start {how}", once_, setting.repeats(repeats), warm_up=False)

    starts = [ours("auto", 10), ours("warm", 10), ours("exec", 5)]
    peer = Contender("torchrun", lambda _: once(setting.torchrun(NPROCS, *PROGRAM)), setting.repeats(5), warm_up=False)
    found = setting.turns([*starts, peer])
    theirs = found["torchrun"].series("s")
    lines = []
    for each in starts:
        series = found[each.name].series("s")
        multiple = times(series, theirs)
        what = f"8 torch ranks: command → all through the first gloo barrier, `{each.name}`"
        line = Line("c", what, "s", series, [theirs])
        series.name, line.label = "rankguard", f"8 torch ranks → first barrier, {each.name}"
        if each.name != "--start exec":
            line.reach, line.reached = f"≤ {LIMIT} × torchrun", None if multiple is None else multiple <= LIMIT
        lines.append(line)
    return lines
