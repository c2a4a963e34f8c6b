"""Stacks of eight ranks that train with torch: how long it takes to tell them, and what the ranks notice of it.

    .venv-torch/bin/python bench/stacks.py [--ranks 8] [--times 10] [--no-ptrace] [--limit-s S]

Each rank does small steps with an all_reduce (gloo) and keeps the duration of each. `rankguard stacks` is asked `times`
times while they go on. Told: the seconds from the question to the answer (the command's own start included, which is
0.1 s and more of it), the steps before, between and during the questions, and how the job ended. Needs torch; py-spy
is found beside this Python or on PATH. Read next: docs/hangs.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NO_PTRACE = Path(__file__).parents[1] / "tests/runs/no_ptrace.py"
TRAIN = """
import json, os, sys, time
import torch, torch.distributed as dist
torch.set_num_threads(1)
dist.init_process_group("gloo")
folder, weights, steps = sys.argv[1], torch.zeros(64, 64), []
def compute():
    return torch.tanh(weights @ weights).sum()
def step(stop):
    told = torch.tensor([float(stop), float(compute())])
    dist.all_reduce(told)
    return told[0] > 0
while True:
    if len(steps) == 20 and dist.get_rank() == 0:
        open(f"{folder}/warm", "w").close()
    began = time.monotonic()
    ended = step(dist.get_rank() == 0 and os.path.exists(f"{folder}/stop"))
    steps.append((began, time.monotonic() - began))
    if ended:
        break
json.dump(steps, open(f"{folder}/steps-{dist.get_rank()}", "w"))
dist.destroy_process_group()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--no-ptrace", action="store_true", help="nobody may trace: the ranks tell their own stacks")
    parser.add_argument(
        "--limit-s", type=float, help="exit status 1 if the median is above it, or a rank was disturbed"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rg-bench-") as folder:
        took, asked, ended, stderr = measure(Path(folder), given)
        steps = [s for rank in range(given.ranks) for s in json.loads(Path(folder, f"steps-{rank}").read_text())]
    began, over = asked[0][0] - 1.0, asked[-1][1]
    within = [d for at, d in steps if any(a <= at + d and at <= b for a, b in asked)]
    before = [d for at, d in steps if at + d < began + 1.0]
    after = [d for at, d in steps if at > over]
    print(f"{given.ranks} ranks, {os.cpu_count()} CPUs, {given.times} times")
    print(f"stacks told after  median {statistics.median(took):.2f} s, worst {max(took):.2f} s")
    for name, durations in (("before", before), ("meanwhile", within), ("afterwards", after)):
        print(f"step {name:12} {_told(durations)}")
    print(
        f"the job ended with {ended}; on its stderr: {stderr.strip().splitlines()[-1] if stderr.strip() else 'nothing'}"
    )
    if given.limit_s is not None:
        sys.exit(int(statistics.median(took) > given.limit_s or ended != 0))


def measure(folder: Path, given: argparse.Namespace) -> tuple[list[float], list[tuple[float, float]], int, str]:
    """Seconds of each question, its begin and end, the job's exit status and stderr."""
    program = folder / "train.py"
    program.write_text(TRAIN)
    run = [sys.executable, "-m", "rankguard"]
    before = [sys.executable, str(NO_PTRACE)] if given.no_ptrace else []
    words = [*before, *run, "run", "-n", str(given.ranks), "--run-dir", str(folder / "run"), str(program), str(folder)]
    with (folder / "stderr").open("w") as stderr:
        job = subprocess.Popen(words, stderr=stderr, stdin=subprocess.DEVNULL)
        _until(lambda: (folder / "warm").exists() or job.poll() is not None)
        took, asked = [], []
        time.sleep(3.0)
        for _ in range(given.times):
            began = time.monotonic()
            told = subprocess.run([*run, "stacks", str(folder / "run")], capture_output=True, text=True)
            now = time.monotonic()
            if told.returncode != 0 or "step" not in told.stdout:
                sys.exit(f"no stacks: {told.stdout}{told.stderr}")
            took.append(now - began)
            asked.append((began, now))
            time.sleep(0.5)
        print(told.stdout.split("\n\n")[1])
        time.sleep(3.0)
        (folder / "stop").touch()
        return took, asked, job.wait(), (folder / "stderr").read_text()


def _told(durations: list[float]) -> str:
    if not durations:
        return "none"
    ordered = sorted(durations)
    p99 = ordered[int(0.99 * (len(ordered) - 1))]
    return f"median {1e3 * statistics.median(ordered):7.2f} ms, 99 % {1e3 * p99:7.1f} ms, worst {1e3 * ordered[-1]:7.1f} ms ({len(ordered)} steps)"


def _until(true) -> None:  # type: ignore[no-untyped-def]  # a function
    while not true():
        time.sleep(0.05)


if __name__ == "__main__":
    main()
