"""Cascades of real torch ranks (gloo, DistributedDataParallel) in great number, and how often the verdict is right.

`python bench/torch_cascades.py [N]`: N cascades of each kind (default 50), `--ranks 8`, `--seed 1`, `--kinds raise,kill,exit`.
Eight ranks that import torch take seconds; so one job makes them all: its ranks are forked of a warm server, and each
cascade is an attempt of it (`--max-restarts`), which begins when nothing is left of the one before. Who fails, in which
model, and whether the group is destroyed in a `finally`, is drawn anew each time. Needs `.venv-torch` (`make test-torch`).
Ends with 1 when a name is wrong, or `either` is given in more than 2 %. Read next: `cascade/torch_rank.py`, `cascades.py`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median

from cascades import HEAD, HERE, MOST_EITHER, TORCH

CAUSES = {"raise": ("exception",), "kill": ("killed",), "exit": ("exit-code", "crash")}
NAMES = {"raise": "raises", "kill": "killed", "exit": "exit 3"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="?", type=int, default=50, help="cascades of each kind")
    parser.add_argument("--kinds", default="raise,kill,exit")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print(HEAD, flush=True)
    good = True
    for kind in asked.kinds.split(","):
        with tempfile.TemporaryDirectory(prefix="cascades-", dir="/var/tmp") as home:
            good &= run(kind, asked, Path(home))
    return 0 if good else 1


def run(kind: str, asked: argparse.Namespace, home: Path) -> bool:
    """One job, all its cascades; its row, and each wrong name on stderr."""
    words = ["run", "-n", asked.ranks, "--start", "warm", "--max-restarts", asked.runs - 1, "--restart-delay", 0]
    # What DistributedDataParallel imports only when it is made costs a rank more than all the rest.
    words += [
        "--preload",
        "torch,torch.distributed.nn,torch._dynamo",
        "--run-dir",
        home / "run",
        "--report",
        "none",
        "-r",
        3,
    ]
    words += [HERE / "torch_rank.py", home, "drawn", asked.seed, kind]
    status = subprocess.run([TORCH, "-m", "rankguard", *map(str, words)], check=False).returncode
    verdict = json.loads((home / "run/verdict.json").read_text())
    last = verdict["culprit"]
    told = [(each["rank"], each["cause"], each["either"], each["statement"]) for each in verdict["attempts"]]
    told.append((last and last["rank"], last and last["cause"]["kind"], verdict["either"], verdict["statement"]))
    judged = [when["at"] for when in _facts(home / "run/events.jsonl", "Judged")]
    grades, took = Counter[str](), []
    for number, (rank, cause, either, statement) in enumerate(told):
        try:
            at, culprit, *drawn = (home / f"failed.{number}").read_text().split()
        except FileNotFoundError:
            grades["wrong"] += 1
            print(f"    attempt {number}: nobody came to step 5: {statement}", file=sys.stderr, flush=True)
            continue
        took.append(judged[number] - float(at))
        right = rank == int(culprit) and cause in CAUSES[kind]
        grade = "either" if either and int(culprit) in (rank, *either) else "right" if right and not either else "wrong"
        grades[grade] += 1
        if grade == "wrong":
            print(f"    attempt {number}: rank {culprit} ({kind}, {drawn}): {statement}", file=sys.stderr, flush=True)
    took.sort()
    figures = f"{len(told):5} | {grades['right']:5} | {grades['either']:6} | {grades['wrong']:5} | {'':6}"
    times = f"{median(took) * 1e3:5.1f} ms | {took[int(len(took) * 0.95)] * 1e3:5.1f} ms" if took else "|"
    print(f"| {'torch gloo: ' + NAMES[kind]:36} | {figures} | {times} |", flush=True)
    whole = len(told) == asked.runs and status != 0
    if not whole:
        print(f"    only {len(told)} attempts: {verdict['not_restarted']}", file=sys.stderr, flush=True)
    return whole and not grades["wrong"] and grades["either"] <= MOST_EITHER * len(told)


def _facts(path: Path, name: str) -> list[dict[str, float]]:
    with path.open() as lines:
        return [entry for entry in map(json.loads, lines) if entry.get("fact") == name]


if __name__ == "__main__":
    sys.exit(main())
