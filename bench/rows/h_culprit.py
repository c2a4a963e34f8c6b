"""Row h. The right culprit, when one failure ends all the others: 100 jobs of each of three kinds (`cascades.py`).

8 ranks, joined by TCP; who is the culprit is drawn anew each time. `30 ms`: it ends with 3, each other rank 30 ms later,
with 1 and the words of the C library. `400 MB`: it holds 400 MB and is killed by another process; the others end as soon
as they have lost it, long before the kernel has torn it down. `finally`: it raises, closes its connections in a
`finally` and lingers there for 50 ms; the others raise `ConnectionError` at once.

Right: that rank is named, with its cause, and nobody else may have been it; `either` is counted apart. Ours through
`rankguard.launch`, ranks by exec. torchrun starts the same ranks; right is what it calls "Root Cause".
Figures are how many of how many.
"""

import random
import re
import shutil
import subprocess
import tempfile

from bench import cascades
from bench.measure import RIGHT, Contender, Line
from bench.setting import NPROCS, Setting

KINDS = {
    "30 ms cascade (exit 3, then the others)": ("exit 3", ("star", "exit", "0", "1", "0", "30000", "words")),
    "causal cascade, the culprit holds 400 MB": ("killed by another process", ("star", "kill", "400", "1", "0", "0", "words")),
    "the culprit lingers in `finally`": ("exception, lingers in `finally`", ("finally", "0.05", "0")),
}  # fmt: skip
RUNS, PEER_RUNS = 100, 10
MOST_EITHER = 0.02


def run(setting: Setting) -> list[Line]:
    home = setting.folder / "cascades"
    home.mkdir()
    bench = cascades.Bench(home, NPROCS, random.Random())
    kinds = {kind.name: kind for kind in cascades.kinds()}
    lines = []
    for what, (name, cell) in KINDS.items():
        kind = kinds[name]
        found = setting.turns(
            [
                Contender("rankguard", lambda _, k=kind, c=cell: _ours(bench, k, c), setting.repeats(RUNS), False),
                Contender(
                    "torchrun",
                    lambda _, k=kind, c=cell: _theirs(setting, bench, k, c),
                    setting.repeats(PEER_RUNS),
                    False,
                ),
            ]
        )
        lines.append(_line(what, found))
    return lines


def _ours(bench: cascades.Bench, kind: cascades.Kind, cell: tuple[str, ...]) -> dict[str, float]:
    grade = bench.one(kind, cell).grade
    return {"right": grade == "right", "either": grade == "either"}


def _theirs(setting: Setting, bench: cascades.Bench, kind: cascades.Kind, cell: tuple[str, ...]) -> dict[str, float]:
    culprit = bench.chance.randrange(NPROCS)
    folder = tempfile.mkdtemp(dir=bench.home)
    program = ["--no-python", bench.rank] if kind.program == "c" else [bench.home / "rank.py"]
    words = setting.torchrun(NPROCS, *program, folder, culprit, *cell)
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=120, cwd=folder, start_new_session=True
    )
    shutil.rmtree(folder, ignore_errors=True)
    named = re.search(r"Root Cause \(first observed failure\):.*?rank\s*: (\d+)", done.stderr, re.DOTALL)
    return {"right": named is not None and int(named[1]) == culprit, "either": 0.0}


def _line(what: str, found: dict[str, Contender]) -> Line:
    ours, peer = (found[name].series("right") for name in ("rankguard", "torchrun"))
    line = Line("h", f"right culprit: {what}", RIGHT, ours, [peer])
    either = sum(each["either"] for each in found["rankguard"].results)
    wrong = len(ours.values) - sum(ours.values) - either
    line.reach = f"all, `either` ≤ {MOST_EITHER * 100:.0f} %"
    line.reached = not wrong and not ours.failed and either <= MOST_EITHER * len(ours.values)
    line.note = f"{either:.0f} either, {wrong:.0f} wrong"
    return line
