"""Losses at random under `--on ray`: Ray places the agents on four hosts, and a raylet, a node or a part of the job is lost.

`python -m tests.ray.losses [COUNT] [--seed N] [--only KIND]` (`make losses-ray`). The same questions as
`../nodes/losses.py` asks, of a job that one command on host-a has started: a hang, a survivor, a wrong verdict. Each turn
has a Ray cluster of its own; its processes are no survivors.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.nodes.jobs import TOKEN, Job
from tests.nodes.losses import CLOCKS, GRACE, NODES, SILENT, SLACK, TOGETHER, WAIT
from tests.nodes.rig import Rig, why_not
from tests.ray import hosts as cluster

KINDS = ("rank", "raylet", "agent", "cut", "driver", "placer")
BOUND = SILENT + GRACE + 2 * SLACK
"""Ray notices a raylet's end at once, and ends its actors; that a driver is gone it tells in a second or two."""


def once(rig: Rig, folder: Path, kind: str) -> tuple[str, float, str]:
    """(what was lost, seconds until all had ended, what is wrong with it)."""
    address = cluster.start(rig, 2)
    with Job(rig.hosts, folder, random.choice((WAIT, TOGETHER))) as job:
        env = rig.hosts[0].env(RANKGUARD_TOKEN=TOKEN, RANKGUARD_HOME=str(job.home(0)), **cluster.ENV)
        words = [
            sys.executable,
            "-m",
            "rankguard",
            "run",
            "--on",
            "ray",
            "--ray-address",
            address,
            "--nnodes",
            str(NODES),
        ]
        words += ["-n", "2", "--grace", "1", *CLOCKS, "--join-timeout", "90", str(job.program), str(job.fifo)]
        job.fronts[0] = rig.hosts[0].popen(words, env=env, stdout=-1, stderr=-1, text=True)
        job.up(limit=100.0)
        time.sleep(random.uniform(0, 0.5))
        rank = random.randrange(2 * NODES)
        where = next(host for host in rig.hosts if host.name == job.ranks[rank].host)
        if kind == "cut":
            where = random.choice(rig.hosts[1:])
            where.cut(silently=random.random() < 0.5)
        elif kind == "rank":
            job.kill_rank(rank)
        else:
            os.kill(victim(job, kind, where, rank), signal.SIGKILL)
        lost = time.monotonic()
        wrong = ""
        try:
            [node] = job.ended(BOUND)
            job.gone(range(2 * NODES), max(0.1, BOUND - (time.monotonic() - lost)))
        except AssertionError as error:
            return f"{kind} of {where.name}", time.monotonic() - lost, f"hang: {error}"
        told, took = node.verdict, time.monotonic() - lost
        left = ours_left(rig, job)
        while left and time.monotonic() - lost < BOUND:
            left = ours_left(rig, job)
        if left:
            wrong += f"left: {left}; "
        if node.status == 0:
            wrong += "ended with 0; "
        culprit: dict[str, Any] = told.get("culprit") or {}
        if kind == "rank" and (culprit.get("rank"), culprit.get("node"), node.status) != (rank, where.name, 137):
            wrong += f"{node.status} {told.get('statement', told)}"
        if kind in ("raylet", "agent", "cut") and (node.kind, culprit.get("node")) != ("node-lost", where.name):
            wrong += f"{node.kind} {told.get('statement', told)}"
        return f"{kind} of {where.name}", took, wrong


def victim(job: Job, kind: str, where: Any, rank: int) -> int:
    """The process to kill."""
    if kind == "raylet":
        return cluster.raylet(where)
    if kind == "agent":
        return parent(job.ranks[rank].pid)
    ours = job.ours(0)
    if kind == "driver":
        return ours[random.choice(("front", "supervisor", "warden"))]
    return next(pid for pid, line in job.hosts[0].processes().items() if "rankguard.nodes.rayplace" in line)


def parent(pid: int) -> int:
    """Of a rank: the supervisor of its agent."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def ours_left(rig: Rig, job: Job) -> dict[int, str]:
    """Of rankguard and its ranks, not of Ray."""
    everything = {pid: line for host in rig.hosts for pid, line in host.processes().items()}
    return {pid: line for pid, line in everything.items() if "rankguard" in line or str(job.program) in line}


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("count", nargs="?", type=int, default=24)
    options.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options.add_argument("--only", choices=KINDS)
    asked = options.parse_args()
    if (reason := why_not()) is not None:
        print(f"losses: {reason}", file=sys.stderr)
        return 2
    random.seed(asked.seed)
    print(f"seed {asked.seed}, bound {BOUND:.1f} s", flush=True)
    bad = 0
    for turn in range(asked.count):
        with tempfile.TemporaryDirectory(prefix="rl-", dir="/var/tmp") as made, Rig(NODES, Path(made)) as rig:
            folder = Path(made, "job")
            folder.mkdir()
            what, took, wrong = once(rig, folder, asked.only or KINDS[turn % len(KINDS)])
            cluster.stop(rig)
        bad += bool(wrong)
        print(f"{turn + 1:4} {'WRONG' if wrong else 'right'} {took:6.2f} s  {what}", flush=True)
        if wrong:
            print(f"     {wrong}", flush=True)
    print(f"{asked.count - bad} of {asked.count} right")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
