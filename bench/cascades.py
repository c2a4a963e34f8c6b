"""Who failed first, when one failure ends all the others: cascades of real processes, and how often the verdict is right.

`python bench/cascades.py [N]`: N cascades of each kind (default 50), `--kinds WORD+…` only those whose names hold a
word, `--ranks 8`, `--seed 1`, `--list`, `--markdown FILE` writes the table, `--torchrun N` runs N of the torch kinds under
torchrun too. The ranks are joined by TCP; once all are, one fails, and its peers end because of it: at once, or after
1, 5 and 30 ms; in the words of the C library, in silence, or by SIGPIPE. The culprit holds 0, 400 MB or 1.5 GB and has
1 or 64 threads; crashes are with and without a core dump (deleted at once).

Started through `rankguard.launch`: the real supervisor, warden and ranks, without the 0.1 s that a command line takes.
Ctrl-C ends the kind that runs, and tells what is known by then. Ends with 1 when a name is wrong, or `either` is given in more than 2 % of a kind in which it can be decided.
Read next: `cascade/` (the ranks), `docs/cascades.md` (a full run, and what is `either`).
"""

import argparse
import itertools
import math
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import rankguard
from rankguard.inside import BOOTSTRAP

HERE = Path(__file__).parent / "cascade"
TORCH = Path(__file__).parents[1] / ".venv-torch/bin/python"
MOST_EITHER = 0.02
DELAYS = (0, 1000, 5000, 30_000)
SIZES, THREADS = (0, 400, 1500), (1, 64)
BIG_SHARE, BIG_CORE_SHARE = 4, 16
"""1.5 GB cost a second and its core two more, and as much disk: every 4th and 16th of the runs that they would have."""


RUNNABLE_S = 5e-3
"""A process that is to fail waits for a processor to do so. Of two failures that are nearer neither is the first, and one
that is nearer to the stop may not have begun."""


class Kind(NamedTuple):
    """One row of the table. `cells`: argument lists to take in turn; `causes`: what the cause may be."""

    name: str
    cells: tuple[tuple[str, ...], ...]
    causes: tuple[str, ...]
    program: str = "c"
    open: bool = False
    """Nothing that anybody could know tells who was first: `either` is right here, a wrong name is not."""
    both: bool = False
    """Two ranks fail by themselves; the last argument is by how many µs the second is later."""


def kinds() -> list[Kind]:
    def causal(fault, cores=(0,), victim="words", sizes=SIZES):
        grid = itertools.product(("star", "ring"), sizes, THREADS, cores, DELAYS)
        return tuple(
            (shape, fault, str(size), str(threads), str(core), str(delay), victim)
            for shape, size, threads, core, delay in grid
        )

    def two(first, second, gaps):
        return tuple(("star", first, "0", "1", "0", "30000", "words", "SECOND", second, str(gap)) for gap in gaps)

    def lingers(how):
        return tuple((how, linger, delay) for linger in ("0", "0.05", "0.5", "1") for delay in ("0", "0.005"))

    gaps = (-30_000, -5000, -1000, 0, 1000, 5000, 30_000)
    torch = tuple(itertools.product(("reduce", "ddp"), ("0", "1")))
    return [
        Kind("killed by another process", causal("kill"), ("killed",)),
        Kind("SIGSEGV, with and without a core", causal("segv", (0, 1)), ("crash",)),
        Kind("SIGABRT, with and without a core", causal("abort", (0, 1)), ("crash",)),
        Kind("exit 3", causal("exit"), ("exit-code",)),
        Kind("killed, and the others say nothing", causal("kill", victim="silent"), ("killed",)),
        Kind("killed, and the others get SIGPIPE", causal("kill", victim="sigpipe"), ("killed",)),
        Kind("exit 3, and the others say nothing", causal("exit", victim="silent"), ("exit-code",), open=True),
        Kind("exception", (("plain", "0", "0"), ("plain", "0", "0.005"), ("plain", "0", "0.03")), ("exception",), "python"),
        Kind("exception, lingers in `finally`", lingers("finally"), ("exception",), "python"),
        Kind("exception, lingers in `with`", lingers("with"), ("exception",), "python"),
        Kind("exception, then another on leaving", lingers("context"), ("exception",), "python"),
        Kind("exception, lingers, no bootstrap", lingers("finally"), ("exception",), "bare python"),
        Kind("two: killed, killed", two("kill", "kill", gaps), ("killed",), both=True, open=True),
        Kind("two: exit 3, exit 4", two("exit", "exit", gaps), ("exit-code",), both=True, open=True),
        Kind("two: SIGSEGV, exit 3", two("segv", "exit", gaps), ("crash", "exit-code"), both=True, open=True),
        Kind(
            "two: exceptions",
            tuple(("plain", "0", "0.03", "SECOND", str(gap / 1e6)) for gap in gaps),
            ("exception",), "python", both=True, open=True,
        ),
        Kind("all raise the same", (("plain", "0", "0", "everybody", "0"),), ("exception",), "python", open=True),
        Kind("torch gloo: raises", tuple((m, "raise", g) for m, g in torch), ("exception",), "torch"),
        Kind("torch gloo: killed", tuple((m, "kill", g) for m, g in torch), ("killed",), "torch"),
        Kind("torch gloo: exit 3", tuple((m, "exit", g) for m, g in torch), ("exit-code", "crash"), "torch"),
    ]  # fmt: skip


class Outcome(NamedTuple):
    grade: str
    """right, either, wrong"""
    seconds: float | None
    """From the instant of the failure to the verdict's (`Judged`)."""
    note: str
    told: bool = True
    """Of two failures both were told."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="?", type=int, default=50, help="cascades of each kind")
    parser.add_argument("--kinds", default="", help="words that a kind's name may hold, parted by +")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", help="write the table to this file, too")
    parser.add_argument("--torchrun", type=int, default=0, help="as many of each torch kind under torchrun")
    parser.add_argument("--list", action="store_true")
    asked = parser.parse_args()
    words = [word for word in asked.kinds.split("+") if word]
    chosen = [kind for kind in kinds() if not words or any(word in kind.name for word in words)]
    if asked.list:
        print("\n".join(f"{kind.name}: {len(kind.cells)} cells" for kind in chosen))
        return 0
    with tempfile.TemporaryDirectory(prefix="cascades-", dir="/var/tmp") as home:
        os.environ["RANKGUARD_HOME"] = f"{home}/runs"
        bench = Bench(Path(home), asked.ranks, random.Random(asked.seed))
        signal.signal(signal.SIGINT, bench.stop)
        rows, ok = [HEAD], True
        print(HEAD, flush=True)
        for kind in chosen:
            if kind.program == "torch" and not TORCH.exists():
                print(f"{kind.name}: no {TORCH} (`make test-torch` makes it)", flush=True)
                continue
            if bench.enough:
                break
            outcomes = bench.run(kind, asked.runs)
            row, good = _row(kind, outcomes)
            rows.append(row)
            ok &= good
            print(row, flush=True)
            if kind.program == "torch" and asked.torchrun:
                rows.append(_peer_row(kind, [bench.torchrun(kind, i) for i in range(asked.torchrun)]))
                print(rows[-1], flush=True)
    if asked.markdown:
        Path(asked.markdown).write_text("\n".join(rows) + "\n")
    return 0 if ok else 1


class Bench:
    """Runs cascades, one after the other; each has a folder of its own."""

    def __init__(self, home: Path, ranks: int, chance: random.Random) -> None:
        self.home, self.ranks, self.chance = home, ranks, chance
        self.rank = home / "rank"
        self.enough = False
        """Somebody pressed Ctrl-C: what is known by now is told."""
        subprocess.run(["gcc", "-O1", "-pthread", "-o", self.rank, HERE / "rank.c"], check=True)
        shutil.copy(HERE / "rank.py", home / "rank.py")

    def run(self, kind: Kind, runs: int) -> list[Outcome]:
        cells = [cell for _ in range(-(-runs // len(kind.cells))) for cell in self._shuffled(kind.cells)]
        found = []
        for number, planned in enumerate(cells[:runs]):
            cell = (*planned[:2], "0", *planned[3:]) if number % _share(kind, planned) else planned
            outcome = self.one(kind, cell)
            if outcome.grade == "wrong" or not outcome.told:
                print(f"    {outcome.grade}: {kind.name} {' '.join(cell)}: {outcome.note}", file=sys.stderr, flush=True)
            found.append(outcome)
            if self.enough:
                break
        return found

    def stop(self, *_: object) -> None:
        self.enough = True

    def _shuffled(self, cells: tuple[tuple[str, ...], ...]) -> list[tuple[str, ...]]:
        return self.chance.sample(cells, len(cells))

    def one(self, kind: Kind, cell: tuple[str, ...]) -> Outcome:
        """One cascade, with a culprit by chance."""
        culprit, second = self.chance.sample(range(self.ranks), 2)
        folder = Path(tempfile.mkdtemp(dir=self.home))
        argv = self._argv(kind, folder, culprit, second, cell)
        heard = {}

        def on_event(name, fact):
            heard[name] = fact["at"]

        try:
            with rankguard.launch(
                argv, nprocs=self.ranks, console="none", run_dir=folder / "run", cwd=folder, on_event=on_event
            ) as job:
                try:
                    verdict = job.wait(timeout=120)
                except rankguard.RankFailed as failed:
                    verdict = failed.verdict
            failed_at = {rank: float(text) for rank in range(self.ranks) if (text := _read(folder / f"failed.{rank}"))}
            outcome = _grade(kind, cell, culprit, second, verdict, failed_at, heard)
            if outcome.grade == "wrong" and (keep := os.environ.get("CASCADES_KEEP")):
                shutil.copytree(folder / "run", Path(keep, folder.name))
                outcome = outcome._replace(note=f"{outcome.note} [{folder.name}]")
            return outcome
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _argv(self, kind: Kind, folder: Path, culprit: int, second: int, cell: tuple[str, ...]) -> list[str]:
        words = [str(second) if word == "SECOND" else word for word in cell]
        python = [sys.executable, "-I", "-S"]
        match kind.program:
            case "c":
                return [str(self.rank), str(folder), str(culprit), *words]
            case "python":
                return [*python, BOOTSTRAP, str(self.home / "rank.py"), str(folder), str(culprit), *words]
            case "bare python":
                return [*python, str(self.home / "rank.py"), str(folder), str(culprit), *words]
            case _:
                return [str(TORCH), BOOTSTRAP, str(HERE / "torch_rank.py"), str(folder), str(culprit), *words]

    def torchrun(self, kind: Kind, number: int) -> bool | None:
        """Whether torchrun's "Root Cause" is the culprit; null when it names nobody."""
        culprit = self.chance.randrange(self.ranks)
        folder = Path(tempfile.mkdtemp(dir=self.home))
        words = [str(TORCH), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.ranks)]
        words += [str(HERE / "torch_rank.py"), str(folder), str(culprit), *kind.cells[number % len(kind.cells)]]
        said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300).stderr
        shutil.rmtree(folder, ignore_errors=True)
        named = re.search(r"Root Cause \(first observed failure\):.*?rank\s*: (\d+)", said, re.DOTALL)
        return int(named[1]) == culprit if named else None


def _grade(kind, cell, culprit, second, verdict, failed_at, heard) -> Outcome:
    first = culprit
    if kind.both or "everybody" in cell:
        first = min(failed_at, key=failed_at.__getitem__)
        if verdict.culprit and failed_at.get(verdict.culprit.rank, math.inf) - failed_at[first] < RUNNABLE_S:
            first = verdict.culprit.rank
    named, cause = verdict.culprit, verdict.culprit.cause if verdict.culprit else None
    seconds = heard["Judged"] - failed_at[first] if "Judged" in heard and first in failed_at else None
    relations = {row.rank: row.relation for row in verdict.ranks}
    note = f"rank {first} was first; named {named.rank if named else None} {cause.kind if cause else None}, either {verdict.either}, basis {verdict.order.basis if verdict.order else None}"
    if named is None or named.rank is None:
        grade = "either" if first in verdict.either else "wrong"
    elif verdict.either:
        grade = "either" if first in (named.rank, *verdict.either) else "wrong"
    else:
        grade = "right" if named.rank == first and cause.kind in kind.causes else "wrong"
    others = {relations[rank] for rank in relations if rank not in (culprit, second if kind.both else culprit)}
    told = True
    if "everybody" not in cell and not verdict.either and not others <= {"collateral", "stopped"}:
        told, note = False, f"{note}; the others are {sorted(others)}"
    if kind.both and len(failed_at) > 1:
        other = second if named and named.rank == culprit else culprit
        rows = {row.rank: row for row in verdict.ranks}
        in_time = failed_at[other] + RUNNABLE_S < heard["Looked"]
        by_itself = in_time and (rows[other].ending.kind == "exit" or rows[other].ending.number != 15)
        # After a signal nobody can tell an exit without a word from what a program does that lost its peer.
        untellable = len(kind.causes) > 1 and other == second and not verdict.either
        if by_itself and not untellable and relations[other] not in ("independent", "culprit"):
            told, note = False, f"{note}; rank {other}, which failed by itself, is {relations[other]}"
    return Outcome(grade, seconds, note, told)


def _share(kind: Kind, cell: tuple[str, ...]) -> int:
    """Of how many planned runs of this cell one is made; the others are as it, but small."""
    if kind.program != "c" or cell[2] != "1500":
        return 1
    return BIG_CORE_SHARE if cell[4] == "1" else BIG_SHARE


def _read(path: Path) -> str:
    try:
        return path.read_text().rstrip("\0")
    except OSError:
        return ""


HEAD = f"| {'kind':36} | {'runs':>5} | {'right':>5} | {'either':>6} | {'wrong':>5} | {'untold':>6} | {'median':>8} | {'p95':>8} |\n|{'-' * 38}|{'-' * 6}:|{'-' * 6}:|{'-' * 7}:|{'-' * 6}:|{'-' * 7}:|{'-' * 9}:|{'-' * 9}:|"


def _row(kind: Kind, outcomes: list[Outcome]) -> tuple[str, bool]:
    count = Counter(outcome.grade for outcome in outcomes)
    took = sorted(outcome.seconds for outcome in outcomes if outcome.seconds is not None)
    median, p95 = (statistics.median(took), took[int(len(took) * 0.95)]) if took else (0.0, 0.0)
    untold = sum(not outcome.told for outcome in outcomes)
    figures = f"{len(outcomes):5} | {count['right']:5} | {count['either']:6} | {count['wrong']:5} | {untold:6}"
    row = f"| {kind.name:36} | {figures} | {median * 1e3:5.1f} ms | {p95 * 1e3:5.1f} ms |"
    good = not count["wrong"] and not untold and (kind.open or count["either"] <= MOST_EITHER * len(outcomes))
    return row, good


def _peer_row(kind: Kind, found: list[bool | None]) -> str:
    count = Counter(found)
    figures = f"{len(found):5} | {count[True]:5} | {'':6} | {count[False]:5} | {count[None]:6}"
    return f"| {'… under torchrun':36} | {figures} | {'':8} | {'':8} |"


if __name__ == "__main__":
    time.tzset()
    sys.exit(main())
