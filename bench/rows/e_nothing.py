"""Row e. What a launcher costs by itself: one rank that does nothing, and the memory while a rank rests.

Time: `-n 1 true`, from just before the command is started to its end (wait4), output to files and /dev/null. Memory: one
rank of `ranks/rest.c`; the launcher's own processes (for us front, supervisor and warden; for mpirun its one) once the
rank is here and some moments have passed: PSS, their share of the pages they have in common with others
(/proc/PID/smaps_rollup); the rank is not in it.
"""

from bench.jobs import Job, pss, settle
from bench.measure import Contender, Failed, Line, at_most, since
from bench.setting import Setting

LIMIT_S, LIMIT_MB = 0.12, 40.0


def run(setting: Setting) -> list[Line]:
    def ours(*words: object) -> list[object]:
        return [setting.rankguard, "run", "-n", 1, "--no-python", *words]

    def torchrun(*words: object) -> list[object]:
        return setting.torchrun(1, "--no-python", *words)

    def mpirun(*words: object) -> list[object]:
        return [*setting.peers.mpirun(), "-n", 1, *words]

    def true(words: list[object]) -> dict[str, float]:
        with Job(words, setting.folder) as job:
            status = job.wait()
            took = since(job.began)
            if status != 0:
                raise Failed(f"exit {status}: {job.last_words()}")
        return {"s": took}

    def idle(words: list[object]) -> dict[str, float]:
        with Job(words, setting.folder) as job:
            own = job.own(job.here(1))
            settle()
            return {"mb": pss(own) / 1e6, "rss": pss(own, "Rss") / 1e6}

    launchers = {"rankguard": (ours, 20), "torchrun": (torchrun, 10), "mpirun": (mpirun, 20)}
    found = setting.turns(
        [
            Contender(name, lambda _, w=words: true(w("true")), setting.repeats(n))
            for name, (words, n) in launchers.items()
        ]
    )
    series, *peers = (found[name].series("s") for name in launchers)
    what = "`run -n 1 true`, all in all"
    lines = [Line("e", what, "s", series, peers, f"≤ {LIMIT_S} s", at_most(series, LIMIT_S), label="run -n 1 true")]

    found = setting.turns(
        [
            Contender(name, lambda _, w=words: idle(w(setting.rest, "FIFO")), setting.repeats(10), warm_up=False)
            for name, (words, n) in launchers.items()
        ]
    )
    series, *peers = (found[name].series("mb") for name in launchers)
    what = "front + supervisor + warden, PSS while one rank rests"
    lines.append(Line("e", what, "MB", series, peers, f"≤ {LIMIT_MB:.0f} MB", at_most(series, LIMIT_MB)))
    series, *peers = (found[name].series("rss") for name in launchers)
    lines.append(Line("e", "… the same as RSS (pages in common counted for each)", "MB", series, peers))
    return lines
